# SPDX-License-Identifier: MIT
"""The networks that the benchmarks give to PyTorch are ours: same names, same numbers."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lucid_c
import refweights

torch = pytest.importorskip("torch")
FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
if not FOLDER.exists():
    pytest.skip("no checkout around the tests", allow_module_level=True)
sys.path.append(str(FOLDER))
twins, files = import_module("twins"), import_module("files")

# One of every form of block, stem and shortcut; an image with an odd side.
FAMILIES = [
    ("resnet_18", (64, 64)),
    ("wide_resnet_50", (47, 64)),
    ("resnet_200", (48, 48)),
    ("resnext_50_32x4d", (48, 61)),
    ("resnest_14", (65, 64)),
    ("resnest_50_4s2x40d", (64, 47)),
    ("resnest_50_1s4x24d", (47, 64)),
]


@pytest.mark.parametrize("name,size", FAMILIES)
def test_logits(name, size):
    model = lucid_c.create_model(name, init=False)
    weights = files.draw_weights({k: v.shape for k, v in model.state_dict().items()})
    model.load_state_dict(weights)
    twin = twins.build(name, weights)
    x = refweights.image((2, 3, *size), 5)
    with torch.inference_mode():
        want = twin(torch.from_numpy(x)).numpy()
    error = np.abs(np.asarray(model(x)) - want).max() / np.abs(want).max()
    assert error <= 5e-6


@pytest.mark.parametrize("name", twins.TWINS)
def test_names_and_shapes(name):
    """Of every model; on the meta device nothing has memory."""
    model = lucid_c.create_model(name, init=False)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    block, layers, options = twins.TWINS[name]
    with torch.device("meta"):
        state = twins.Network(block, layers, **options).state_dict()
    theirs = {key: tuple(value.shape) for key, value in state.items()}
    assert ours == {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert set(twins.TWINS) == set(lucid_c.list_models())


def test_weights_that_do_not_fit():
    weights = {k: np.array(v) for k, v in lucid_c.create_model("resnet_18").state_dict().items()}
    del weights["layer1.0.conv1.weight"]
    with pytest.raises(RuntimeError, match="layer1.0.conv1.weight"):
        twins.build("resnet_18", weights)
    with pytest.raises(ValueError, match="resnet_19"):
        twins.build("resnet_19")
