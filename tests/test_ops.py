# SPDX-License-Identifier: MIT
"""lucid_c.ops: arithmetic with broadcasting, products, reductions, shapes, joining."""

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
import oracle
from helpers import assert_close, assert_same_bits, draw, ids
from lucid_c import ops

pytestmark = [pytest.mark.isa, pytest.mark.ops]

BROADCAST = [
    ((1,), (1,)),
    ((7,), (7,)),
    ((5, 3), (5, 3)),
    ((5, 3), (3,)),
    ((3,), (5, 3)),
    ((5, 1), (3,)),
    ((2, 17, 5, 7), (2, 17, 5, 7)),
    ((2, 17, 5, 7), (17, 1, 1)),
    ((2, 17, 5, 7), (1, 17, 1, 1)),
    ((2, 17, 5, 7), (2, 17, 1, 1)),
    ((2, 17, 5, 7), (7,)),
    ((2, 17, 5, 7), (5, 1)),
    ((2, 1, 5, 1), (1, 17, 1, 7)),
    ((2, 17, 5, 7), (2, 1, 5, 7)),
    ((2, 3, 4, 2, 5), (4, 1, 5)),
    ((), (3, 4)),
    ((3, 4), ()),
    ((), ()),
    ((0, 3), (1, 3)),
    ((1, 64, 9, 9), (1, 64, 9, 9)),
]
FUNCTIONS = ["add", "sub", "mul", "div"]


def test_ops_holds_the_functional_names_too():
    names = [
        "conv2d",
        "batch_norm",
        "relu",
        "sigmoid",
        "softmax",
        "log_softmax",
        "linear",
        "max_pool2d",
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "adaptive_max_pool2d",
        "pad",
        "dropout",
    ]
    for name in names:
        assert getattr(ops, name) is getattr(F, name)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("a,b", BROADCAST, ids=ids)
