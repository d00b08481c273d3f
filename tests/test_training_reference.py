# SPDX-License-Identifier: MIT
"""Whole training runs against float64 PyTorch: losses, gradients, the state after steps of SGD.

``data/reference/README.md`` has the bounds and says why. The runs use direct sums, in a process of
their own since the algorithm is chosen once.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import refweights

FOLDER = Path(__file__).resolve().parent / "data" / "reference"
MODELS = {"resnet18": "resnet_18", "resnest14d": "resnest_14"}

RUN = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import refweights, lucid_c
from lucid_c import Tensor, optim
from lucid_c.nn import functional as F

info = json.loads(open(sys.argv[2]).read())
seed, streams, sgd = info["seed"], info["streams"], info["optimizer"]
model = lucid_c.create_model(sys.argv[3], num_classes=info["num_classes"])
shapes = {k: v.shape for k, v in model.state_dict().items()}
shapes |= {  # timm's, from which the file was made, has counters too
    k.replace("running_mean", "num_batches_tracked"): () for k in shapes if "running_mean" in k
}
weights = refweights.generate(shapes, seed)
assert refweights.crc(weights) == info["weights_crc32"]
model.load_state_dict(weights)
model.train()
optimizer = optim.SGD(
    model.parameters(), lr=sgd["lr"], momentum=sgd["momentum"], weight_decay=sgd["weight_decay"]
)
out = {}
for step in range(int(sys.argv[5])):
    x = refweights.image(info["shape"], seed, streams["input of step i"].replace("<i>", str(step)))
    y = refweights.labels(
        info["shape"][0], info["num_classes"], seed,
        streams["labels of step i"].replace("<i>", str(step)),
    )
    assert list(y) == info["labels"][step]
    x = Tensor(x, requires_grad=step == 0)
    logits = model(x)
    loss = F.cross_entropy(logits, y, label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    if step == 0:
        out["dinput0"] = x.grad.numpy()
        out |= {"grad0." + name: p.grad.numpy() for name, p in model.named_parameters()}
    optimizer.step()
    out[f"loss.{step}"], out[f"logits.{step}"] = loss.item(), logits.detach().numpy()
    if step in (0, 2):
        out |= {f"state{step + 1}.{name}": value for name, value in model.state_dict().items()}
if step == 2:
    model.eval()
    x = refweights.image(info["shape"], seed, streams["input of the final eval"])
    out["eval_logits"] = model(x).numpy()
np.savez(sys.argv[4], **out)
"""


def compare(ref, tag, names, got, bound, skip=()):
    """The l2 norm and the samples of every tensor; the sample's bound is relative to the larger of
    its own value and the tensor's root mean square."""
    worst = 0.0
    for row, name in enumerate(names):
        value = np.asarray(got[f"{tag}.{name}" if name else tag], np.float64).ravel()
        norm = np.sqrt((value**2).sum())
        want, index = ref[tag + ".l2"][row], ref[tag + ".index"][row]
        index, sample = index[index >= 0], ref[tag + ".value"][row][index >= 0]
        scale = np.maximum(np.abs(sample), want / np.sqrt(value.size))
        if name in skip:
            assert norm <= 1e-5 and want <= 1e-5, name
            continue
        error = abs(norm - want) / max(want, 1e-30)
        error = max(error, (np.abs(value[index] - sample) / np.maximum(scale, 1e-30)).max())
        assert error <= bound, f"{tag} {name}: {error:.3g}, allowed {bound:g}"
        worst = max(worst, error)
    return worst


@pytest.mark.parametrize("lr", ["0.01", "0.1"])
@pytest.mark.parametrize("model", MODELS)
def test_a_training_run(run_python, model, lr):
    path = FOLDER / f"train_{model}_lr{lr}.json"
    info, ref = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    steps = 3 if lr == "0.01" else 2  # beyond that the larger rate is chaotic in any float32
    out = run_python.folder / "run.npz"
    run_python(
        RUN,
        env={"LUCID_C_CONV": "direct"},
        args=(Path(refweights.__file__).parent, path, MODELS[model], out, steps),
        timeout=300,
    )
    got = np.load(out)
    zero = info["grads_zero_in_theory"]
    for step in range(steps):
        want = ref["loss"][step]
        assert abs(got[f"loss.{step}"] - want) <= (1e-5 if lr == "0.01" else 1e-4) * want
    largest = np.abs(ref["logits"][0]).max()
    assert np.abs(got["logits.0"] - ref["logits"][0]).max() <= 5e-6 * largest
    compare(ref, "grad0", info["grad_names"], got, 2e-4, zero)
    compare(ref, "dinput0", [""], got, 2e-4)
    compare(ref, "state1", info["state_names"], got, 5e-6)
    if steps == 3:
        compare(ref, "state3", info["state_names"], got, 1e-3)
        largest = np.abs(ref["eval_logits"]).max()
        assert np.abs(got["eval_logits"] - ref["eval_logits"]).max() <= 1e-3 * largest
