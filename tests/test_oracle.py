# SPDX-License-Identifier: MIT
"""The oracle itself: hand-computed cases, PyTorch in float64, and the reference networks."""

import json

import numpy as np
import pytest

import oracle
import oracle_models
import refweights
from cases import AVG_POOLS, CONVS, MAX_POOLS, conv_arrays
from helpers import draw, ids


def test_conv2d_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    w = np.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(oracle.conv2d(x, w)[0, 0], [[4310, 5421], [7643, 8754]])
    np.testing.assert_array_equal(
        oracle.conv2d(x, w, padding="same")[0, 0],
        [[4310, 5421, 502], [7643, 8754, 805], [76, 87, 8]],
    )


def test_pools_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    np.testing.assert_array_equal(oracle.max_pool2d(x, 2, ceil_mode=True)[0, 0], [[4, 5], [7, 8]])
    np.testing.assert_array_equal(
        oracle.avg_pool2d(x, 2, 2, 1, count_include_pad=True)[0, 0], [[0, 0.75], [2.25, 6]]
    )
    np.testing.assert_array_equal(
        oracle.avg_pool2d(x, 2, 2, 1, count_include_pad=False)[0, 0], [[0, 1.5], [4.5, 6]]
    )
    np.testing.assert_array_equal(oracle.adaptive_avg_pool2d(x, 2)[0, 0], [[2, 3], [5, 6]])


def test_attention_width():
    widths = {(64, 2): 32, (512, 2): 256, (24, 1): 32, (192, 1): 48, (40, 2): 32, (100, 2): 48}
    for (g, radix), width in widths.items():
        assert oracle.attention_width(g, radix) == width


def test_radix_softmax_by_hand():
    x = np.zeros((1, 8, 1, 1))
    x[0, 1] = np.log(3.0)  # cardinality 0, radix 0, lane 1
    y = oracle.radix_softmax(x, 2, 2)[0]  # order: radix, cardinality, lane
    np.testing.assert_allclose(y, [0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.5, 0.5])
    y = oracle.radix_softmax_lucid2(x, 2, 2)[0]
    np.testing.assert_allclose(y, [0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.5, 0.5])
    x[0, 1], x[0, 2] = 0.0, np.log(3.0)  # cardinality 0, radix 1, lane 0
    np.testing.assert_allclose(
        oracle.radix_softmax(x, 2, 2)[0], [0.25, 0.5, 0.5, 0.5, 0.75, 0.5, 0.5, 0.5]
    )
    np.testing.assert_allclose(
        oracle.radix_softmax_lucid2(x, 2, 2)[0], [0.5, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.5]
    )


@pytest.mark.parametrize("case", CONVS, ids=ids)
def test_conv2d_against_torch(torch, case):
    x, w, b, options = conv_arrays(case)
    want = torch.nn.functional.conv2d(
        torch.from_numpy(x).double(),
        torch.from_numpy(w).double(),
        None if b is None else torch.from_numpy(b).double(),
        **options,
    )
    np.testing.assert_allclose(oracle.conv2d(x, w, b, **options), want.numpy(), 1e-9, 1e-10)


@pytest.mark.parametrize("case", MAX_POOLS, ids=ids)
def test_max_pool2d_against_torch(torch, case):
    x = draw("pool", case["x"])
    options = {k: v for k, v in case.items() if k != "x"}
    want = torch.nn.functional.max_pool2d(torch.from_numpy(x), **options)
    np.testing.assert_array_equal(oracle.max_pool2d(x, **options), want.numpy())


@pytest.mark.parametrize("case", AVG_POOLS, ids=ids)
def test_avg_pool2d_against_torch(torch, case):
    x = draw("pool", case["x"])
    options = {k: v for k, v in case.items() if k != "x"}
    want = torch.nn.functional.avg_pool2d(torch.from_numpy(x).double(), **options)
    np.testing.assert_allclose(oracle.avg_pool2d(x, **options), want.numpy(), 1e-10, 1e-12)


def test_other_operators_against_torch(torch):
    F = torch.nn.functional
    x = draw("x", (3, 5, 7, 11))
    t = torch.from_numpy(x).double()
    mean, var = draw("mean", (5,)), np.abs(draw("var", (5,))) + 0.1
    gamma, beta = draw("gamma", (5,)), draw("beta", (5,))
    args = (mean, var, gamma, beta)
    pairs = [
        (
            oracle.batch_norm(x, *args, eps=1e-3),
            F.batch_norm(t, *(torch.from_numpy(a).double() for a in args), eps=1e-3),
        ),
        (oracle.sigmoid(8 * x), torch.sigmoid(8 * t)),
        (oracle.softmax(x, 1), F.softmax(t, 1)),
        (oracle.log_softmax(x, 2), F.log_softmax(t, 2)),
        (oracle.clamp(x, -0.25, 0.5), t.clamp(np.float64(-0.25), 0.5)),
        (oracle.pad(x, (1, -2, 0, 3, 2, 0)), F.pad(t, (1, -2, 0, 3, 2, 0))),
        (oracle.adaptive_avg_pool2d(x, (3, 4)), F.adaptive_avg_pool2d(t, (3, 4))),
        (oracle.adaptive_avg_pool2d(x, (None, 13)), F.adaptive_avg_pool2d(t, (None, 13))),
        (oracle.adaptive_max_pool2d(x, (5, 2)), F.adaptive_max_pool2d(t, (5, 2))),
        (oracle.flatten(x, 1, 2), t.flatten(1, 2)),
        (oracle.mean(x, (0, 2), True), t.mean((0, 2), True)),
        (oracle.argmax(x, 2), t.argmax(2)),
    ]
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs.numpy(), 1e-9, 1e-12)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnest14d", "resnest50d_4s2x40d"])
def test_networks_against_the_reference(reference_dir, name):
    info = json.loads((reference_dir / f"{name}.json").read_text())
    ref = np.load(reference_dir / f"{name}.npz")
    case = info["cases"][-1]
    state = refweights.generate(dict(info["state_dict"]), case["seed"])
    x = refweights.image(case["shape"], case["seed"], case["input"])[:1]
    options = {"cardinality": 2, "radix": 4, "avd_first": True} if "4s2x" in name else {}
    stages = {}
    logits = oracle_models.forward(state, x, stages, **options)
    want = ref[case["tag"] + ".logits64"][:1]
    np.testing.assert_allclose(logits, want, 0, 1e-9 * np.abs(want).max())


@pytest.mark.parametrize("name", ["lucid2_resnest_14", "lucid_resnet_200"])
def test_lucids_networks_against_the_reference(reference_dir, name):
    info = json.loads((reference_dir / f"{name}.json").read_text())
    ref = np.load(reference_dir / f"{name}.npz")
    case = info["cases"][0]
    if "keys" in info:
        shapes = {timm: shape for _, timm, shape in info["keys"]}
    else:
        shapes = dict(info["state_dict"])
    state = refweights.generate(shapes, 1)
    state = {k.replace("stem.0.", "conv1.").replace("stem.1.", "bn1."): v for k, v in state.items()}
    x = refweights.image(case["shape"], 1, case["input"])[:1]
    logits = oracle_models.forward(state, x, lucid2="keys" in info)
    want = ref[case["tag"] + ".logits64"][:1]
    np.testing.assert_allclose(logits, want, 0, 1e-9 * np.abs(want).max())
