# SPDX-License-Identifier: MIT
"""The trained model in the package, its data, and the examples that make and compare it."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lucid_c
from helpers import assert_same_bits
from lucid_c import digits
from lucid_c.checkpoints import open_checkpoint

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ASSETS = Path(digits.__file__).parent / "assets"


@pytest.fixture
def example(monkeypatch):
    """example(name): a script of examples/ as a module."""
    if not EXAMPLES.exists():
        pytest.skip("no checkout around the tests")
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module


def test_accuracy():
    images, labels = digits.held_out()
    model = digits.resnest()
    logits = np.asarray(model(digits.to_input(images)))
    assert logits.shape == (364, 10) and not model.training
    assert (logits.argmax(1) == labels).mean() >= 0.99
    one = np.asarray(model(digits.to_input(images[7])))
    assert_same_bits(one, logits[7:8])


def test_held_out_digits_are_those_of_scikit_learn(example):
    data = import_module("sklearn.datasets").load_digits()
    images, labels = digits.held_out()
    rows = example("digits").split(data.target)
    np.testing.assert_array_equal(images, data.images[rows])
    np.testing.assert_array_equal(labels, data.target[rows])
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    for label in range(10):  # a fifth of each class, rounded up
        assert (labels == label).sum() == -(-(data.target == label).sum() // 5)


def test_the_file():
    path = ASSETS / "digits.safetensors"
    model = digits.resnest(pretrained=False)
    want = {name: value.shape for name, value in model.state_dict().items()}
    with open_checkpoint(path) as checkpoint:
        entries = {name: checkpoint[name] for name in checkpoint}
        assert checkpoint.metadata["data"] == "scikit-learn load_digits"
    assert {name: entry.shape for name, entry in entries.items()} == want
    assert {entry.dtype for entry in entries.values()} == {"float32"}
    assert path.stat().st_size < 1_000_000
    assert (ASSETS / "digits.npz").stat().st_size < 20_000


def test_without_the_weights():
    lucid_c.random.seed(1)
    drawn = digits.resnest(pretrained=False)
    images, labels = digits.held_out()
    logits = np.asarray(drawn(digits.to_input(images)))
    assert (logits.argmax(1) == labels).mean() < 0.5


@pytest.mark.parametrize(
    "images,error",
    [
        (np.zeros((2, 8, 9)), ValueError),
        (np.zeros(64), ValueError),
        (np.zeros((1, 1, 8, 8)), ValueError),
        (np.zeros((8, 8), complex), TypeError),
        (np.full((8, 8), "a"), TypeError),
    ],
)
def test_wrong_images(images, error):
    with pytest.raises(error, match="images must"):
        digits.to_input(images)


def test_the_script_trains_and_repeats_itself(example, tmp_path, capsys, threads):
    """One epoch, twice, with one thread and with two: the same bits."""
    script, states = example("digits"), []
    for count in (1, 2):
        threads(count)
        script.main(["--epochs", "1", "--seed", "5", "--out", str(tmp_path / f"{count}.st")])
        states.append(lucid_c.load(tmp_path / f"{count}.st"))
        epoch, held_out, _ = capsys.readouterr().out.splitlines()
        assert epoch.startswith("epoch  1: loss ") and held_out.endswith("% of 364")
        assert float(epoch.split()[4]) > 50  # % of the digits, of which 10 % are chance
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        assert_same_bits(states[1][name], value)


def test_augmented_digits(example):
    script = example("digits")
    images = digits.held_out()[0].astype(float)
    got = script.augment(images, np.random.default_rng(3))
    changed = (got != images).any((1, 2))
    assert 0.35 < changed.mean() < 0.65 and got.min() >= 0 and got.max() <= 16
    # The ink stays about where it was: it moves, turns and scales by less than two pixels.
    y = np.arange(8)[:, None]
    centre = [(each * y).sum((1, 2)) / each.sum((1, 2)) for each in (images, got)]
    assert 0.1 < np.abs(centre[0] - centre[1])[changed].max() < 2


SAME_RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
import lucid_c
import digits_vs_pytorch as both
from lucid_c import digits
from lucid_c.nn import functional as F

lucid_c.set_num_threads(1)
both.RATE = 0.002
weights, batches, held_out = both.prepare(30, 0)
ours, _ = both.run_lucid(weights, batches)
theirs, _ = both.run_torch(weights, batches)

# The same steps again, with the gradient of both for PyTorch's weights of each step.
twin = both.torch_twin(weights, torch.float32)
sgd = torch.optim.SGD(twin.parameters(), lr=both.RATE, momentum=both.MOMENTUM)
model = digits.resnest(pretrained=False).train()
losses, gradients = [], []
for x, y in batches:
    state = {k: v.numpy() for k, v in twin.state_dict().items() if "num_batches" not in k}
    model.load_state_dict(state)
    loss = F.cross_entropy(model(x), y)
    model.zero_grad()
    loss.backward()
    want = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y))
    sgd.zero_grad()
    want.backward()
    losses.append(abs(loss.item() - want.item()) / want.item())
    want = {name: p.grad.numpy() for name, p in twin.named_parameters()}
    got = {name: p.grad.numpy() for name, p in model.named_parameters()}
    assert list(got) == list(want)
    total = np.sqrt(sum((each**2).sum() for each in want.values()))
    gradients.append(float(max(np.linalg.norm(got[k] - want[k]) for k in want) / total))
    sgd.step()
print(json.dumps([ours.tolist(), theirs.tolist(), losses, gradients]))
"""


@pytest.mark.parametrize("algorithms", ["direct", None])
def test_the_same_run_in_pytorch(run_python, algorithms):
    """30 steps in float32: from equal weights at every step, and left to themselves.

    In about one step of eight some input of a ReLU is so near to 0 that rounding decides its sign,
    which changes the gradient by up to about one per cent; PyTorch in float32 and in float64 differ
    in the same way. So gradients for equal weights have a tight bound for most of the steps and a
    wide one for all; and runs that are left to themselves agree to rounding until the first such
    step only, and then stay within a few per cent of each other.
    """
    if not EXAMPLES.exists():
        pytest.skip("no checkout around the tests")
    for name in ("torch", "sklearn"):
        pytest.importorskip(name)
    done = run_python(SAME_RUN, env={"LUCID_C_CONV": algorithms}, args=(EXAMPLES,), timeout=300)
    ours, theirs, losses, gradients = map(np.array, json.loads(done.stdout))
    tight = 1 if algorithms == "direct" else 4
    assert losses.max() <= 2e-6 * tight
    assert np.median(gradients) <= 5e-6 * tight and gradients.max() <= 0.03
    away = np.abs(ours - theirs) / theirs
    assert away[0] <= 1e-6 and away[:3].max() <= 1e-5 and away.max() <= 0.1
    assert ours[-5:].mean() < 0.9 * ours[0]
