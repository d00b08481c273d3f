# SPDX-License-Identifier: MIT
"""Schedules of the learning rate: against PyTorch, and resumed."""

import json
import math

import numpy as np
import pytest

from lucid_c import nn, optim
from lucid_c.optim import lr_scheduler

STEPS = 40


def make_optimizer():
    a, b = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))
    return optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.5)


def sequence(lib, optimizer):
    parts = [
        lib.LinearLR(optimizer, start_factor=0.01, total_iters=5),
        lib.CosineAnnealingLR(optimizer, T_max=20, eta_min=1e-3),
        lib.StepLR(optimizer, step_size=4, gamma=0.5),
    ]
    return lib.SequentialLR(optimizer, parts, milestones=[5, 25])


SCHEDULES = {
    "step": lambda lib, opt: lib.StepLR(opt, 7, gamma=0.3),
    "multistep": lambda lib, opt: lib.MultiStepLR(opt, [30, 10, 10, 12], gamma=0.5),
    "cosine": lambda lib, opt: lib.CosineAnnealingLR(opt, 15, eta_min=0.01),
    "linear": lambda lib, opt: lib.LinearLR(opt, 0.25, 0.75, total_iters=10),
    "linear-defaults": lambda lib, opt: lib.LinearLR(opt),
    "lambda": lambda lib, opt: lib.LambdaLR(opt, lambda epoch: 0.95**epoch),
    "lambdas": lambda lib, opt: lib.LambdaLR(opt, [lambda e: 1 / (1 + e), lambda e: 0.9**e]),
    "sequence": sequence,
}


def rates(optimizer, scheduler, steps=STEPS):
    rows = []
    for _ in range(steps):
        rows.append([group["lr"] for group in optimizer.param_groups])
        assert scheduler.get_last_lr() == rows[-1]
        scheduler.step()
    return np.array(rows)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_as_in_torch(name):
    torch = pytest.importorskip("torch")
    a, b = (torch.nn.Parameter(torch.ones(n)) for n in (2, 3))
    theirs = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.5)
    want = rates(theirs, SCHEDULES[name](torch.optim.lr_scheduler, theirs))
    mine = make_optimizer()
    got = rates(mine, SCHEDULES[name](lr_scheduler, mine))
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert len(np.unique(got[:, 0])) > 2


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_has_the_very_same_rates(name):
    optimizer = make_optimizer()
    whole = rates(optimizer, SCHEDULES[name](lr_scheduler, optimizer))
    for stop in (0, 3, 17, 26):
        first = make_optimizer()
        scheduler = SCHEDULES[name](lr_scheduler, first)
        rates(first, scheduler, stop)
        saved = json.loads(json.dumps([first.state_dict(), scheduler.state_dict()]))
        second = make_optimizer()
        resumed = SCHEDULES[name](lr_scheduler, second)
        second.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        assert resumed.last_epoch == stop
        np.testing.assert_array_equal(rates(second, resumed, STEPS - stop), whole[stop:])


def test_resuming_by_last_epoch():
    optimizer = make_optimizer()
    whole = rates(optimizer, lr_scheduler.StepLR(optimizer, 3))
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(make_optimizer(), 3, last_epoch=9)
    again = make_optimizer()
    for group in again.param_groups:
        group["initial_lr"] = group["lr"]
    np.testing.assert_array_equal(
        rates(again, lr_scheduler.StepLR(again, 3, last_epoch=9), 20), whole[10:30]
    )


def test_cosine_with_warmup():
    optimizer = make_optimizer()
    got = rates(optimizer, lr_scheduler.cosine_with_warmup(optimizer, 30, 10, 0.1, 0.001), 31)
    want = [0.5 * (0.1 + 0.9 * t / 10) for t in range(10)]
    want += [0.001 + 0.499 * (1 + math.cos(math.pi * t / 20)) / 2 for t in range(21)]
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-12)
    assert got[10, 0] == 0.5 and got[30, 0] == 0.001
    optimizer = make_optimizer()
    plain = lr_scheduler.cosine_with_warmup(optimizer, 30, 0)
    assert isinstance(plain, lr_scheduler.CosineAnnealingLR) and plain.get_last_lr()[0] == 0.5
    for total, warmup in ((10, 10), (0, 0), (10, -1)):
        with pytest.raises(ValueError):
            lr_scheduler.cosine_with_warmup(optimizer, total, warmup)


def test_the_rate_moves_the_weights():
    p = nn.Parameter(np.zeros(1))
    optimizer = optim.SGD([p], lr=1.0)
    scheduler = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    seen = []
    for _ in range(4):
        p.grad = np.full(1, -1, np.float32)
        optimizer.step()
        scheduler.step()
        seen.append(p.item())
    assert seen == [1, 1.5, 1.75, 1.875]
    scheduler.step(10)
    assert scheduler.last_epoch == 10 and optimizer.param_groups[0]["lr"] == 2.0**-10
    optimizer.add_param_group({"params": [nn.Parameter(np.zeros(1))]})
    with pytest.raises(RuntimeError, match="parameter groups"):
        scheduler.step()


@pytest.mark.parametrize(
    "make,error",
    [
        (lambda o: lr_scheduler.StepLR("optimizer", 3), TypeError),
        (lambda o: lr_scheduler.StepLR(o, 0), ValueError),
        (lambda o: lr_scheduler.StepLR(o, 2.5), TypeError),
        (lambda o: lr_scheduler.StepLR(o, 3, -1), ValueError),
        (lambda o: lr_scheduler.MultiStepLR(o, [-3]), ValueError),
        (lambda o: lr_scheduler.LinearLR(o, 0.0), ValueError),
        (lambda o: lr_scheduler.LinearLR(o, 1.5), ValueError),
        (lambda o: lr_scheduler.LinearLR(o, total_iters=0), ValueError),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 0), ValueError),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 5, float("nan")), ValueError),
        (lambda o: lr_scheduler.LambdaLR(o, 0.5), TypeError),
        (lambda o: lr_scheduler.LambdaLR(o, [abs]), ValueError),
        (lambda o: lr_scheduler.SequentialLR(o, [], []), ValueError),
        (lambda o: lr_scheduler.SequentialLR(o, [o], []), TypeError),
        (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 3)], [5]), ValueError),
        (
            lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(make_optimizer(), 3)], []),
            ValueError,
        ),
        (
            lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 3)] * 3, [5, 5]),
            ValueError,
        ),
    ],
)
def test_bad_arguments(make, error):
    with pytest.raises(error):
        make(make_optimizer())


def test_states_that_do_not_fit_change_nothing():
    optimizer = make_optimizer()
    scheduler = SCHEDULES["sequence"](lr_scheduler, optimizer)
    rates(optimizer, scheduler, 8)
    before = json.dumps(scheduler.state_dict())
    for name, value in (
        ("last_epoch", -1),
        ("last_epoch", 2.5),
        ("base_lrs", [0.1]),
        ("base_lrs", [0.1, "x"]),
        ("_schedulers", []),
        ("_schedulers", [{}, {}, {}]),
        ("_milestones", [1]),
        ("_milestones", [1, "x"]),
    ):
        with pytest.raises((ValueError, TypeError)):
            scheduler.load_state_dict(json.loads(before) | {name: value})
        assert json.dumps(scheduler.state_dict()) == before
    other = lr_scheduler.StepLR(make_optimizer(), 3)
    for bad in (None, {}, json.loads(before), other.state_dict() | {"gamma": [1]}):
        with pytest.raises(ValueError):
            other.load_state_dict(bad)
