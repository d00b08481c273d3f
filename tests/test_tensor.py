# SPDX-License-Identifier: MIT
"""lucid_c.Tensor: NumPy in and out, shapes, views, arithmetic, DLPack."""

import gc
import operator

import numpy as np
import pytest

import lucid_c
import oracle
from helpers import BAD_INPUT, assert_close, assert_same_bits, draw
from lucid_c import Tensor

pytestmark = [pytest.mark.isa, pytest.mark.ops]


@pytest.fixture
def x():
    return draw("x", (2, 3, 5, 7))


# --- in and out ------------------------------------------------------------------------------


def test_what_it_is(x):
    t = Tensor(x)
    assert t.shape == (2, 3, 5, 7) and type(t.shape) is tuple
    assert t.dtype == np.float32 and t.ndim == 4 and t.dim() == 4
    assert t.size() == (2, 3, 5, 7) and t.size(1) == 3 and t.size(-1) == 7
    assert t.numel() == 210 and len(t) == 2
    assert type(t.numpy()) is np.ndarray
    assert_same_bits(t.numpy(), x)
    assert "Tensor" in repr(t)


def test_no_copy_where_none_is_needed(x):
    t = Tensor(x)
    assert np.shares_memory(t.numpy(), x)
    assert np.shares_memory(np.asarray(t), t.numpy())
    y = lucid_c.ops.relu(x)
    assert np.shares_memory(y.numpy(), y.numpy())
    assert np.shares_memory(np.asarray(y), y.numpy())
    assert not np.shares_memory(y.numpy(), x)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
def test_other_floats_become_float32(x, dtype):
    t = Tensor(x.astype(dtype))
    assert t.dtype == np.float32
    assert_same_bits(t.numpy(), x.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("given", [1.5, [1.0, 2.5], [[1.0], [2.0]], np.float32(3), np.float64(2.5)])
def test_numbers_and_lists(given):
    t = Tensor(given)
    assert t.dtype == np.float32
    assert_same_bits(t.numpy(), np.asarray(given, np.float32))


def test_array_protocol(x):
    t = Tensor(x)
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    copied = np.array(t, copy=True)
    copied[:] = 0
    assert_same_bits(t.numpy(), x)
    assert_close(np.mean(np.asarray(t)), x.mean(), dtype=None)
    assert np.stack([np.asarray(t), x]).shape == (2, 2, 3, 5, 7)


def test_item():
    assert Tensor(np.array([[2.5]], np.float32)).item() == 2.5
    assert type(Tensor(1.5).item()) is float
    assert float(Tensor(1.5)) == 1.5
    with pytest.raises(BAD_INPUT):
        Tensor([1.0, 2.0]).item()


def test_strides_and_order_do_not_matter(x):
    for a in (
        np.asfortranarray(x),
        x[:, ::-1],
        x[..., ::-2],
        x.transpose(3, 1, 0, 2),
        np.broadcast_to(x[:, :1], x.shape),
    ):
        assert_same_bits(np.ascontiguousarray(Tensor(a).numpy()), np.ascontiguousarray(a))
        assert_same_bits(np.asarray(Tensor(a) + 1), np.ascontiguousarray(a) + np.float32(1))


def test_the_array_outlives_its_tensor():
    a = lucid_c.ops.exp(np.zeros((512, 513), np.float32)).numpy()
    gc.collect()
    for _ in range(5):
        lucid_c.ops.exp(np.ones((512, 513), np.float32))
    assert (a == 1).all()


def test_the_tensor_outlives_its_array():
    t = Tensor(np.full((512, 513), 3.0, np.float32))
    gc.collect()
    junk = [np.ones((512, 513), np.float32) for _ in range(3)]
    assert (t.numpy() == 3).all() and len(junk) == 3


# --- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [(6, 35), (-1,), (2, -1), (7, 5, 3, 2), (2, 3, 5, 7, 1)])
def test_view_and_reshape(x, new):
    t = Tensor(x)
    for got in (t.view(new), t.view(*new), t.reshape(new), t.reshape(*new)):
        assert_same_bits(got, x.reshape(new))


def test_reshape_of_a_transposed_tensor(x):
    t = Tensor(x).permute(0, 2, 3, 1)
    assert_same_bits(
        t.reshape(10, 21), np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(10, 21)
    )


def test_permute_and_transpose(x):
    t = Tensor(x)
    for got in (t.permute(3, 0, 2, 1), t.permute((3, 0, 2, 1)), t.permute(-1, 0, 2, -3)):
        assert_same_bits(np.ascontiguousarray(got), np.ascontiguousarray(x.transpose(3, 0, 2, 1)))
    assert_same_bits(
        np.ascontiguousarray(t.transpose(1, -1)), np.ascontiguousarray(x.swapaxes(1, -1))
    )


def test_squeeze_and_unsqueeze():
    a = draw("x", (1, 3, 1, 5))
    t = Tensor(a)
    assert t.squeeze().shape == (3, 5)
    assert t.squeeze(0).shape == (3, 1, 5) and t.squeeze(dim=-2).shape == (1, 3, 5)
    assert t.squeeze(1).shape == (1, 3, 1, 5)
    assert t.unsqueeze(0).shape == (1, 1, 3, 1, 5) and t.unsqueeze(-1).shape == (1, 3, 1, 5, 1)
    assert t.unsqueeze(dim=2).shape == (1, 3, 1, 1, 5)
    assert_same_bits(t.squeeze(), a[0, :, 0])


def test_flatten_and_detach(x):
    t = Tensor(x)
    assert t.flatten().shape == (210,) and t.flatten(1).shape == (2, 105)
    assert t.flatten(1, 2).shape == (2, 15, 7) and t.flatten(start_dim=2).shape == (2, 3, 35)
    assert_same_bits(t.detach(), x)


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        (0, 1),
        (1, 2, 4, 6),
        slice(None),
        slice(0, 1),
        (slice(None), 1),
        (slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)),
        (Ellipsis, 0),
        (Ellipsis, slice(1, 6, 3)),
        (0, Ellipsis, -1),
        (slice(None), None),
        (None, Ellipsis, None),
        (slice(5, 9),),
        (slice(-1, None), slice(1, -1)),
        (1, slice(0, 0)),
        Ellipsis,
    ],
    ids=str,
)
def test_slicing(x, index):
    assert_same_bits(np.ascontiguousarray(Tensor(x)[index]), np.ascontiguousarray(x[index]))
    y = lucid_c.ops.mul(x, 2.0)
    assert_same_bits(np.ascontiguousarray(y[index]), np.ascontiguousarray(2 * x[index]))


