# SPDX-License-Identifier: MIT
"""Gradients of operators: numerically against the oracle, with all arguments against PyTorch, and
between convolutions, where tensors are in blocks."""

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
import oracle
from helpers import assert_close, assert_same_bits, draw, reference_weights
from lucid_c import _core, nn, ops

pytestmark = [pytest.mark.isa, pytest.mark.ops]


def leaves(arrays):
    """Tensors that require gradients."""
    made = [lucid_c.Tensor(np.array(x, np.float32)) for x in arrays]
    for each in made:
        each.requires_grad = True
    return made


def gradients(function, arrays, dy=None):
    """The result of ``function`` on tensors, the gradient that goes in, and those that come out."""
    xs = leaves(arrays)
    y = function(*xs)
    dy = draw("dy", y.shape) if dy is None else dy
    y.backward(lucid_c.Tensor(dy))
    return np.asarray(y.detach()), dy, [np.asarray(x.grad) for x in xs]


def central_differences(function, arrays, dy, step=1e-5):
    """The gradients of the sum of ``dy * function(*arrays)``, everything in float64."""
    arrays = [np.array(x, np.float64) for x in arrays]
    found = []
    for x in arrays:
        d = np.zeros(x.shape)
        for i in np.ndindex(x.shape):
            keep, ends = x[i], []
            for move in (step, -step):
                x[i] = keep + move
                ends.append((oracle.f64(function(*arrays)) * dy).sum())
            x[i] = keep
            d[i] = (ends[0] - ends[1]) / (2 * step)
        found.append(d)
    return found


def apart(name, shape):
    """Numbers of which no two are close: maxima do not change within a step."""
    count = int(np.prod(shape))
    order = np.argsort(draw(name, (count,)), kind="stable")
    return (order.reshape(shape) / 7.0 - count / 14.0).astype(np.float32)


def batch_norm_of_batch(x, weight=None, bias=None):
    x = oracle.f64(x)
    axes = (0, *range(2, x.ndim))
    return oracle.batch_norm(x, x.mean(axes), x.var(axes), weight, bias)


MEAN, VAR = draw("mean", (5,)), np.abs(draw("var", (5,))) + np.float32(0.5)

