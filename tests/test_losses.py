# SPDX-License-Identifier: MIT
"""Losses and random zeros: against the oracle, against PyTorch, bad input."""

import itertools

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
import oracle
from helpers import assert_close, assert_same_bits, draw
from lucid_c import _core, nn

pytestmark = [pytest.mark.isa, pytest.mark.ops]

REDUCTIONS = ("none", "mean", "sum")


def labels(shape, classes):
    return (np.arange(int(np.prod(shape))) * 7 % 13 % classes).reshape(shape)


def shares(shape):
    return oracle.softmax(draw("shares", shape, 2.0), 1).astype(np.float32)


def tensor(x):
    made = lucid_c.Tensor(x)
    made.requires_grad = True
    return made


def gradient_of(function, x):
    """The loss and its gradient; of losses one by one that of their weighted sum."""
    leaf = tensor(x)
    loss = function(leaf)
    dy = draw("dy", loss.shape)
    loss.backward(lucid_c.Tensor(dy))
    return np.asarray(loss.detach()), np.asarray(leaf.grad), dy


def numeric(function, x, dy, step=1e-5):
    x, d = oracle.f64(x).copy(), np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        keep, ends = x[i], []
        for move in (step, -step):
            x[i] = keep + move
            ends.append((function(x) * dy).sum())
        x[i] = keep
        d[i] = (ends[0] - ends[1]) / (2 * step)
    return d


def reduced(losses, reduction, count=None):
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / (losses.size if count is None else count)


def slow_cross_entropy(x, target, weight=None, ignore=-100, reduction="mean", smoothing=0.0):
    """Place by place, as the formula in PyTorch's documentation has it."""
    logp, classes = oracle.log_softmax(x, 1), x.shape[1]
    w = np.ones(classes) if weight is None else oracle.f64(weight)
    lines = np.moveaxis(logp, 1, -1).reshape(-1, classes)
    losses, counts = [], []
    if target.ndim == x.ndim:
        targets = np.moveaxis(oracle.f64(target), 1, -1).reshape(-1, classes)
        for line, t in zip(lines, targets, strict=True):
            losses.append(-(w * line * ((1 - smoothing) * t + smoothing / classes)).sum())
            counts.append(1.0)
    else:
        for line, t in zip(lines, target.reshape(-1), strict=True):
            smooth = -(w * line).sum() * smoothing / classes
            losses.append(0.0 if t == ignore else -(1 - smoothing) * w[t] * line[t] + smooth)
            counts.append(0.0 if t == ignore else w[t])
    shape = (x.shape[0], *x.shape[2:])
    return reduced(np.array(losses).reshape(shape), reduction, np.sum(counts))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["labels", "ignored", "shares"])
def test_cross_entropy_numerically(reduction, smoothing, weighted, kind):
    x = draw("x", (3, 5, 2), 2.0)
    target = shares(x.shape) if kind == "shares" else labels((3, 2), 5)
    ignore = int(target[1, 1]) if kind == "ignored" else -100
    weight = np.abs(draw("w", (5,))) + np.float32(0.1) if weighted else None

    def slow(x):
        return slow_cross_entropy(x, target, weight, ignore, reduction, smoothing)

    loss, dx, dy = gradient_of(
        lambda x: F.cross_entropy(
            x,
            target,
            weight,
            ignore_index=ignore,
            reduction=reduction,
            label_smoothing=smoothing,
        ),
        x,
    )
    assert_close(loss, slow(x))
    assert_close(dx, numeric(slow, x, dy), rel=2e-5)


def compare(torch, mine, theirs, x, rel=1e-5):
    loss, dx, dy = gradient_of(mine, x)
    leaf = torch.tensor(x.astype(np.float64), requires_grad=True)
    want = theirs(leaf)
    want.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(loss, want.detach().numpy(), rel)
    assert_close(dx, leaf.grad.numpy(), rel)


@pytest.mark.parametrize("shape", [(5, 7), (3, 1000), (2, 4, 3, 5), (4, 300, 2)])
def test_cross_entropy_against_torch(torch, shape):
    t = torch.nn.functional
    places = (shape[0], *shape[2:])
    weight = np.abs(draw("w", shape[1:2])) + np.float32(0.1)
    for reduction, weighted, smoothing, ignore, soft in itertools.product(
        REDUCTIONS, (False, True), (0.0, 0.2), (-100, 1), (False, True)
    ):
        if soft and ignore == 1:
            continue
        target = shares(shape) if soft else labels(places, shape[1])
        options = {"reduction": reduction, "ignore_index": ignore}
        mine = [target, weight if weighted else None]
        theirs = [None if each is None else torch.tensor(each) for each in mine]
        theirs = [e if e is None or not e.is_floating_point() else e.double() for e in theirs]
        compare(
            torch,
            lambda x, a=mine, o=options, s=smoothing: F.cross_entropy(
                x, *a, label_smoothing=s, **o
            ),
            lambda x, a=theirs, o=options, s=smoothing: t.cross_entropy(
                x, *a, label_smoothing=s, **o
            ),
            draw("x", shape, 3.0),
        )
        if not soft and not smoothing:
            compare(
                torch,
                lambda x, a=mine, o=options: F.nll_loss(x, *a, **o),
                lambda x, a=theirs, o=options: t.nll_loss(x, *a, **o),
                draw("x", shape),
            )


