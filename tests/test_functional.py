# SPDX-License-Identifier: MIT
"""lucid_c.nn.functional: convolution, norm, activations, pooling, linear, padding."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
import oracle
from cases import AVG_POOLS, CONVS, MAX_POOLS, conv_arrays
from helpers import assert_close, assert_same_bits, draw, ids

pytestmark = [pytest.mark.isa, pytest.mark.ops]


def options_of(case):
    return {k: v for k, v in case.items() if k != "x"}


# --- conv2d ----------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("case", CONVS, ids=ids)
def test_conv2d(case):
    x, w, b, options = conv_arrays(case)
    y = F.conv2d(x, w, b, **options)
    assert isinstance(y, lucid_c.Tensor)
    assert_close(y, oracle.conv2d(x, w, b, **options))


@pytest.mark.parametrize("case", CONVS[::3], ids=ids)
def test_conv2d_against_torch(torch, case):
    x, w, b, options = conv_arrays(case)
    want = torch.nn.functional.conv2d(
        torch.from_numpy(x),
        torch.from_numpy(w),
        None if b is None else torch.from_numpy(b),
        **options,
    )
    assert_close(F.conv2d(x, w, b, **options), want.numpy())


@pytest.mark.parametrize("k", range(9))
def test_conv2d_each_tap_of_3x3(k):
    """One weight at a time is one: the output is a shifted input."""
    x = draw("x", (1, 19, 9, 13))
    w = np.zeros((5, 19, 3, 3), np.float32)
    for o in range(5):
        w[o, (7 * o + k) % 19, k // 3, k % 3] = 1
    assert_close(F.conv2d(x, w, padding=1), oracle.conv2d(x, w, padding=1), rel=2e-6)


def test_conv2d_positional_arguments_in_pytorchs_order():
    x, w, b = draw("x", (2, 6, 13, 11)), draw("w", (9, 2, 3, 3)), draw("b", (9,))
    y = F.conv2d(x, w, b, (2, 1), (1, 0), (2, 3), 3)
    assert_close(y, oracle.conv2d(x, w, b, (2, 1), (1, 0), (2, 3), 3))
    y = F.conv2d(input=x, weight=w, bias=b, stride=2, padding=1, dilation=2, groups=3)
    assert_close(y, oracle.conv2d(x, w, b, 2, 1, 2, 3))


def test_conv2d_large_channel_count_stays_within_the_bound():
    """4608 products per sum, all of one sign: the worst case for one long chain of additions."""
    x = np.abs(draw("x", (1, 512, 7, 7))) + np.float32(0.5)
    w = np.abs(draw("w", (24, 512, 3, 3))) + np.float32(0.1)
    assert_close(F.conv2d(x, w, padding=1), oracle.conv2d(x, w, padding=1), rel=5e-6)


def test_conv2d_cancellation():
    """Huge values whose weights cancel: what remains is the bias and the small channel."""
    x, w = draw("x", (1, 4, 6, 6)), np.zeros((3, 4, 1, 1), np.float32)
    x[:, 0] = x[:, 1] = 2.0**20
    w[:, 0], w[:, 1], w[:, 2] = 1, -1, 1
    b = np.array([1, 2, 3], np.float32)
    y = np.asarray(F.conv2d(x, w, b))
    np.testing.assert_allclose(y, oracle.conv2d(x, w, b), atol=0.26)


@pytest.mark.parametrize(
    "k,pad,stride,groups", [(1, 0, 1, 1), (3, 1, 1, 1), (3, 1, 2, 2), (7, 3, 2, 1), (3, 1, 1, 12)]
)
def test_conv2d_same_bits_alone_and_in_a_batch(k, pad, stride, groups):
    x, w = draw("x", (5, 12, 19, 23)), draw("w", (24, 12 // groups, k, k))
    b = draw("b", (24,))
    together = F.conv2d(x, w, b, stride, pad, 1, groups).numpy()
    for i in range(5):
        assert_same_bits(
            F.conv2d(x[i : i + 1], w, b, stride, pad, 1, groups).numpy(), together[i : i + 1]
        )
    assert_same_bits(F.conv2d(x[3], w, b, stride, pad, 1, groups).numpy(), together[3])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "n,c,h,w,oc,k", [(1, 16, 29, 31, 40, 3), (3, 67, 5, 5, 9, 1), (1, 3, 64, 66, 32, 7)]
)
def test_conv2d_same_bits_for_any_number_of_threads(threads, count, n, c, h, w, oc, k):
    x, weight = draw("x", (n, c, h, w)), draw("w", (oc, c, k, k))
    threads(1)
    want = np.array(F.conv2d(x, weight, padding=k // 2))
    threads(count)
    assert_same_bits(F.conv2d(x, weight, padding=k // 2), want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_conv2d_non_finite_values_stay_where_they_belong(bad):
    """Non-finite wherever the direct sum is non-finite; other images are not touched."""
    x, w = draw("x", (3, 17, 24, 24)), draw("w", (16, 17, 3, 3))
    clean = F.conv2d(x, w, padding=1).numpy()
    x[1, 5, 7, 11] = bad
    y = F.conv2d(x, w, padding=1).numpy()
    assert_same_bits(y[[0, 2]], clean[[0, 2]])
    hit = np.zeros(y.shape, bool)
    hit[1, :, 6:9, 10:13] = True
    assert not np.isfinite(y[hit]).any()
    spread = np.zeros(y.shape, bool)  # a Winograd tile may spread it, by less than its size
    spread[1, :, 1:14, 5:18] = True
    assert np.isfinite(y[~spread]).all()


def test_conv2d_non_finite_weight_touches_its_channel_only():
    x, w = draw("x", (2, 5, 6, 7)), draw("w", (19, 5, 3, 3))
    w[17, 2, 1, 1] = np.nan
    y = F.conv2d(x, w).numpy()
    assert np.isnan(y[:, 17]).all() and np.isfinite(np.delete(y, 17, axis=1)).all()


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "reversed-rows": lambda a: np.ascontiguousarray(a[:, :, ::-1])[:, :, ::-1],
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "channels-last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "broadcast": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "big-endian": lambda a: a.astype(">f4"),
    "unaligned": lambda a: (
        np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape)
    ),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_array_layout_is_read_right(name):
    change = LAYOUTS[name]
    x, w = change(draw("x", (3, 5, 9, 7))), change(draw("w", (4, 5, 3, 3)))
    before = np.array(x)
    assert_close(F.conv2d(x, w, padding=1), oracle.conv2d(x, w, padding=1))
    assert_close(F.relu(x), oracle.relu(x), rel=1e-7)
    assert_close(F.max_pool2d(x, 2), oracle.max_pool2d(x, 2), rel=1e-7)
    assert_close(F.linear(x, draw("l", (6, 7))), oracle.linear(x, draw("l", (6, 7))))
    np.testing.assert_array_equal(x, before)


def test_inputs_are_never_written():
    x, w, b = draw("x", (1, 3, 8, 8)), draw("w", (4, 3, 3, 3)), draw("b", (4,))
    kept = x.copy(), w.copy(), b.copy()
    y = F.relu(F.conv2d(x, w, b), inplace=True)
    assert y.shape == (1, 4, 6, 6)
    F.relu(x)
    for now, then in zip((x, w, b), kept, strict=True):
        assert_same_bits(now, then)


def test_a_result_is_not_changed_by_the_next_call():
    x, w = draw("x", (1, 3, 8, 8)), draw("w", (4, 3, 3, 3))
    first = F.conv2d(x, w)
    kept = np.array(first)
    F.conv2d(2 * x, w)
    assert_same_bits(first, kept)


def test_lists_and_tensors_as_input():
    x, w = draw("x", (1, 2, 4, 4)), draw("w", (3, 2, 3, 3))
    want = oracle.conv2d(x, w)
    assert_close(F.conv2d(x.tolist(), w.tolist()), want)
    assert_close(F.conv2d(lucid_c.Tensor(x), lucid_c.Tensor(w)), want)
    assert_close(F.conv2d(lucid_c.Tensor(x), w), want)


@pytest.mark.parametrize(
    "shape,wshape", [((0, 3, 8, 8), (4, 3, 3, 3)), ((0, 6, 5, 7), (9, 2, 1, 1))]
)
def test_conv2d_of_an_empty_batch_is_empty(shape, wshape):
    y = F.conv2d(np.zeros(shape, np.float32), draw("w", wshape), groups=shape[1] // wshape[1])
    assert y.shape == (0, wshape[0], shape[2] - wshape[2] + 1, shape[3] - wshape[3] + 1)
    assert y.dtype == np.float32 and y.numpy().size == 0


# --- batch_norm ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 3, 5, 7), (1, 17, 4, 9), (3, 64, 7, 7), (5, 19), (4, 6, 13)],
    ids=ids,
)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_batch_norm(shape, affine, eps):
    c = shape[1]
    x, mean = draw("x", shape), draw("mean", (c,))
    var = np.abs(draw("var", (c,))) + np.float32(0.05)
    gamma, beta = (draw("gamma", (c,)), draw("beta", (c,))) if affine else (None, None)
    y = F.batch_norm(x, mean, var, gamma, beta, False, 0.1, eps)
    assert_close(y, oracle.batch_norm(x, mean, var, gamma, beta, eps))
    if eps == 1e-5:
        assert_close(
            F.batch_norm(x, mean, var, weight=gamma, bias=beta),
            oracle.batch_norm(x, mean, var, gamma, beta),
        )


def test_batch_norm_with_tiny_and_huge_variance():
    x = draw("x", (2, 4, 3, 3))
    mean, var = draw("mean", (4,)), np.array([0, 1e-12, 1e8, 1], np.float32)
    assert_close(F.batch_norm(x, mean, var), oracle.batch_norm(x, mean, var))


def test_batch_norm_of_far_off_values():
    """Folding the mean into a shift costs some digits here, but no more than this."""
    x = draw("x", (1, 5, 6, 6)) + np.float32(100.0)
    mean, var = np.full(5, 100, np.float32), np.full(5, 1, np.float32)
    assert_close(F.batch_norm(x, mean, var), oracle.batch_norm(x, mean, var), rel=2e-5)


# --- activations -----------------------------------------------------------------------------

SHAPES = [(1,), (7,), (16,), (17,), (3, 5), (2, 3, 4), (2, 17, 5, 7), (1, 1, 1, 1), (2, 3, 2, 3, 5)]
SPECIAL = np.array(
    [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        3.4e38,
        -3.4e38,
        88.8,
        -103.9,
        1.0,
        -1.0,
        1e-8,
        20.0,
        -20.0,
        0.5,
    ],
    np.float32,
)


@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_relu(shape):
    x = draw("x", shape)
    assert_same_bits(F.relu(x), np.maximum(x, 0))


def test_relu_special_values():
    y = np.asarray(F.relu(SPECIAL))
    np.testing.assert_array_equal(y, np.where(np.isnan(SPECIAL), SPECIAL, np.maximum(SPECIAL, 0)))


@pytest.mark.parametrize("shape", SHAPES, ids=ids)
@pytest.mark.parametrize("scale", [1, 9])
def test_sigmoid(shape, scale):
    x = scale * draw("x", shape)
    assert_close(F.sigmoid(x), oracle.sigmoid(x), rel=1e-6)


def test_sigmoid_keeps_its_digits_far_out():
    x = np.linspace(-80, 80, 401, dtype=np.float32)
    y = np.asarray(F.sigmoid(x)).astype(np.float64)
    np.testing.assert_allclose(y, oracle.sigmoid(x), rtol=2e-5)
    np.testing.assert_array_equal(
        np.asarray(F.sigmoid(np.array([np.nan, np.inf, -np.inf, 200, -200, 0], np.float32))),
        np.array([np.nan, 1, 0, 1, 0, 0.5], np.float32),
    )


@pytest.mark.parametrize(
    "shape,dim",
    [
        ((5,), 0),
        ((3, 7), 1),
        ((3, 7), 0),
        ((3, 7), -1),
        ((2, 17, 5, 3), 1),
        ((2, 17, 5, 3), 2),
        ((2, 17, 5, 3), -1),
        ((2, 17, 5, 3), 0),
        ((4, 1000), 1),
        ((1, 1), 1),
    ],
    ids=ids,
)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, shape, dim):
    x = 4 * draw("x", shape)
    y = getattr(F, name)(x, dim)
    assert_close(y, getattr(oracle, name)(x, dim))
    assert_same_bits(getattr(F, name)(x, dim=dim), y)


def test_softmax_of_large_and_infinite_values():
    x = np.array(
        [[1e4, 1e4 + 1, -1e4], [-np.inf, 0, 1], [3e38, -3e38, 3e38], [-104, -104, -104]], np.float32
    )
    assert_close(F.softmax(x, 1), oracle.softmax(x, 1), rel=1e-6)
    y = np.asarray(F.log_softmax(x[[0, 1, 3]], 1)).astype(np.float64)
    np.testing.assert_allclose(y, oracle.log_softmax(x[[0, 1, 3]], 1), rtol=1e-6)
    y = np.asarray(F.softmax(np.array([[1, np.nan, 2], [1, 2, 3]], np.float32), 1))
    assert np.isnan(y[0]).all() and abs(float(y[1].sum()) - 1) < 1e-6


def test_dropout_in_eval_is_the_identity():
    x = draw("x", (3, 5, 7))
    assert_same_bits(F.dropout(x, 0.5, False), x)
    assert_same_bits(F.dropout(x, p=0.9, training=False), x)


# --- pooling ---------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("case", MAX_POOLS, ids=ids)
def test_max_pool2d(case):
    x = draw("pool", case["x"]) - np.float32(3)  # mostly negative: padding by zero would show
    want = oracle.max_pool2d(x, **options_of(case))
    assert_same_bits(F.max_pool2d(x, **options_of(case)), want)


@pytest.mark.parametrize("case", MAX_POOLS, ids=ids)
def test_max_pool2d_against_torch(torch, case):
    x = draw("pool", case["x"]) - np.float32(3)
    want = torch.nn.functional.max_pool2d(torch.from_numpy(x), **options_of(case)).numpy()
    assert_same_bits(F.max_pool2d(x, **options_of(case)), want)


def test_max_pool2d_positional_arguments_in_pytorchs_order():
    x = draw("pool", (1, 3, 19, 23))
    assert_same_bits(
        F.max_pool2d(x, (3, 2), (2, 3), (1, 1), (2, 1), True),
        oracle.max_pool2d(x, (3, 2), (2, 3), (1, 1), (2, 1), True),
    )


def test_max_pool2d_hands_on_nan_and_minus_infinity():
    x = draw("pool", (1, 17, 8, 8))
    x[0, 3, 2, 5] = np.nan
    x[0, 4] = -np.inf
    y = np.asarray(F.max_pool2d(x, 3, 2, 1))
    np.testing.assert_array_equal(y, oracle.max_pool2d(x, 3, 2, 1))
    assert np.isnan(y[0, 3]).sum() == 2 and np.isneginf(y[0, 4]).all()


@pytest.mark.kernel
@pytest.mark.parametrize("case", AVG_POOLS, ids=ids)
def test_avg_pool2d(case):
    x = draw("pool", case["x"]) + np.float32(2)
    assert_close(F.avg_pool2d(x, **options_of(case)), oracle.avg_pool2d(x, **options_of(case)))


@pytest.mark.parametrize("case", AVG_POOLS, ids=ids)
def test_avg_pool2d_against_torch(torch, case):
    x = draw("pool", case["x"]) + np.float32(2)
    want = torch.nn.functional.avg_pool2d(torch.from_numpy(x), **options_of(case)).numpy()
    assert_close(F.avg_pool2d(x, **options_of(case)), want)


def test_avg_pool2d_positional_arguments_in_pytorchs_order():
    x = draw("pool", (1, 3, 19, 23))
    assert_close(
        F.avg_pool2d(x, (3, 2), (2, 3), (1, 0), True, False, 7),
        oracle.avg_pool2d(x, (3, 2), (2, 3), (1, 0), True, False, 7),
    )
    assert_close(
        F.avg_pool2d(x, (3, 2), (2, 3), (1, 0), True, False),
        oracle.avg_pool2d(x, (3, 2), (2, 3), (1, 0), True, False),
    )


ADAPTIVE = [
    ((1, 1, 1, 1), 1),
    ((2, 17, 7, 7), 1),
    ((2, 17, 7, 11), (1, 1)),
    ((1, 5, 7, 11), (3, 4)),
    ((1, 5, 7, 11), (7, 11)),
    ((1, 16, 5, 3), (8, 7)),
    ((3, 4, 9, 8), (None, 3)),
    ((3, 4, 9, 8), (5, None)),
    ((6, 9, 8), 2),
    ((1, 3, 112, 113), 1),
]


@pytest.mark.parametrize("shape,size", ADAPTIVE, ids=ids)
def test_adaptive_avg_pool2d(shape, size):
    x = draw("pool", shape) + np.float32(1)
    assert_close(F.adaptive_avg_pool2d(x, size), oracle.adaptive_avg_pool2d(x, size), rel=2e-6)


@pytest.mark.parametrize("shape,size", ADAPTIVE, ids=ids)
def test_adaptive_max_pool2d(shape, size):
    x = draw("pool", shape) - np.float32(3)
    assert_same_bits(F.adaptive_max_pool2d(x, size), oracle.adaptive_max_pool2d(x, size))


def test_global_pool_of_a_large_plane_does_not_drift():
    """A running float32 sum of 400 x 400 ones and a bit would be off by 1e-4."""
    x = np.full((1, 3, 400, 400), 1.1, np.float32)
    x[0, 1] += np.linspace(0, 1, 160000, dtype=np.float32).reshape(400, 400)
    assert_close(F.adaptive_avg_pool2d(x, 1), oracle.adaptive_avg_pool2d(x, 1), rel=2e-6)


# --- linear, pad -----------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize(
    "shape",
    [
        (1,),
        (13,),
        (1, 1),
        (1, 64),
        (2, 17),
        (7, 33),
        (3, 5, 19),
        (2, 3, 4, 8),
        (1, 2048),
        (9, 512),
        (0, 5),
    ],
    ids=ids,
)
@pytest.mark.parametrize("out", [1, 7, 16, 37])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, out, bias):
    x, w = draw("x", shape), draw("w", (out, shape[-1]))
    b = draw("b", (out,)) if bias else None
    y = F.linear(x, w, b)
    assert_close(y, oracle.linear(x, w, b))


def test_linear_1000_classes_same_bits_alone_and_in_a_batch():
    x, w, b = draw("x", (17, 2048)), draw("w", (1000, 2048)), draw("b", (1000,))
    together = F.linear(x, w, b).numpy()
    assert_close(together, oracle.linear(x, w, b))
    for i in (0, 7, 16):
        assert_same_bits(F.linear(x[i : i + 1], w, b).numpy(), together[i : i + 1])


@pytest.mark.parametrize(
    "shape,pad",
    [
        ((3,), (1, 2)),
        ((2, 3), (1, 2)),
        ((2, 3), (1, 2, 3, 0)),
        ((1, 2, 3, 5), (1, 1, 1, 1)),
        ((1, 2, 3, 5), (0, 0, 0, 0, 4, 4)),
        ((2, 16, 5, 7), (3, 0, 0, 2, 1, 5, 0, 1)),
        ((1, 2, 6, 7), (-1, -2)),
        ((1, 2, 6, 7), (2, -3, -1, 4)),
        ((1, 2, 6, 7), (0, 0)),
    ],
    ids=ids,
)
@pytest.mark.parametrize("value", [0.0, -1.5, math.inf])
def test_pad(shape, pad, value):
    x = draw("x", shape)
    y = F.pad(x, pad, "constant", value)
    np.testing.assert_array_equal(np.asarray(y), oracle.pad(x, pad, value=value))
    if value == 0.0:
        np.testing.assert_array_equal(np.asarray(F.pad(x, pad)), oracle.pad(x, pad))


# --- which kernels run -----------------------------------------------------------------------


def test_the_level_in_use_respects_the_cap():
    order = ["scalar", "avx2", "avx512"]
    isa = lucid_c.config()["isa"]
    assert isa in order
    cap = os.environ.get("LUCID_C_ISA")
    if cap:
        assert order.index(isa) <= order.index(cap)


@pytest.mark.parametrize("cap", ["scalar", "avx2", "avx512"])
def test_every_level_can_be_asked_for_and_agrees(run_python, cap):
    """Each level runs in its own process; results agree within the bound, and the cap holds."""
    x, w = draw("x", (1, 19, 13, 11)), draw("w", (21, 19, 3, 3))
    code = """
    import sys, numpy as np, lucid_c
    import lucid_c.nn.functional as F
    sys.path.insert(0, sys.argv[1])
    from helpers import draw
    y = F.conv2d(draw("x", (1, 19, 13, 11)), draw("w", (21, 19, 3, 3)), padding=1)
    np.save("y.npy", np.asarray(y))
    print(lucid_c.config()["isa"])
    """
    done = run_python(code, env={"LUCID_C_ISA": cap}, args=[Path(oracle.__file__).parent])
    order = ["scalar", "avx2", "avx512"]
    assert order.index(done.stdout.split()[-1]) <= order.index(cap)
    y = np.load(run_python.folder / "y.npy")
    assert_close(y, oracle.conv2d(x, w, padding=1))


def test_an_unknown_level_is_named(run_python):
    done = run_python(
        "import lucid_c; lucid_c.nn.functional.relu([1.0])",
        env={"LUCID_C_ISA": "sse9"},
        check=False,
    )
    assert done.returncode == 0 or "sse9" in done.stderr
    assert done.returncode in (0, 1)


@pytest.mark.parametrize("given", [(2, 1), (1, 0, 0, 3), (3, 2, 1, 1), (0, 0, 2, 2, 1, 1)])
@pytest.mark.parametrize(
    "mode, numpys", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_pad_with_numbers_of_the_tensor(given, mode, numpys):
    x = draw("pad", (2, 3, 4, 5))
    widths = [(0, 0)] * (4 - len(given) // 2) + list(zip(given[::2], given[1::2], strict=True))[
        ::-1
    ]
    assert_same_bits(F.pad(x, given, mode=mode), np.pad(x, widths, mode=numpys))


def test_pad_with_numbers_of_the_tensor_needs_enough_of_them():
    x = draw("pad", (1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"'reflect'.*axis 3.*\(1, 2, 3, 4\).*0 to 3.*4 and 0"):
        F.pad(x, (4, 0), mode="reflect")
    with pytest.raises(ValueError, match="at least 0, got -1 and 0"):
        F.pad(x, (-1, 0), mode="replicate")
    with pytest.raises(ValueError, match="'constant', 'reflect'.* not 'mirror'"):
        F.pad(x, (1, 0), mode="mirror")


def test_linear_takes_a_number_as_bias():
    x, weight = draw("x", (3, 5)), draw("w", (7, 5))
    assert_close(F.linear(x, weight, 0.5), oracle.linear(x, weight) + 0.5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: F.conv2d(x, x, groups=1.0), "groups must be an integer, not 1.0"),
        (lambda x: F.softmax(x, "a"), "dim must be an integer, not 'a'"),
        (lambda x: F.batch_norm(x, [0.0], [1.0], eps="a"), "eps must be a number, not 'a'"),
        (lambda x: F.dropout(x, "a", False), "p must be a number, not 'a'"),
        (lambda x: F.pad(x, 3), "pad must be a sequence of integers, not 3"),
        (lambda x: F.pad(x, (1, 2.5)), "pad must be an integer, not 2.5"),
        (lambda x: F.pad(x, (1, 1), value="a"), "value must be a number, not 'a'"),
        (lambda x: F.avg_pool2d(x, 1, divisor_override=1.5), "divisor_override must be an integer"),
    ],
)
def test_wrong_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(draw("x", (1, 1, 2, 2)))
