# SPDX-License-Identifier: MIT
"""Every family against the reference data: logits, stages, keys, shapes, batches, threads.

``data/reference/README.md`` says where the numbers come from and why the bound is what it is.
"""

import json
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import lucid_c
import oracle_models
import refweights
from helpers import assert_same_bits

BOUND = 5e-6
FOLDER = Path(__file__).resolve().parent / "data" / "reference"

MODELS = {  # reference file -> create_model's arguments
    "resnet18": ("resnet_18", {}),
    "resnet50": ("resnet_50", {}),
    "resnext50_32x4d": ("resnext_50_32x4d", {}),
    "resnest14d": ("resnest_14", {}),
    "resnest50d": ("resnest_50", {}),
    "resnest50d_4s2x40d": ("resnest_50_4s2x40d", {}),
    "resnest50d_1s4x24d": ("resnest_50_1s4x24d", {}),
    "lucid_resnet_200": ("resnet_200", {}),
    "lucid2_resnest_14": ("resnest_14", {"compat": "lucid2"}),
    "lucid2_resnest_50_4s2x40d": ("resnest_50_4s2x40d", {"compat": "lucid2"}),
}
FAMILIES = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "resnest14d",
    "resnest50d_4s2x40d",
    "resnest50d_1s4x24d",
    "lucid_resnet_200",
    "lucid2_resnest_14",
]


def info_of(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def timm_shapes(info):
    """name -> shape, under the names by which the tensors are generated."""
    if "keys" in info:
        return {timm: tuple(shape) for _, timm, shape in info["keys"]}
    return {key: tuple(shape) for key, shape in info["state_dict"]}


def own_key(key):
    """lucid's names for the plain stem are mapped to ours."""
    return key.replace("stem.0.", "conv1.").replace("stem.1.", "bn1.")


@lru_cache(maxsize=1)  # conftest.py lets the tests of one model follow each other
def loaded(name):
    info = info_of(name)
    weights = refweights.generate(timm_shapes(info), 1)
    crc = info["weights_crc32"]
    assert refweights.crc(weights) == (crc["1"] if isinstance(crc, dict) else crc)
    variant, options = MODELS[name]
    model = lucid_c.create_model(variant, init=False, **options)
    model.load_state_dict(weights)
    return model, info, np.load(FOLDER / f"{name}.npz"), weights


def run_case(name, tag):
    model, info, ref, _ = loaded(name)
    case = next(c for c in info["cases"] if c["tag"] == tag)
    x = refweights.image(case["shape"], case.get("seed", info.get("seed")), case["input"])
    assert zlib.crc32(x.tobytes()) == case["input_crc32"]
    return model, x, info, ref


def check_logits(logits, want):
    logits = np.asarray(logits)
    assert logits.shape == want.shape and logits.dtype == np.float32
    error, largest = np.abs(logits - want).max(), np.abs(want).max()
    assert error <= BOUND * largest, f"error {error / largest:.3g} of the largest |logit|"
    np.testing.assert_array_equal(logits.argmax(1), want.argmax(1))


def cases():
    """Every case; the last of a family, which is the smallest or the oddest, on every level."""
    found = []
    for name in MODELS:
        tags = [case["tag"] for case in info_of(name)["cases"]]
        for tag in tags:
            everywhere = name in FAMILIES and tag == tags[-1]
            marks = [pytest.mark.isa, pytest.mark.family] if everywhere else []
            found.append(pytest.param(name, tag, marks=marks))
    return found


@pytest.mark.parametrize("name,tag", cases())
def test_logits(name, tag):
    model, x, _, ref = run_case(name, tag)
    check_logits(model(x), ref[f"{tag}.logits64"])


@pytest.mark.parametrize("name", [n for n in MODELS if "stages" in info_of(n)])
def test_stages(name):
    """Shape, mean, deviation and 16 values of each stage, seen through forward hooks, for an
    image of odd height and width."""
    tag = "b"
    model, x, info, ref = run_case(name, tag)
    seen, handles = {}, []
    for stage in info["stages"]:

        def keep(module, inputs, output, stage=stage):
            seen[stage] = output

        handles.append(getattr(model, stage).register_forward_hook(keep))
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    check_logits(logits, ref[f"{tag}.logits64"])
    assert list(seen) == info["stages"]
    for row, stage in enumerate(info["stages"]):
        got = np.asarray(seen[stage]).astype(np.float64)
        shape = tuple(ref[f"{tag}.stage_shape"][row])
        if stage == "global_pool":  # (N, C, 1, 1) in the data; (N, C) is as good
            got = got.reshape(got.shape[:2] + (1, 1))
        assert got.shape == shape, stage
        values = got.reshape(-1)[ref[f"{tag}.stage_index"][row]]
        want = ref[f"{tag}.stage_value"][row]
        largest = np.abs(got).max()
        assert np.abs(values - want).max() <= BOUND * largest, stage
        assert abs(got.mean() - ref[f"{tag}.stage_mean"][row]) <= BOUND * largest, stage
        assert abs(got.std() - ref[f"{tag}.stage_std"][row]) <= BOUND * largest, stage


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_keys_and_shapes(name):
    model, info, _, _ = loaded(name)
    got = {k: tuple(np.shape(np.asarray(v))) for k, v in model.state_dict().items()}
    want = {
        own_key(k): s for k, s in timm_shapes(info).items() if not k.endswith("num_batches_tracked")
    }
    assert got == want
    if "params" in info:
        assert model.num_parameters() == info["params"]


@pytest.mark.parametrize("name", ["resnet18", "resnest14d"])
def test_state_dict_order_is_the_reference_order(name):
    model, info, _, _ = loaded(name)
    want = [k for k, _ in info["state_dict"] if not k.endswith("num_batches_tracked")]
    assert list(model.state_dict()) == want


@pytest.mark.parametrize("name", MODELS)
def test_the_loaded_values_come_back(name):
    model, _, _, weights = loaded(name)
    weights = {own_key(k): v for k, v in weights.items()}
    for key, value in model.state_dict().items():
        assert_same_bits(np.asarray(value), weights[key])


@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith("lucid2")])
def test_lucids_own_keys_are_understood(name):
    _, info, ref, weights = loaded(name)
    lucids = {lucid: weights[timm] for lucid, timm, _ in info["keys"]}
    variant, options = MODELS[name]
    model = lucid_c.create_model(variant, init=False, **options)
    model.load_state_dict(lucids)
    case = info["cases"][0]
    x = refweights.image(case["shape"], info["seed"], case["input"])
    check_logits(model(x), ref[f"{case['tag']}.logits64"])