# name: (function of tensors, function of the oracle, shapes, are maxima taken?)
NUMERIC = {
    "linear": (F.linear, oracle.linear, [(3, 7), (5, 7), (5,)]),
    "linear-3d": (F.linear, oracle.linear, [(2, 3, 7), (5, 7), (5,)]),
    "linear-1d": (F.linear, oracle.linear, [(7,), (5, 7)]),
    "matmul": (ops.matmul, oracle.matmul, [(3, 4), (4, 5)]),
    "matmul-batch": (ops.matmul, oracle.matmul, [(2, 1, 3, 4), (3, 4, 2)]),
    "matmul-one-b": (ops.matmul, oracle.matmul, [(2, 3, 4), (4, 5)]),
    "matmul-row": (ops.matmul, oracle.matmul, [(4,), (2, 4, 3)]),
    "matmul-column": (ops.matmul, oracle.matmul, [(2, 3, 4), (4,)]),
    "matmul-dot": (ops.matmul, oracle.matmul, [(6,), (6,)]),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, MEAN, VAR, w, b),
        lambda x, w, b: oracle.batch_norm(x, MEAN, VAR, w, b),
        [(2, 5, 3, 2), (5,), (5,)],
    ),
    "batch_norm-plain": (
        lambda x: F.batch_norm(x, MEAN, VAR),
        lambda x: oracle.batch_norm(x, MEAN, VAR),
        [(4, 5)],
    ),
    "batch_norm-training": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        batch_norm_of_batch,
        [(2, 5, 3, 2), (5,), (5,)],
    ),
    "batch_norm-training-rows": (
        lambda x: F.batch_norm(x, None, None, training=True),
        batch_norm_of_batch,
        [(7, 5)],
    ),
    "softmax-0": (lambda x: F.softmax(x, 0), lambda x: oracle.softmax(x, 0), [(3, 5, 2)]),
    "softmax-2": (lambda x: F.softmax(x, 2), lambda x: oracle.softmax(x, 2), [(3, 2, 5)]),
    "log_softmax-1": (
        lambda x: F.log_softmax(x, 1),
        lambda x: oracle.log_softmax(x, 1),
        [(3, 5, 2)],
    ),
    "log_softmax-2": (
        lambda x: F.log_softmax(x, 2),
        lambda x: oracle.log_softmax(x, 2),
        [(3, 2, 5)],
    ),
    "max": (lambda x: x.max(), lambda x: oracle.max(x), [(3, 5)]),
    "max-dim": (lambda x: x.max(1, True).values, lambda x: oracle.max(x, 1, True), [(3, 5, 2)]),
    "min-dims": (lambda x: x.min((0, 2)), lambda x: -oracle.max(-x, (0, 2)), [(3, 5, 2)]),
    "max_pool2d": (
        lambda x: F.max_pool2d(x, 3, 2, 1, 1, True),
        lambda x: oracle.max_pool2d(x, 3, 2, 1, 1, True),
        [(2, 3, 6, 5)],
    ),
    "avg_pool2d": (
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, True, False),
        lambda x: oracle.avg_pool2d(x, (3, 2), 2, 1, True, False),
        [(2, 3, 6, 5)],
    ),
    "adaptive_avg_pool2d": (
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        lambda x: oracle.adaptive_avg_pool2d(x, (2, 3)),
        [(2, 3, 5, 4)],
    ),
    "adaptive_max_pool2d": (
        lambda x: F.adaptive_max_pool2d(x, (2, 3)),
        lambda x: oracle.adaptive_max_pool2d(x, (2, 3)),
        [(2, 3, 5, 4)],
    ),
    "permute": (
        lambda x: x.permute(2, 0, 3, 1),
        lambda x: oracle.permute(x, (2, 0, 3, 1)),
        [(2, 3, 4, 5)],
    ),
    "cat": (
        lambda a, b, c: ops.cat([a, b, c, a], 1),
        lambda a, b, c: oracle.cat([a, b, c, a], 1),
        [(2, 3, 2), (2, 1, 2), (2, 0, 2)],
    ),
    "pad": (
        lambda x: F.pad(x, (2, -1, 0, 3), value=2.0),
        lambda x: oracle.pad(x, (2, -1, 0, 3), value=2.0),
        [(2, 3, 4)],
    ),
    "slice": (lambda x: x[1:, ::2, 3], lambda x: x[1:, ::2, 3], [(3, 5, 4)]),
    "slice-backwards": (
        lambda x: _core.slice(x, (2, 1, 3), (-1, 2, -2), (3, 2, 2)),
        lambda x: x[::-1, 1:4:2, ::-2],
        [(3, 5, 4)],
    ),
    "split_softmax": (
        lambda x: _core.split_softmax(x, 2, 3, False),
        lambda x: oracle.radix_softmax(x, 2, 3)[:, :, None, None],
        [(2, 12, 1, 1)],
    ),
    "split_softmax-lucid2": (
        lambda x: _core.split_softmax(x, 2, 3, True),
        lambda x: oracle.radix_softmax_lucid2(x, 2, 3)[:, :, None, None],
        [(2, 12, 1, 1)],
    ),
    "split_softmax-one": (
        lambda x: _core.split_softmax(x, 2, 1, False),
        lambda x: oracle.sigmoid(x),
        [(2, 6, 1, 1)],
    ),
    "split_gap": (
        lambda x: _core.split_gap(x, 1, 2),
        lambda x: oracle.radix_sum(x, 2).mean((2, 3), keepdims=True),
        [(2, 6, 3, 2)],
    ),
    "split_apply": (
        lambda x, a: _core.split_apply(x, a, 1, 2),
        lambda x, a: oracle.radix_sum(oracle.f64(x) * oracle.f64(a), 2),
        [(2, 6, 3, 2), (2, 6, 1, 1)],
    ),
}