def test_arithmetic(name, a, b):
    x, y = draw("a", a), draw("b", b)
    if name == "div":
        y = np.where(np.abs(y) < 0.1, np.float32(0.37), y)
    assert_close(getattr(ops, name)(x, y), getattr(oracle, name)(x, y), rel=2e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arithmetic_with_plain_numbers(name):
    x = draw("a", (3, 5)) + np.float32(7)
    for number in (2, 0.5, np.float32(1.25), np.float64(3.0), np.int64(4)):
        assert_close(getattr(ops, name)(x, number), getattr(oracle, name)(x, number), rel=2e-7)
        assert_close(getattr(ops, name)(number, x), getattr(oracle, name)(number, x), rel=2e-7)


def test_division_by_zero_and_infinities():
    x = np.array([1, -1, 0, np.inf, np.nan], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(np.asarray(ops.div(x, np.zeros(5, np.float32))), x / 0)
        np.testing.assert_array_equal(np.asarray(ops.sub(x, x)), x - x)
        np.testing.assert_array_equal(np.asarray(ops.mul(x, np.float32(0))), x * 0)


MATMULS = [
    ((1,), (1,)),
    ((17,), (17,)),
    ((3, 5), (5, 7)),
    ((1, 64), (64, 1)),
    ((33, 19), (19, 35)),
    ((5,), (5, 7)),
    ((3, 5), (5,)),
    ((2, 3, 5), (5, 7)),
    ((3, 5), (2, 5, 7)),
    ((2, 3, 5), (2, 5, 7)),
    ((2, 1, 3, 5), (4, 5, 7)),
    ((5,), (2, 5, 7)),
    ((2, 3, 5), (5,)),
    ((4, 1, 3, 5), (1, 6, 5, 2)),
    ((128, 257), (257, 129)),
    ((0, 5), (5, 3)),
    ((3, 0), (0, 4)),
]


@pytest.mark.kernel
@pytest.mark.parametrize("a,b", MATMULS, ids=ids)
def test_matmul(a, b):
    x, y = draw("a", a), draw("b", b)
    assert_close(ops.matmul(x, y), oracle.matmul(x, y))


def test_matmul_of_transposed_views():
    x, y = draw("a", (7, 33)), draw("b", (19, 33))
    assert_close(ops.matmul(x, y.T), oracle.matmul(x, y.T))
    assert_close(
        ops.matmul(lucid_c.Tensor(x), lucid_c.Tensor(y).transpose(0, 1)), oracle.matmul(x, y.T)
    )


@pytest.mark.parametrize(
    "shape,new",
    [
        ((12,), (3, 4)),
        ((3, 4), (-1,)),
        ((2, 17, 3, 5), (2, -1)),
        ((2, 17, 3, 5), (17, 2, 15)),
        ((1,), (1, 1, 1)),
        ((1,), ()),
        ((0, 3), (3, 0)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
    ],
    ids=ids,
)
def test_reshape(shape, new):
    x = draw("x", shape)
    assert_same_bits(ops.reshape(x, new), x.reshape(new))
    t = F.relu(x)  # a tensor that comes from a computation, not from the user
    assert_same_bits(ops.reshape(t, new), np.asarray(t).reshape(new))


@pytest.mark.parametrize("args", [(), (1,), (1, 2), (2,), (-2,), (0, 1), (1, 1), (0, -1)], ids=ids)
def test_flatten(args):
    x = draw("x", (2, 17, 3, 5))
    assert_same_bits(ops.flatten(x, *args), oracle.flatten(x, *args))


@pytest.mark.parametrize(
    "shape,dims",
    [
        ((3, 5), (1, 0)),
        ((3, 5), (0, 1)),
        ((2, 17, 3, 5), (0, 2, 3, 1)),
        ((2, 17, 3, 5), (3, 2, 1, 0)),
        ((2, 17, 3, 5), (1, 0, 2, 3)),
        ((2, 17, 3, 5), (0, -1, 1, -2)),
        ((2, 3, 2, 5, 7), (4, 0, 3, 1, 2)),
        ((16, 1, 16), (2, 1, 0)),
    ],
    ids=ids,
)
def test_permute(shape, dims):
    x = draw("x", shape)
    assert_same_bits(ops.permute(x, dims), np.ascontiguousarray(x.transpose(dims)))


@pytest.mark.parametrize(
    "shapes,dim",
    [
        ([(3,), (5,)], 0),
        ([(3, 5), (2, 5)], 0),
        ([(3, 5), (3, 2)], 1),
        ([(3, 5), (3, 2)], -1),
        ([(2, 17, 3, 5), (2, 15, 3, 5)], 1),
        ([(2, 16, 3, 5), (2, 16, 3, 5), (2, 1, 3, 5)], 1),
        ([(2, 3, 4, 5), (2, 3, 7, 5)], 2),
        ([(2, 3, 4, 5), (2, 3, 4, 1)], 3),
        ([(2, 3), (0, 3)], 0),
        ([(4, 3)], 1),
    ],
    ids=ids,
)
def test_cat(shapes, dim):
    parts = [draw(f"part{i}", s) for i, s in enumerate(shapes)]
    assert_same_bits(ops.cat(parts, dim), np.concatenate(parts, dim))
    assert_same_bits(
        ops.cat([lucid_c.Tensor(p) for p in parts], dim=dim), np.concatenate(parts, dim)
    )


def test_cat_joins_along_the_first_axis_by_default():
    parts = [draw("a", (2, 3)), draw("b", (4, 3))]
    assert_same_bits(ops.cat(tuple(parts)), np.concatenate(parts))


REDUCTIONS = [
    (None, False),
    (0, False),
    (1, True),
    (-1, False),
    ((2, 3), True),
    ((2, 3), False),
    ((0, 2, 3), False),
    ((1, -1), True),
    (2, True),
]


@pytest.mark.parametrize("shape", [(2, 17, 5, 7), (1, 1, 1, 1), (3, 16, 13, 11)], ids=ids)
@pytest.mark.parametrize("dim,keepdim", REDUCTIONS, ids=ids)
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sum_and_mean(name, shape, dim, keepdim):
    x = draw("x", shape) + np.float32(1)
    function, want = getattr(ops, name), getattr(oracle, name)(x, dim, keepdim)
    assert_close(function(x) if dim is None else function(x, dim, keepdim), want, rel=1e-6)
    if dim is not None:
        assert_close(function(x, dim=dim, keepdim=keepdim), want, rel=1e-6)


def test_a_long_sum_does_not_drift():
    x = np.full((1, 2_000_003), 0.1, np.float32)
    assert_close(ops.sum(x), oracle.sum(x), rel=1e-6)
    assert_close(ops.mean(x, 1), oracle.mean(x, 1), rel=1e-6)


def test_max_over_everything():
    x = draw("x", (2, 17, 5, 7)) - np.float32(9)
    assert_same_bits(ops.max(x), np.asarray(x.max()))


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -3])
@pytest.mark.parametrize("keepdim", [False, True])
def test_max_along_an_axis_gives_values_and_indices(dim, keepdim):
    x = draw("x", (2, 17, 5, 7)) - np.float32(9)
    values, indices = ops.max(x, dim, keepdim)
    assert_same_bits(values, x.max(dim, keepdims=keepdim))
    assert_same_bits(indices, x.argmax(dim, keepdims=keepdim).astype(np.int64))
    both = ops.max(x, dim=dim, keepdim=keepdim)
    assert_same_bits(both.values, values)
    assert_same_bits(both.indices, indices)


@pytest.mark.parametrize("dim", [None, 0, 1, 2, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_argmax(dim, keepdim):
    x = draw("x", (3, 17, 5))
    if dim is None:
        got, want = ops.argmax(x), x.argmax()
    else:
        got, want = ops.argmax(x, dim, keepdim), x.argmax(dim, keepdims=keepdim)
    assert_same_bits(got, np.asarray(want, np.int64))


def test_argmax_takes_the_first_of_equals_and_nan_as_the_largest():
    x = np.array([[1, 3, 3, 2], [5, np.nan, 7, 1], [-1, -1, -1, -1]], np.float32)
    np.testing.assert_array_equal(np.asarray(ops.argmax(x, 1)), [1, 1, 0])


@pytest.mark.parametrize("shape", [(1,), (17,), (3, 5, 7), (2, 17, 5, 3)], ids=ids)
@pytest.mark.parametrize("low,high", [(-1, 1), (-20, -15), (30, 40), (-0.001, 0.001)])
def test_exp(shape, low, high):
    x = draw("x", shape)
    x = np.float32(low) + (x - x.min()) / (np.ptp(x) + np.float32(1)) * np.float32(high - low)
    y = np.asarray(ops.exp(x))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.astype(np.float64), oracle.exp(x), rtol=1e-6)


def test_exp_special_values():
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 89, -200, 88.7], np.float32)
    y = np.asarray(ops.exp(x))
    np.testing.assert_array_equal(y[:7], np.array([1, 1, np.inf, 0, np.nan, np.inf, 0], np.float32))
    assert abs(y[7] / math_exp(88.7) - 1) < 1e-5