def test_cross_entropy_of_one_place():
    x = draw("x", (6,))
    assert_close(F.cross_entropy(x, 2), F.cross_entropy(x[None], [2]))
    assert F.cross_entropy(x, 2, reduction="none").shape == ()


def test_cross_entropy_of_large_and_impossible_logits():
    x = np.array([[1e4, -1e4, 0], [-np.inf, 0, 0], [3e38, 3e38, -3e38]], np.float32)
    loss = F.cross_entropy(x, [1, 1, 0], reduction="none")
    np.testing.assert_allclose(loss, [2e4, np.log(2), np.log(2)], rtol=1e-6)
    assert np.isinf(F.cross_entropy(x[1:2], [0]).numpy())
    assert np.isnan(F.cross_entropy(np.full((1, 3), -np.inf, np.float32), [0]).numpy())
    assert np.isnan(F.cross_entropy(x, [-100] * 3).numpy())  # a mean of nothing
    assert F.cross_entropy(x, [-100] * 3, reduction="sum").numpy() == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, ">i4"])
def test_class_numbers_of_any_integer_type(dtype):
    x, target = draw("x", (4, 5)), labels((4,), 5)
    want = F.cross_entropy(x, target)
    for given in (target.astype(dtype), lucid_c.Tensor(target.astype(dtype)), target.tolist()):
        assert_same_bits(F.cross_entropy(x, given), want)
    strided = np.repeat(target.astype(dtype), 2)[::2]
    assert_same_bits(F.cross_entropy(x, strided), want)


def test_class_numbers_out_of_range():
    x, target = draw("x", (2, 5, 3)), labels((2, 3), 5)
    for bad in (5, -1, -100 - 2**40, 2**62):
        target[1, 2] = bad
        with pytest.raises(ValueError, match=rf"target {bad} at position \(1, 2\).*0 to 4"):
            F.cross_entropy(x, target)
    with pytest.raises(ValueError, match="nll_loss: target"):
        F.nll_loss(x, target)
    target[1, 2] = 3
    assert np.isfinite(F.cross_entropy(x, target).numpy())


def test_labels_are_checked_in_a_recording():
    class Model(nn.Module):
        def forward(self, x, target):
            return F.cross_entropy(x * 2, target)

    model, x = Model(), draw("x", (3, 5))
    assert_close(model(x, np.array([1, 2, 3])), F.cross_entropy(x * 2, [1, 2, 3]))
    with pytest.raises(ValueError, match="position"):
        model(x, np.array([1, 7, 3]))
    assert_close(model(x, np.array([1, 2, 3])), F.cross_entropy(x * 2, [1, 2, 3]))