@pytest.mark.parametrize("name", NUMERIC)
def test_numerically(name):
    function, slow, shapes = NUMERIC[name]
    make = apart if "max" in name or "min" in name else draw
    arrays = [make(f"x{i}", shape) for i, shape in enumerate(shapes)]
    y, dy, found = gradients(function, arrays)
    assert_close(y, slow(*arrays))
    for got, want in zip(found, central_differences(slow, arrays, dy), strict=True):
        assert_close(got, want, rel=2e-5)


# --- against PyTorch -------------------------------------------------------------------------


def compare(torch, function, other, arrays, rel=1e-5):
    """Results and gradients of two functions, the second one of PyTorch in float64."""
    y, dy, found = gradients(function, arrays)
    xs = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in arrays]
    want = other(*xs)
    want.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(y, want.detach().numpy(), rel)
    for got, x in zip(found, xs, strict=True):
        assert_close(got, x.grad.numpy(), rel)


@pytest.mark.parametrize(
    "kernel,stride,padding,dilation,ceil",
    [
        (2, None, 0, 1, False),
        (3, 2, 1, 1, False),
        (3, 2, 1, 1, True),
        ((3, 2), (2, 3), (1, 0), 1, True),
        (3, 1, 1, (2, 3), False),
        (2, 5, 1, 1, False),
    ],
)
def test_max_pool2d_with_equals_and_nan(torch, kernel, stride, padding, dilation, ceil):
    """The gradient goes to the first of equals; NaN counts as largest."""
    x = np.maximum(np.round(draw("x", (2, 5, 11, 13))), 0)
    options = (kernel, stride, padding, dilation, ceil)
    pool = torch.nn.functional.max_pool2d
    compare(torch, lambda x: F.max_pool2d(x, *options), lambda x: pool(x, *options), [x])
    x[0, 1, 3:5, 4] = np.nan
    compare(torch, lambda x: F.max_pool2d(x, *options), lambda x: pool(x, *options), [x])


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("divisor", [None, 3])
@pytest.mark.parametrize("kernel,stride,padding", [(3, 2, 1), ((2, 5), (3, 1), (1, 2)), (20, 1, 9)])
def test_avg_pool2d(torch, kernel, stride, padding, ceil, include, divisor):
    options = (kernel, stride, padding, ceil, include, divisor)
    pool = torch.nn.functional.avg_pool2d
    x = draw("x", (2, 5, 12, 11))
    compare(torch, lambda x: F.avg_pool2d(x, *options), lambda x: pool(x, *options), [x])


@pytest.mark.parametrize("size", [1, (2, 3), (13, 1), (None, 5), (17, 20)])
def test_adaptive_pools(torch, size):
    x = np.round(draw("x", (2, 5, 13, 9)), 1)
    for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        mine, theirs = getattr(F, name), getattr(torch.nn.functional, name)
        compare(torch, lambda x, f=mine: f(x, size), lambda x, f=theirs: f(x, size), [x])


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_extremes_of_equals(torch, dim, keepdim):
    """Along one axis to the index, over a tuple of axes and over all shared by equals."""
    x = np.round(draw("x", (3, 7, 130)))
    for name in ("max", "min"):

        def along(x, name=name):
            return getattr(x, name)(dim, keepdim).values

        compare(torch, along, along, [x])
        compare(
            torch,
            lambda x, name=name: getattr(x, name)((dim,), keepdim),
            lambda x, name=name: getattr(torch, "a" + name)(x, (dim,), keepdim),
            [x],
        )
        compare(torch, *(lambda x, name=name: getattr(x, name)(),) * 2, [x])


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3), (2, 5, 37, 41), (2, 5, 2, 3, 4)])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_batch_norm_by_the_batch(torch, shape, affine, offset):
    arrays = [draw("x", shape) + np.float32(offset)]
    if affine:
        arrays += [draw("w", (5,)), draw("b", (5,))]

    def norm(f):
        return lambda x, w=None, b=None: f(x, None, None, w, b, True)

    rel = 1e-5 if offset == 0 else 1e-4  # float32 has 5 digits of a standard deviation then
    compare(torch, norm(F.batch_norm), norm(torch.nn.functional.batch_norm), arrays, rel)


