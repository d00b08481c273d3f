#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same short training run with lucid_c and with PyTorch, step by step, and a picture of both.

    python examples/digits_vs_pytorch.py                     # 200 steps of SGD, a minute
    LUCID_C_CONV=direct python examples/digits_vs_pytorch.py # every convolution by direct sums

The model, the digits and their split are those of ``digits.py``. Both runs begin with the same
weights and see the same batches, augmented beforehand; PyTorch runs the same network, made of
plain torch.nn layers (``benchmarks/twins.py``). A third run is PyTorch's in float64: its distance
from PyTorch in float32 shows how far rounding alone leads two runs apart. Needs PyTorch,
scikit-learn and Matplotlib.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import lucid_c
from lucid_c import digits, optim
from lucid_c._files import replacing
from lucid_c.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "benchmarks")]
import twins  # noqa: E402
from digits import augment, split  # noqa: E402

BATCH = 64
RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
EVERY = 10  # steps between two looks at the held-out digits


def torch_twin(weights, dtype):
    """The network of `lucid_c.digits.resnest` in torch.nn, in training mode."""
    model = twins.Network(
        twins.SplitBottleneck,
        digits.LAYERS,
        num_classes=10,
        stem_width=digits.STEM_WIDTH,
        deep_stem=True,
        in_channels=1,
        channels=digits.CHANNELS,
    )
    model.conv1[0] = torch.nn.Conv2d(1, digits.STEM_WIDTH, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    twins.load(model, weights)
    return model.to(dtype).train()


def make_batches(images, labels, steps, seed):
    """The batches of a run: a list of (input, labels)."""
    rng = np.random.default_rng(seed)
    batches = []
    while len(batches) < steps:
        order = rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            batches.append((digits.to_input(augment(images[rows], rng)), labels[rows]))
    return batches[:steps]


def rate(step, steps):
    """The learning rate: half a cosine wave from `RATE` to 0."""
    return RATE * (1 + np.cos(np.pi * step / steps)) / 2


def run_lucid(weights, batches, held_out=None):
    """Trains with lucid_c; returns the losses and the shares of held-out digits it gets right."""
    model = digits.resnest(pretrained=False)
    model.load_state_dict(weights)
    model.train()
    optimizer = optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    losses, shares = [], []
    for step, (x, y) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate(step, len(batches))
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if held_out and (step + 1) % EVERY == 0:
            model.eval()
            shares.append((np.asarray(model(held_out[0])).argmax(1) == held_out[1]).mean())
            model.train()
    return np.array(losses), np.array(shares)


def run_torch(weights, batches, held_out=None, dtype=torch.float32):
    """As `run_lucid`, with PyTorch."""
    torch.set_num_threads(lucid_c.get_num_threads())
    model = torch_twin(weights, dtype)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    losses, shares = [], []
    for step, (x, y) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate(step, len(batches))
        logits = model(torch.from_numpy(x).to(dtype))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if held_out and (step + 1) % EVERY == 0:
            model.eval()
            with torch.no_grad():
                logits = model(torch.from_numpy(held_out[0]).to(dtype))
            shares.append((logits.numpy().argmax(1) == held_out[1]).mean())
            model.train()
    return np.array(losses), np.array(shares)


def prepare(steps, seed):
    """The initial weights, the batches, and the held-out digits as (input, labels)."""
    lucid_c.random.seed(seed)
    start = digits.resnest(pretrained=False).state_dict()
    weights = {name: np.array(value) for name, value in start.items()}
    data = load_digits()
    last = split(data.target)
    batches = make_batches(data.images[~last], data.target[~last], steps, seed)
    return weights, batches, (digits.to_input(data.images[last]), data.target[last])


def plot(path, runs):
    """Draws losses, accuracy and distances from PyTorch in float64 side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    styles = (("#0072B2", "-", 3.5), ("#E69F00", "-", 1.4), ("#000000", ":", 1.2))
    exact = runs["PyTorch float64"][0]
    for (name, (losses, shares)), (colour, line, width) in zip(runs.items(), styles, strict=True):
        style = {"color": colour, "linestyle": line, "linewidth": width, "label": name}
        steps = np.arange(1, len(losses) + 1)
        left.plot(steps, losses, **style)
        middle.plot(steps[EVERY - 1 :: EVERY], 100 * shares, **style)
        if losses is not exact:
            away = np.maximum(np.abs(losses - exact) / exact, 1e-9)
            right.semilogy(steps, away, **(style | {"linewidth": 1.4}))
    left.set(title="training loss", ylabel="cross-entropy", yscale="log")
    middle.set(title="held-out digits", ylabel="classified correctly, %")
    right.set(title="distance of the loss from float64's", ylabel="relative")
    for axes in (left, middle, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", default="digits_vs_pytorch.png", help="where the picture goes")
    args = parser.parse_args(argv)

    weights, batches, held_out = prepare(args.steps, args.seed)
    runs = {
        "lucid_c": run_lucid(weights, batches, held_out),
        "PyTorch": run_torch(weights, batches, held_out),
        "PyTorch float64": run_torch(weights, batches, held_out, torch.float64),
    }
    print("step" + "".join(f"{name + ' loss, held out':>32}" for name in runs))
    for i in range(EVERY - 1, args.steps, EVERY):
        row = [f"{run[0][i]:.6f}, {100 * run[1][i // EVERY]:.2f} %" for run in runs.values()]
        print(f"{i + 1:4}" + "".join(f"{text:>32}" for text in row))
    plot(args.plot, runs)
    print(f"wrote {args.plot}")


if __name__ == "__main__":
    main()