@pytest.mark.parametrize(
    "call,error,text",
    [
        (lambda x: F.cross_entropy(x, [1.0, 2.0, 3.0]), ValueError, "class numbers are integers"),
        (lambda x: F.cross_entropy(x, [1, 2]), ValueError, "does not fit"),
        (lambda x: F.cross_entropy(x, [True, False, True]), TypeError, "target must hold"),
        (lambda x: F.cross_entropy(x, ["a", "b", "c"]), TypeError, "target must hold"),
        (lambda x: F.cross_entropy(x, [1, 2, 3], [1.0, 2.0]), ValueError, "weight must have"),
        (lambda x: F.cross_entropy(x, [1, 2, 3], reduction="all"), ValueError, "reduction"),
        (lambda x: F.cross_entropy(x, [1, 2, 3], None, True), TypeError, "size_average"),
        (lambda x: F.cross_entropy(x, [1, 2, 3], label_smoothing=2), ValueError, "smoothing"),
        (lambda x: F.cross_entropy(x, [1, 2, 3], ignore_index=1.5), TypeError, "ignore_index"),
        (lambda x: F.cross_entropy(np.float32(1), 0), ValueError, "dimensions"),
        (lambda x: F.cross_entropy(x[:, :0], [0, 0, 0]), ValueError, "no classes"),
        (lambda x: F.cross_entropy(x.astype(int), [1, 2, 3]), TypeError, "input must be a float"),
        (lambda x: F.nll_loss(x, x), TypeError, "target must be int64"),
        (lambda x: F.mse_loss(x, x[0]), ValueError, "target of shape"),
        (lambda x: F.mse_loss(x, [[1] * 5] * 3), TypeError, "target must be a float"),
        (lambda x: F.binary_cross_entropy_with_logits(x, x[0]), ValueError, "target of shape"),
        (
            lambda x: F.binary_cross_entropy_with_logits(x, x, pos_weight=x[:2]),
            ValueError,
            "expand",
        ),
        (lambda x: F.dropout(x, 1.5), ValueError, "p must be"),
        (lambda x: F.drop_path(x, -0.1), ValueError, "drop_prob must be"),
        (lambda x: F.drop_block(x, 0.1), ValueError, "4 dimensions"),
        (lambda x: F.drop_block(x, 0.1, 0), ValueError, "block_size"),
        (lambda x: nn.CrossEntropyLoss(label_smoothing=-1), ValueError, "label_smoothing"),
        (lambda x: nn.MSELoss(reduction="most"), ValueError, "reduction"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call(draw("x", (3, 5)))


def test_targets_have_no_gradient():
    x, target = tensor(draw("x", (3, 5))), tensor(shares((3, 5)))
    with pytest.raises(RuntimeError, match="detach"):
        F.cross_entropy(x, target).backward()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_binary_cross_entropy(torch, reduction, weighted, positive):
    x, t = draw("x", (4, 5), 20.0), oracle.sigmoid(draw("t", (4, 5))).astype(np.float32)
    options = {
        "weight": np.abs(draw("w", (4, 1))) if weighted else None,
        "pos_weight": np.abs(draw("p", (5,))) if positive else None,
    }
    doubles = {k: None if v is None else torch.tensor(v).double() for k, v in options.items()}
    theirs = torch.nn.functional.binary_cross_entropy_with_logits
    mine = F.binary_cross_entropy_with_logits
    compare(
        torch,
        lambda x: mine(x, t, reduction=reduction, **options),
        lambda x: theirs(x, torch.tensor(t).double(), reduction=reduction, **doubles),
        x,
    )
    compare(  # and of the target
        torch,
        lambda t: mine(x, t, reduction=reduction, **options),
        lambda t: theirs(torch.tensor(x).double(), t, reduction=reduction, **doubles),
        t,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (3, 5), (70, 131)])
def test_mse(reduction, shape):
    x, t = draw("x", shape), draw("t", shape)
    loss, dx, dy = gradient_of(lambda x: F.mse_loss(x, t, reduction=reduction), x)
    assert_close(loss, reduced((oracle.f64(x) - t) ** 2, reduction))
    by = max(x.size, 1) if reduction == "mean" else 1
    assert_close(dx, 2 * dy * (oracle.f64(x) - t) / by)
    _, dt, _ = gradient_of(lambda t: F.mse_loss(x, t, reduction=reduction), t)
    assert_same_bits(dt, -dx)


def test_modules_are_the_functions():
    x, t, w = draw("x", (4, 5)), labels((4,), 5), np.abs(draw("w", (5,)))
    options = {"ignore_index": 2, "reduction": "sum"}
    made = nn.CrossEntropyLoss(w, label_smoothing=0.1, **options)
    assert_same_bits(made(x, t), F.cross_entropy(x, t, w, label_smoothing=0.1, **options))
    assert list(made.state_dict()) == ["weight"]
    assert_same_bits(nn.NLLLoss(w, **options)(x, t), F.nll_loss(x, t, w, **options))
    p = oracle.sigmoid(x).astype(np.float32)
    made = nn.BCEWithLogitsLoss(w, reduction="sum", pos_weight=w[::-1])
    want = F.binary_cross_entropy_with_logits(x, p, w, reduction="sum", pos_weight=w[::-1])
    assert_same_bits(made(x, p), want)
    assert_same_bits(nn.MSELoss(reduction="none")(x, p), F.mse_loss(x, p, reduction="none"))
    assert repr(nn.MSELoss()) == "MSELoss(reduction='mean')"


# --- random zeros ----------------------------------------------------------------------------


def test_dropout_drops_its_share_and_draws_it_again_for_the_gradient():
    lucid_c.random.seed(5)
    x = tensor(np.ones((300, 211), np.float32))
    y = F.dropout(x, 0.3)
    y.sum().backward()
    out = np.asarray(y.detach())
    assert_same_bits(np.asarray(x.grad), out)
    assert abs((out == 0).mean() - 0.3) < 0.01
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.7)}
    other = np.asarray(F.dropout(x.detach(), 0.3))
    assert 0.5 < (other == out).mean() < 0.65  # 0.7 * 0.7 + 0.3 * 0.3: independent
    lucid_c.random.seed(5)
    assert_same_bits(F.dropout(x.detach(), 0.3), out)
    assert_same_bits(F.dropout(out, 0.3, training=False), out)
    assert_same_bits(F.dropout(out, 0.0), out)
    assert not np.asarray(F.dropout(out, 1.0)).any()