def test_functional_batch_norm_changes_buffers(torch):
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", MEAN)
            self.register_buffer("var", VAR)

    owner, x = Owner(), draw("x", (3, 5, 4, 2))
    F.batch_norm(x, owner.mean, owner.var, training=True, momentum=0.3)
    mean, var = torch.tensor(MEAN), torch.tensor(VAR)
    torch.nn.functional.batch_norm(torch.tensor(x), mean, var, training=True, momentum=0.3)
    assert_close(owner.mean, mean.numpy())
    assert_close(owner.var, var.numpy())
    with pytest.raises(TypeError, match="buffers of a module"):
        F.batch_norm(x, MEAN, VAR, training=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(draw("one", (1, 5)), None, None, training=True)


# --- between convolutions --------------------------------------------------------------------


class Sandwich(nn.Module):
    """Two convolutions around ``middle``; in between tensors are in blocks."""

    def __init__(self, middle, channels, after=None):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.last = nn.Conv2d(after or channels, 2, 1)
        self.middle = middle

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def split(torch):
    """Split attention with radix 2 and cardinality 2, without its small convolutions."""

    def mine(x):
        logits = x.mean((2, 3), True)
        y = _core.split_apply(x, _core.split_softmax(logits, 2, 2, False), 2, 2)
        return y + _core.split_gap(x, 2, 2)

    def theirs(x):
        n, c, h, w = x.shape
        logits = x.mean((2, 3)).view(n, 2, 2, -1).transpose(1, 2).softmax(1).reshape(n, 2, c // 2)
        slices = x.view(n, 2, c // 2, h, w)
        y = (slices * logits[..., None, None]).sum(1)
        return y + slices.sum(1).mean((2, 3), keepdim=True)

    return mine, theirs


def middles(torch):
    t = torch.nn.functional
    return {
        "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: t.max_pool2d(x, 3, 2, 1)),
        "avg_pool": (
            lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
            lambda x: t.avg_pool2d(x, 3, 2, 1, True, False),
        ),
        "global_pool": (
            lambda x: x * F.adaptive_avg_pool2d(x, 1),
            lambda x: x * t.adaptive_avg_pool2d(x, 1),
        ),
        "norm": (
            lambda x: F.batch_norm(x, None, None, training=True),
            lambda x: t.batch_norm(x, None, None, training=True),
        ),
        "norm_relu": (
            lambda x: F.relu(F.batch_norm(x, None, None, training=True)) * 2.0,
            lambda x: t.relu(t.batch_norm(x, None, None, training=True)) * 2.0,
        ),
        "norm_add_relu": (
            lambda x: F.relu(F.batch_norm(x, None, None, training=True) + x),
            lambda x: t.relu(t.batch_norm(x, None, None, training=True) + x),
        ),
        "norm_relu_twice": (
            lambda x: F.relu(
                F.batch_norm(
                    F.relu(F.batch_norm(x, None, None, training=True)), None, None, training=True
                )
            ),
            lambda x: t.relu(
                t.batch_norm(
                    t.relu(t.batch_norm(x, None, None, training=True)), None, None, training=True
                )
            ),
        ),
        "norm_add_norm_relu": (
            lambda x: F.relu(
                F.batch_norm(x * x, None, None, training=True)
                + F.batch_norm(x, None, None, training=True)
            ),
            lambda x: t.relu(
                t.batch_norm(x * x, None, None, training=True)
                + t.batch_norm(x, None, None, training=True)
            ),
        ),
        "softmax": (lambda x: F.softmax(x, 1), lambda x: t.softmax(x, 1)),
        "split": split(torch),
    }


NAMES = (
    "max_pool avg_pool global_pool norm norm_relu norm_relu_twice norm_add_relu "
    "norm_add_norm_relu softmax split"
).split()


@pytest.mark.parametrize("channels", [20, 64])
@pytest.mark.parametrize("name", NAMES)
def test_between_convolutions(torch, name, channels):
    mine, theirs = middles(torch)[name]
    model = Sandwich(mine, channels, channels // 2 if name == "split" else channels)
    weights = {k: draw(k, v.shape, 0.3) for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    model.train()
    x = draw("x", (3, 3, 9, 11))
    y = model(x)
    dy = draw("dy", y.shape)
    y.backward(lucid_c.Tensor(dy))
    w = {k: torch.tensor(v.astype(np.float64), requires_grad=True) for k, v in weights.items()}
    conv = torch.nn.functional.conv2d
    h = conv(torch.tensor(x).double(), w["first.weight"], w["first.bias"], padding=1)
    want = conv(theirs(h), w["last.weight"], w["last.bias"])
    want.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(y.detach(), want.detach().numpy(), 2e-5)
    largest = max(float(v.grad.abs().max()) for v in w.values())
    for key, parameter in model.named_parameters():
        got, right = np.asarray(parameter.grad), w[key].grad.numpy()
        # the bias before a norm has the gradient 0, of which float32 leaves rounding errors
        assert np.abs(got - right).max() <= 1e-4 * max(np.abs(right).max(), 0.01 * largest), key


def steps_of(model):
    """The ops of a forward and of its backward."""
    model.train()
    y, forward = _core.profile(lambda: model(draw("x", (2, 3, 8, 8))))
    _, backward = _core.profile(lambda: y.sum().backward())
    return [[row["op"] for row in each["rows"]] for each in (forward, backward)]


def test_what_is_fused():
    """Additions and ReLUs after norms and their masks in backward take no steps of their own."""
    forward, backward = steps_of(Sandwich(nn.Sequential(nn.BatchNorm2d(32), nn.ReLU()), 32))
    assert forward.count("batch_norm") == backward.count("batch_norm_grad") == 1
    assert not {"binary", "unary"} & {*forward, *backward}
    norm = nn.BatchNorm2d(32)
    forward, backward = steps_of(Sandwich(lambda x: F.relu(norm(x) + x), 32))
    assert not {"binary", "unary"} & set(forward)
    assert backward.count("binary") == 1  # the sum of the two gradients of x
    forward, backward = steps_of(
        Sandwich(lambda x: _core.split_apply(x, _core.split_gap(x, 1, 1), 1, 1), 32)
    )
    assert "split_gap_grad" not in backward and "split_apply_grad" in backward


@pytest.mark.parametrize("count", [2, 3, 5])
def test_same_bits_for_any_number_of_threads(threads, count):
    def run():
        model = Sandwich(lambda x: F.relu(F.batch_norm(x, None, None, training=True) + x), 40)
        model.load_state_dict({k: draw(k, v.shape) for k, v in model.state_dict().items()})
        model.train()
        loss = F.cross_entropy(model(draw("x", (5, 3, 33, 37))), np.zeros((5, 33, 37), int))
        loss.backward()
        return [np.array(loss.detach()), *(np.array(p.grad) for p in model.parameters())]

    threads(1)
    want = run()
    threads(count)
    for got, expected in zip(run(), want, strict=True):
        assert_same_bits(got, expected)


def test_norm_larger_than_the_caches():
    """Its output is written past them, into memory that is aligned for that."""
    model = nn.Sequential(
        nn.Conv2d(16, 128, 1), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 8, 1)
    )
    reference_weights(model)
    model.train()
    x = draw("x", (2, 16, 260, 261))
    y = np.asarray(model(x).detach())
    state = {name: np.array(a, np.float64) for name, a in model.state_dict().items()}
    w, last = state["0.weight"][:, :, 0, 0], state["3.weight"][:, :, 0, 0]
    h = np.tensordot(w, np.float64(x), ([1], [1]))  # channels first
    h -= h.mean((1, 2, 3), keepdims=True)
    h *= (state["1.weight"] / np.sqrt(h.var((1, 2, 3)) + 1e-5))[:, None, None, None]
    h = np.maximum(h + state["1.bias"][:, None, None, None], 0)
    want = np.tensordot(last, h, ([1], [0])) + state["3.bias"][:, None, None, None]
    np.testing.assert_allclose(y.swapaxes(0, 1), want, atol=2e-5 * np.abs(want).max(), rtol=0)
