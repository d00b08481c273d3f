# SPDX-License-Identifier: MIT
"""Schedules of the learning rate, with PyTorch's names.

A schedule is a function of the number of steps (epochs, or iterations: whatever `step` is called
for) and of the rates that the optimizer began with. It sets the rate; nothing accumulates, so a
run that is resumed has the very same rates. Schedules are put one after the other with
`SequentialLR`; two on one optimizer do not multiply, as they do in PyTorch.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .optimizer import Optimizer, check_number

__all__ = [
    "CosineAnnealingLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "SequentialLR",
    "StepLR",
    "cosine_with_warmup",
]


def _check_count(value: Any, text: str, low: int = 1) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{text} must be an integer, not {value!r}")
    if value.__index__() < low:
        raise ValueError(f"{text} must be {low} or more, got {value}")
    return value.__index__()


class LRScheduler:
    """The base class: counts steps, and sets the rates of the optimizer's groups.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set. The first schedule of an optimizer notes them as ``"initial_lr"``.
    last_epoch : int, optional
        The steps done before; -1 begins anew. Otherwise the groups must have ``"initial_lr"``,
        as those of a loaded state dict have.

    Attributes
    ----------
    last_epoch : int
        How many steps have been done.
    base_lrs : list of float
        The rates at the beginning, by group.
    """

    _options: tuple[str, ...] = ()  # attributes that the state dict has, besides those of all

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.last_epoch = _check_count(last_epoch, "last_epoch", -1)
        for i, group in enumerate(optimizer.param_groups):
            if self.last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._last_lr: list[float] = []
        self.step()

    def _rate(self, base: float, group: int) -> float:
        """Return the rate of a group after `last_epoch` steps."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        """Return the rates for the present number of steps, by group."""
        return [self._rate(base, i) for i, base in enumerate(self.base_lrs)]

    def get_last_lr(self) -> list[float]:
        """Return the rates that were set last, by group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Count a step and set the rates.

        Parameters
        ----------
        epoch : int, optional
            The number of steps to go to, instead of one more.
        """
        if epoch is None:
            self.last_epoch += 1
        else:
            self.last_epoch = _check_count(epoch, "epoch", 0)
        self._apply()

    def _apply(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise RuntimeError(
                f"the optimizer has {len(groups)} parameter groups, and had {len(self.base_lrs)} "
                "when the schedule was made"
            )
        self._last_lr = self.get_lr()
        for group, lr in zip(groups, self._last_lr, strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, as plain numbers and lists."""
        names = ("last_epoch", "base_lrs", "_last_lr", *self._options)
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in ((name, getattr(self, name)) for name in names)
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, and set the optimizer's rates accordingly.

        Raises
        ------
        ValueError
            If it is the state of another kind of schedule; nothing is changed then.
        """
        self._check_state(state_dict)
        for name in ("base_lrs", "last_epoch", *self._options):
            value = state_dict[name]
            setattr(self, name, list(value) if isinstance(value, (list, tuple)) else value)
        self._apply()

    def _check_state(self, state_dict: Any) -> None:
        names = {"last_epoch", "base_lrs", *self._options}
        if not isinstance(state_dict, Mapping) or not names <= set(state_dict):
            raise ValueError(
                f"the state dict of {type(self).__name__} needs {', '.join(sorted(names))}"
            )
        rates = state_dict["base_lrs"]
        if not isinstance(rates, (list, tuple)) or len(rates) != len(self.base_lrs):
            raise ValueError(f"'base_lrs' must be {len(self.base_lrs)} numbers, not {rates!r}")
        for rate in rates:
            check_number(rate, "learning rate")
        _check_count(state_dict["last_epoch"], "last_epoch", 0)
        for name in self._options:
            own, given = getattr(self, name), state_dict[name]
            numbers = (int, float)
            if not (isinstance(own, numbers) and isinstance(given, numbers)) and not (
                isinstance(own, list)
                and isinstance(given, (list, tuple))
                and all(isinstance(each, numbers) for each in given)
            ):
                raise ValueError(f"{name!r} must be of the kind of {own!r}, not {given!r}")


class StepLR(LRScheduler):
    """Multiply the rate by `gamma` every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    step_size : int
        Steps between two changes.
    gamma : float, optional
        The factor.
    last_epoch : int, optional
        See `LRScheduler`.
    """

    _options = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = _check_count(step_size, "step_size")
        check_number(gamma, "gamma")
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, group: int) -> float:
        return base * self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiply the rate by `gamma` at each of the milestones.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    milestones : sequence of int
        Numbers of steps; one that is there twice counts twice.
    gamma : float, optional
        The factor.
    last_epoch : int, optional
        See `LRScheduler`.
    """

    _options = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = sorted(_check_count(each, "a milestone", 0) for each in milestones)
        check_number(gamma, "gamma")
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, group: int) -> float:
        return base * self.gamma ** bisect.bisect_right(self.milestones, self.last_epoch)