@pytest.mark.isa
@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_alone_and_in_a_batch_gives_the_same_bits(name):
    model, _, _, _ = loaded(name)
    x = refweights.image((5, 3, 64, 50), 3, "batch")
    together = np.array(model(x))
    for i in range(5):
        assert_same_bits(model(x[i : i + 1]), together[i : i + 1])
    assert_same_bits(model(x[[4, 0]]), together[[4, 0]])
    strangers = x.copy()
    strangers[[0, 1, 3, 4]] = refweights.image((4, 3, 64, 50), 4, "strangers")
    assert_same_bits(np.asarray(model(strangers))[2], together[2])


@pytest.mark.isa
@pytest.mark.parametrize("name", FAMILIES)
def test_any_number_of_threads_gives_the_same_bits(name, threads):
    model, _, _, _ = loaded(name)
    x = refweights.image((2, 3, 75, 61), 5, "threads")
    threads(1)
    want = np.array(model(x))
    for count in (2, 3, 5, 1):
        threads(count)
        assert lucid_c.get_num_threads() == count
        assert_same_bits(model(x), want)


@pytest.mark.parametrize("name", ["resnet18", "resnest50d_4s2x40d"])
def test_a_bad_image_leaves_the_others_alone(name):
    model, _, _, _ = loaded(name)
    x = refweights.image((3, 3, 64, 64), 6, "nan")
    want = np.array(model(x))
    x[1, 2, 30, 31] = np.nan
    got = np.asarray(model(x))
    assert_same_bits(got[[0, 2]], want[[0, 2]])
    assert np.isnan(got[1]).all()


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (40, 31), (97, 17), (1, 1), (2, 3), (8, 200)])
@pytest.mark.parametrize("name", ["resnet18", "resnest14d", "lucid2_resnest_14"])
def test_odd_sizes_against_the_oracle(name, size):
    model, info, _, _ = loaded(name)
    state = {k: np.asarray(v) for k, v in model.state_dict().items()}
    x = refweights.image((1, 3, *size), 7, "odd")
    check_logits(model(x), oracle_models.forward(state, x, lucid2="keys" in info))