@pytest.mark.parametrize("index", [2, -3, (0, 3), (0, 0, 0, 0, 0), "a", 1.5], ids=str)
def test_slicing_beyond_the_end(x, index):
    with pytest.raises((IndexError, TypeError)):
        Tensor(x)[index]


def test_iterating(x):
    rows = list(Tensor(x))
    assert len(rows) == 2
    assert_same_bits(rows[1], x[1])


# --- arithmetic ------------------------------------------------------------------------------

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]


@pytest.mark.parametrize("op", OPERATORS)
def test_operators(x, op):
    other = np.abs(draw("y", (3, 1, 7))) + np.float32(0.5)
    t, u = Tensor(x), Tensor(other)
    want = op(x.astype(np.float64), other.astype(np.float64))
    for got in (op(t, u), op(t, other), op(x, u)):
        assert isinstance(got, Tensor)
        assert_close(got, want, rel=2e-7)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("number", [2, 0.25, np.float32(1.5), np.float64(-3.0), np.int32(7)])
def test_operators_with_numbers(op, number):
    x = np.abs(draw("x", (3, 5))) + np.float32(0.5)
    assert_close(op(Tensor(x), number), op(x.astype(np.float64), float(number)), rel=2e-7)
    got = op(number, Tensor(x))
    assert isinstance(got, Tensor)
    assert_close(got, op(float(number), x.astype(np.float64)), rel=2e-7)


def test_negation_and_matmul(x):
    t = Tensor(x)
    assert_same_bits(-t, -x)
    w = draw("w", (7, 4))
    assert_close(t @ Tensor(w), oracle.matmul(x, w))
    assert_close(t @ w, oracle.matmul(x, w))
    assert_close(x @ Tensor(w), oracle.matmul(x, w))


def test_in_place_addition_of_results(x):
    t = Tensor(x) * 1
    before = t
    t += 1
    assert_close(t, x + np.float32(1), rel=1e-7)
    assert before.shape == t.shape


@pytest.mark.parametrize(
    "op", [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne]
)
def test_comparisons(x, op):
    y = np.where(draw("y", x.shape) > 0, x, -x)
    for other in (y, Tensor(y)):
        got = op(Tensor(x), other)
        assert isinstance(got, Tensor)
        assert_same_bits(got, op(x, y))
    assert_same_bits(op(Tensor(x), 0.25), op(x, np.float32(0.25)))
    assert np.asarray(op(Tensor(x), 0)).dtype == np.bool_


def test_reductions(x):
    t = Tensor(x)
    assert_close(t.sum(), oracle.sum(x))
    assert_close(t.sum(1), oracle.sum(x, 1))
    assert_close(t.sum(dim=(2, 3), keepdim=True), oracle.sum(x, (2, 3), True))
    assert_close(t.mean(), oracle.mean(x))
    assert_close(t.mean((2, 3)), oracle.mean(x, (2, 3)))
    assert_close(t.mean(-1, True), oracle.mean(x, -1, True))
    assert t.max().item() == x.max()
    assert_same_bits(t.max(1).values, x.max(1))
    assert_same_bits(t.max(1)[1], x.argmax(1).astype(np.int64))
    assert t.argmax().item() == x.argmax() and type(t.argmax().item()) is int
    assert_same_bits(t.argmax(dim=1), x.argmax(1).astype(np.int64))