class LinearLR(LRScheduler):
    """Change a factor of the rate linearly, and keep it from then on; usually to warm up.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    start_factor : float, optional
        The factor at the beginning, above 0 and up to 1.
    end_factor : float, optional
        The factor after `total_iters` steps, 0 to 1.
    total_iters : int, optional
        How many steps the change takes.
    last_epoch : int, optional
        See `LRScheduler`.
    """

    _options = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        check_number(start_factor, "start_factor", high=1.0)
        check_number(end_factor, "end_factor", high=1.0)
        if start_factor == 0:
            raise ValueError("start_factor must be above 0 and not above 1, got 0")
        self.start_factor, self.end_factor = float(start_factor), float(end_factor)
        self.total_iters = _check_count(total_iters, "total_iters")
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, group: int) -> float:
        done = min(self.last_epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    """Let the rate fall along half a cosine wave (Loshchilov and Hutter 2017, section 3).

    ``eta_min + (lr - eta_min) * (1 + cos(pi * step / T_max)) / 2``

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    T_max : int
        The steps until the rate is `eta_min`; it rises again afterwards.
    eta_min : float, optional
        The lowest rate.
    last_epoch : int, optional
        See `LRScheduler`.
    """

    _options = ("T_max", "eta_min")

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = _check_count(T_max, "T_max")
        check_number(eta_min, "eta_min")
        self.eta_min = float(eta_min)
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, group: int) -> float:
        wave = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return self.eta_min + (base - self.eta_min) * wave


class LambdaLR(LRScheduler):
    """Multiply the rate by a function of the number of steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    lr_lambda : callable, or list of callables
        Gives the factor for a number of steps; a list has one for each group. Functions are not
        part of the state dict.
    last_epoch : int, optional
        See `LRScheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | list[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(getattr(optimizer, "param_groups", ()))
        given = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * groups
        if not all(callable(each) for each in given):
            raise TypeError(f"lr_lambda must be a function or a list of them, not {lr_lambda!r}")
        if len(given) != groups:
            raise ValueError(f"Expected {groups} lr_lambdas, but got {len(given)}")
        self.lr_lambdas = given
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, group: int) -> float:
        return base * self.lr_lambdas[group](self.last_epoch)


class SequentialLR(LRScheduler):
    """One schedule after the other; each counts from 0 when its turn comes.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    schedulers : list of LRScheduler
        Made for this optimizer.
    milestones : list of int
        After how many steps the next one begins: one number fewer than there are schedules,
        rising.
    last_epoch : int, optional
        See `LRScheduler`.

    Examples
    --------
    >>> warmup = LinearLR(optimizer, 0.01, total_iters=5)  # doctest: +SKIP
    >>> cosine = CosineAnnealingLR(optimizer, T_max=85)  # doctest: +SKIP
    >>> schedule = SequentialLR(optimizer, [warmup, cosine], milestones=[5])  # doctest: +SKIP
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._schedulers = list(schedulers)
        self._milestones = [_check_count(each, "a milestone") for each in milestones]
        if not self._schedulers:
            raise ValueError("SequentialLR expects at least one scheduler")
        for i, each in enumerate(self._schedulers):
            if not isinstance(each, LRScheduler):
                raise TypeError(f"scheduler {i} is a {type(each).__name__}, not a scheduler")
            if each.optimizer is not optimizer:
                raise ValueError(f"scheduler {i} belongs to a different optimizer")
        if len(self._milestones) != len(self._schedulers) - 1:
            raise ValueError(
                f"Expected {len(self._schedulers) - 1} milestones for {len(self._schedulers)} "
                f"schedulers, got {len(self._milestones)}"
            )
        if any(a >= b for a, b in zip(self._milestones, self._milestones[1:], strict=False)):
            raise ValueError(f"the milestones must rise, not {self._milestones}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates for the present number of steps, by group."""
        turn = bisect.bisect_right(self._milestones, self.last_epoch)
        begin = self._milestones[turn - 1] if turn else 0
        scheduler = self._schedulers[turn]
        scheduler.last_epoch = self.last_epoch - begin
        scheduler._last_lr = scheduler.get_lr()
        return list(scheduler._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, with the states of the schedules."""
        return super().state_dict() | {
            "_milestones": list(self._milestones),
            "_schedulers": [each.state_dict() for each in self._schedulers],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, and set the optimizer's rates accordingly."""
        self._check_state(state_dict)
        for each, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            each.load_state_dict(state)
        self._milestones = list(state_dict["_milestones"])
        super().load_state_dict(state_dict)

    def _check_state(self, state_dict: Any) -> None:
        super()._check_state(state_dict)
        states, milestones = state_dict.get("_schedulers"), state_dict.get("_milestones")
        if not isinstance(states, (list, tuple)) or len(states) != len(self._schedulers):
            raise ValueError(f"'_schedulers' must be {len(self._schedulers)} state dicts")
        if not isinstance(milestones, (list, tuple)) or len(milestones) != len(self._milestones):
            raise ValueError(f"'_milestones' must be {len(self._milestones)} numbers")
        for each in milestones:
            _check_count(each, "a milestone")
        for each, state in zip(self._schedulers, states, strict=True):
            each._check_state(state)


def cosine_with_warmup(
    optimizer: Optimizer,
    total_iters: int,
    warmup_iters: int,
    start_factor: float = 0.01,
    eta_min: float = 0.0,
) -> LRScheduler:
    """Return the usual schedule of large batches: a linear rise, then half a cosine wave.

    As in Goyal et al. 2017 (section 2.2) and He et al. 2019 (section 3.1).

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    total_iters : int
        All steps; after them the rate is `eta_min`.
    warmup_iters : int
        The first ones of them, in which the rate rises; 0 for none.
    start_factor : float, optional
        The factor of the rate that the rise begins with.
    eta_min : float, optional
        The lowest rate.
    """
    total = _check_count(total_iters, "total_iters")
    warmup = _check_count(warmup_iters, "warmup_iters", 0)
    if warmup >= total:
        raise ValueError(f"warmup_iters must be less than total_iters {total}, got {warmup}")
    cosine = CosineAnnealingLR(optimizer, total - warmup, eta_min)
    if not warmup:
        return cosine
    linear = LinearLR(optimizer, start_factor, total_iters=warmup)
    return SequentialLR(optimizer, [linear, cosine], [warmup])