def math_exp(v):
    return float(np.exp(np.float64(np.float32(v))))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1, 1e3, 1e30])
def test_log(scale):
    x = (np.abs(draw("x", (3, 17, 5))) + np.float32(0.1)) * np.float32(scale)
    y = np.asarray(ops.log(x)).astype(np.float64)
    np.testing.assert_allclose(y, oracle.log(x), rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore")
def test_log_and_sqrt_special_values():
    x = np.array([0, 1, -1, np.inf, np.nan, 1e-40], np.float32)
    np.testing.assert_allclose(np.asarray(ops.log(x)), np.log(x.astype(np.float64)), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(ops.sqrt(x)), np.sqrt(x))


@pytest.mark.parametrize("scale", [1e-20, 1, 1e20])
def test_sqrt(scale):
    x = np.abs(draw("x", (2, 17, 5, 3))) * np.float32(scale)
    assert_close(ops.sqrt(x), oracle.sqrt(x), rel=2e-7)


@pytest.mark.parametrize("low,high", [(-0.5, 0.5), (None, 0.25), (0.25, None), (0.3, -0.3), (0, 6)])
def test_clamp(low, high):
    x = draw("x", (2, 17, 5, 3))
    x[0, 0, 0, 0] = np.nan
    want = oracle.clamp(x, low, high).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(ops.clamp(x, low, high)), want)
    np.testing.assert_array_equal(np.asarray(ops.clamp(x, min=low, max=high)), want)


def test_clamp_without_bounds_is_refused():
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        ops.clamp(draw("x", (3,)))