def test_dropout_is_the_same_in_blocks():
    """Between convolutions the same elements are dropped as alone."""

    class Model(nn.Module):
        def __init__(self, drop):
            super().__init__()
            self.conv = nn.Conv2d(3, 20, 1, bias=False)
            self.drop = drop

        def forward(self, x):
            return self.drop(self.conv(x))

    x = draw("x", (3, 3, 9, 7))
    for drop in (F.dropout, lambda x: F.drop_path(x, 0.5, True), lambda x: F.drop_block(x, 0.3, 3)):
        model = Model(drop)
        lucid_c.random.seed(3)
        got = model(x)
        lucid_c.random.seed(3)
        assert_close(got, drop(model.conv(x)), rel=1e-6)


def test_drop_path():
    x = tensor(draw("x", (64, 3, 2)))
    lucid_c.random.seed(1)
    y = F.drop_path(x, 0.25, True)
    y.sum().backward()
    kept = np.asarray(x.grad)[:, 0, 0] != 0
    assert 35 < kept.sum() < 60
    want = np.asarray(x.detach()) * kept[:, None, None] / 0.75
    assert_close(y.detach(), want)
    lucid_c.random.seed(1)
    y = F.drop_path(x.detach(), 0.25, True, scale_by_keep=False)
    assert_close(y, np.asarray(x.detach()) * kept[:, None, None])


def dropped_squares(p, size, h, w):
    """The expected share of zeros, from the number of corners whose square covers each place."""
    ch, cw = h - size + 1, w - size + 1
    corners = [
        [min(i, n - 1) - max(i - size + 1, 0) + 1 for i in range(m)] for m, n in ((h, ch), (w, cw))
    ]
    rate = p * h * w / (size**2 * ch * cw)
    return 1 - np.mean((1 - rate) ** np.outer(*corners))


SCHEDULES = {
    "dropout": (nn.Dropout, lambda p: p),
    "drop_path": (nn.DropPath, lambda p: p),
    "drop_block": (lambda p: nn.DropBlock2d(p, 3), lambda p: dropped_squares(p, 3, 8, 7)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_shares_keeps_one_plan(name):
    make, expected = SCHEDULES[name]
    lucid_c.random.seed(4)
    model = nn.Sequential(nn.Identity(), make(0.1)).train()
    x = tensor(np.ones((2000, 3, 8, 7), np.float32))
    plans = []
    for p in (0.1, 0.35, 0.6, 0.85, 1.0):
        model[1] = make(p).train()
        y = model(x)
        x.grad = None
        y.sum().backward()
        out = np.asarray(y.detach())
        assert_same_bits(np.asarray(x.grad), out)  # backward drops what forward dropped
        assert abs((out == 0).mean() - expected(p)) < 0.04
        if p < 1:
            assert abs(out.mean(dtype=np.float64) - 1) < 0.15
        plans.append(_core.plan_stats()["misses"])
    assert plans == plans[:1] * 5
    with pytest.raises(ValueError, match="between 0 and 1"):
        _core.dropout(x, float("nan"))


def test_drop_block_drops_whole_squares():
    lucid_c.random.seed(2)
    x = tensor(np.ones((16, 8, 14, 15), np.float32))
    y = F.drop_block(x, 0.1, 5)
    y.sum().backward()
    out = np.asarray(y.detach())
    assert_same_bits(np.asarray(x.grad), out)
    zero = out == 0
    assert 0.07 < zero.mean() < 0.11  # squares may overlap
    assert_close(out.mean(dtype=np.float64), np.float64(1), 1e-5, dtype=None)
    covered = np.zeros_like(zero)
    for i, j in itertools.product(range(10), range(11)):
        whole = zero[:, :, i : i + 5, j : j + 5].all((2, 3), keepdims=True)
        covered[:, :, i : i + 5, j : j + 5] |= whole
    np.testing.assert_array_equal(covered, zero)
    assert (zero[:, 0] != zero[:, 1]).any()  # channels have masks of their own
    assert F.drop_block(np.ones((1, 1, 2, 3), np.float32), 0.5, 7).shape == (1, 1, 2, 3)