def test_unary_methods(x):
    p = np.abs(x) + np.float32(0.1)
    assert_close(Tensor(p).exp(), oracle.exp(p))
    assert_close(Tensor(p).log(), oracle.log(p))
    assert_close(Tensor(p).sqrt(), oracle.sqrt(p))
    assert_close(Tensor(x).clamp(-0.5, 0.5), oracle.clamp(x, -0.5, 0.5))
    assert_close(Tensor(x).clamp(min=0), oracle.clamp(x, 0))


@pytest.mark.parametrize("other", ["a", None, {}, [1.0, "a"]], ids=str)
def test_arithmetic_with_nonsense(x, other):
    with pytest.raises((TypeError, ValueError)):
        Tensor(x) + other


# --- DLPack ----------------------------------------------------------------------------------


def test_numpy_reads_a_tensor_through_dlpack(x):
    t = lucid_c.ops.mul(x, 1.0)
    a = np.from_dlpack(t)
    assert_same_bits(a, x)
    assert np.shares_memory(a, t.numpy())
    del t
    gc.collect()
    assert_same_bits(a, x)


def test_a_tensor_reads_numpy_through_dlpack(x):
    t = lucid_c.from_dlpack(x)
    assert isinstance(t, Tensor) and np.shares_memory(t.numpy(), x)
    assert_same_bits(t.numpy(), x)
    kept = x.copy()
    del x
    gc.collect()
    assert_same_bits(t.numpy(), kept)


def test_dlpack_of_a_strided_array(x):
    view = x[:, :, 1::2, ::3]
    t = lucid_c.from_dlpack(view)
    assert_same_bits(np.ascontiguousarray(t), np.ascontiguousarray(view))
    assert_same_bits(np.asarray(t + 0), np.ascontiguousarray(view) + np.float32(0))


def test_dlpack_with_torch(x):
    torch = pytest.importorskip("torch")
    assert_same_bits(torch.from_dlpack(lucid_c.ops.mul(x, 1.0)).numpy(), x)
    source = torch.from_numpy(x.copy())
    t = lucid_c.from_dlpack(source)
    source[0, 0, 0, 0] = 42
    assert t.numpy()[0, 0, 0, 0] == 42
    del source
    gc.collect()
    assert_same_bits(t.numpy()[1], x[1])


def test_dlpack_of_other_dtypes():
    t = lucid_c.ops.argmax(np.array([[1.0, 3.0]]), 1)
    assert np.from_dlpack(t).dtype == np.int64
    with pytest.raises(BAD_INPUT + (BufferError,)):
        lucid_c.from_dlpack([1.0, 2.0])


def test_dlpack_capsules_that_nobody_reads_do_not_leak_or_crash(x):
    for _ in range(100):
        Tensor(x).__dlpack__()
    gc.collect()
    assert Tensor(x).__dlpack_device__()[0] == 1


def test_whole_quotients_and_remainders():
    a = np.array([[-7.5, 7.5, 3.0]], np.float32)
    x = Tensor(a)
    assert_same_bits(x // 2, a // 2)
    assert_same_bits(x % np.float32(2), a % 2)
    assert_same_bits(8 // x, np.float32(8) // a)
    assert (Tensor([-7, 7]) % 4).tolist() == [1, 3]
    assert (Tensor([-7, 7]) // 2).dtype == np.int64


def test_all_and_any():
    x = Tensor([[1.0, 0.0], [2.0, 3.0]])
    assert not (x > 0).all() and (x > 2).any()
    assert x.all(1).tolist() == [False, True]
    assert x.any(dim=0, keepdim=True).tolist() == [[True, True]]
    assert np.all(x == x)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "add_", "mul_"])
def test_arithmetic_methods_refuse_what_is_no_number(name):
    method = getattr(Tensor([1.0, 2.0]), name)
    for wrong in ("a", None):
        with pytest.raises(TypeError, match="a tensor holds floats, integers or bools"):
            method(wrong)
    assert method([3.0, 4.0]).shape == (2,)


@pytest.mark.parametrize("wrong", ["a", 1.5, True])
def test_seeds_and_shapes_are_integers(wrong):
    with pytest.raises(TypeError, match=f"the seed must be an integer, not {wrong!r}"):
        lucid_c.random.seed(wrong)
    if wrong is not True:
        with pytest.raises(TypeError, match="the shape must be integers"):
            lucid_c.random.rand(2, wrong)