def test_unary_operators_take_lists_and_tensors():
    values = [[1.0, 4.0], [9.0, 0.25]]
    for given in (values, np.array(values), lucid_c.Tensor(np.array(values, np.float32))):
        assert_close(ops.sqrt(given), np.sqrt(values))


def test_split_attention_from_operators():
    """The split attention of design's section on models, written with operators only."""
    radix, groups, width = 2, 3, 5
    x = draw("x", (2, radix * groups * width, 7, 9))
    logits = draw("logits", (2, groups * radix * width, 1, 1))
    view = ops.permute(ops.reshape(logits, (2, groups, radix, width)), (0, 2, 1, 3))
    weights = ops.reshape(F.softmax(view, 1), (2, -1, 1, 1))
    assert_close(ops.reshape(weights, (2, -1)), oracle.radix_softmax(logits, groups, radix))
    y = ops.sum(ops.reshape(ops.mul(x, weights), (2, radix, groups * width, 7, 9)), 1)
    attention = oracle.radix_softmax(logits, groups, radix)[:, :, None, None]
    assert_close(y, oracle.radix_sum(x * attention, radix))


def test_alpha_scales_the_second_operand():
    a, b = draw("a", (3, 5)), draw("b", (5,))
    assert_close(ops.add(a, b, alpha=2), a + 2 * b)
    assert_close(ops.sub(a, b, alpha=0.5), a - 0.5 * b)
    assert_close(lucid_c.tensor(a).add(b, alpha=2), a + 2 * b)
    assert ops.add([1, 2], 3, alpha=2).tolist() == [7, 8]


@pytest.mark.parametrize("mode, numpys", [("floor", np.floor), ("trunc", np.trunc)])
def test_rounded_division(mode, numpys):
    a, b = draw("a", (3, 5)), draw("b", (5,))
    assert_same_bits(ops.div(a, b, rounding_mode=mode), numpys(a / b))
    whole = ops.div(np.array([-7, 7]), 2, rounding_mode=mode)
    assert whole.dtype == np.int64
    assert whole.tolist() == numpys([-3.5, 3.5]).tolist()
    with pytest.raises(ValueError, match="rounding_mode must be .* not 'up'"):
        ops.div(a, b, rounding_mode="up")


def test_clamp_with_tensors_as_limits():
    x, low = draw("x", (3, 5)), draw("low", (5,))
    assert_same_bits(ops.clamp(x, low), np.maximum(x, low))
    assert_same_bits(ops.clamp(x, low, low + 1), np.minimum(np.maximum(x, low), low + 1))
    assert_same_bits(ops.clamp(x, max=lucid_c.tensor(low)), np.minimum(x, low))
    with pytest.raises(TypeError, match="min must be a number or a tensor, not 'a'"):
        ops.clamp(x, "a")


def test_cat_of_different_types_and_of_nothing():
    x = draw("x", (2, 3))
    whole = np.arange(6).reshape(2, 3)
    assert_same_bits(ops.cat([whole, x]), np.concatenate([whole.astype(np.float32), x]))
    assert_same_bits(ops.cat([lucid_c.tensor([]), x], 1), x)
    assert ops.cat([lucid_c.tensor([]), lucid_c.tensor([])]).shape == (0,)


def test_parts_as_methods():
    x = lucid_c.tensor(draw("x", (5, 4)))
    assert [part.shape for part in x.split(2)] == [(2, 4), (2, 4), (1, 4)]
    assert [part.shape for part in x.split([1, 3], dim=-1)] == [(5, 1), (5, 3)]
    assert_same_bits(x.chunk(2, 1)[1], x.numpy()[:, 2:])


def test_new_functions_are_recorded_within_a_forward():
    class Net(lucid_c.nn.Module):
        def forward(self, x):
            a, b = x.chunk(2, dim=1)
            y = F.pad(a.add(b, alpha=2).clamp(b, b + 1), (1, 1, 1, 1), mode="reflect")
            return ops.cat([y, y // 1], 1)

    x = draw("x", (2, 4, 5, 6))
    a, b = x[:, :2], x[:, 2:]
    y = np.minimum(np.maximum(a + np.float32(2) * b, b), b + 1)
    y = np.pad(y, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect")
    assert_close(Net()(x), np.concatenate([y, np.floor(y)], 1))
