# SPDX-License-Identifier: MIT
"""The networks that the benchmarks give to PyTorch are ours: same names, same numbers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import lucid_c
import refweights
from helpers import reference_weights

torch = pytest.importorskip("torch")
PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "twins.py"
if not PATH.exists():
    pytest.skip("no checkout around the tests", allow_module_level=True)
spec = importlib.util.spec_from_file_location("benchmark_twins", PATH)
twins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twins)

# One of every form of block, stem and shortcut; an image with an odd side.
FAMILIES = [
    ("resnet_18", (64, 64)),
    ("resnet_50", (47, 64)),
    ("wide_resnet_50", (48, 48)),
    ("resnet_200", (48, 48)),
    ("resnext_50_32x4d", (48, 61)),
    ("resnest_14", (65, 64)),
    ("resnest_50_4s2x40d", (64, 47)),
    ("resnest_50_1s4x24d", (47, 64)),
]


@pytest.mark.parametrize("name,size", FAMILIES)
def test_logits(name, size):
    model = lucid_c.create_model(name, init=False)
    twin = twins.build(name, reference_weights(model))
    x = refweights.image((2, 3, *size), 5)
    with torch.inference_mode():
        want = twin(torch.from_numpy(x)).numpy()
    error = np.abs(np.asarray(model(x)) - want).max() / np.abs(want).max()
    assert error <= 5e-6


@pytest.mark.parametrize("name", twins.TWINS)
def test_names_and_shapes(name):
    """Of every model; on the meta device nothing has memory."""
    config = lucid_c.create_model(name, init=False).state_dict()
    ours = {key: tuple(np.shape(value)) for key, value in config.items()}
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
