# SPDX-License-Identifier: MIT
"""Stochastic gradient descent, and LARS, which scales its rate tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _core
from .optimizer import Optimizer, check_number


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch has it.

    With the gradient g and the weights p: ``d = g + weight_decay * p``;
    ``buffer = momentum * buffer + (1 - dampening) * d`` (d itself in the first step);
    ``p -= lr * buffer``, or ``p -= lr * (d + momentum * buffer)`` with `nesterov`.

    Parameters
    ----------
    params : iterable
        Parameters, or groups; see `Optimizer`.
    lr : float, optional
        The learning rate.
    momentum, dampening, weight_decay : float, optional
        See above.
    nesterov : bool, optional
        Nesterov momentum (Sutskever et al. 2013); needs momentum and no dampening.
    maximize : bool, optional
        Go up the gradient.
    foreach, differentiable, fused : optional
        Accepted for programs written for PyTorch; they change nothing.
    """

    _moments = _optional = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        check_number(options["lr"], "learning rate")
        check_number(options["momentum"], "momentum value")
        check_number(options["weight_decay"], "weight_decay value")
        check_number(options["dampening"], "dampening value", -1e30)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def _wants(self, name: str, options: Mapping[str, Any]) -> bool:
        return options["momentum"] != 0

    def _step(self, rows: list[tuple], groups: list[Mapping[str, Any]]) -> None:
        names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
        _core.sgd_step(rows, [tuple(group[name] for name in names) for group in groups])


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, algorithm 1).

    SGD for large batches. For each tensor, with the gradient g and the weights p:
    ``ratio = trust_coeff * |p| / (|g| + weight_decay * |p| + eps)``;
    ``buffer = momentum * buffer + lr * ratio * (g + weight_decay * p)``; ``p -= buffer``.

    Parameters
    ----------
    params : iterable
        Parameters, or groups; see `Optimizer`.
    lr : float, optional
        The global learning rate. As in the paper it is part of what momentum accumulates.
    momentum, weight_decay : float, optional
        See above.
    trust_coeff : float, optional
        How far to trust that a tensor can change in one step (eta in the paper).
    eps : float, optional
        Keeps the denominator away from zero.
    always_adapt : bool, optional
        Use the ratio for groups without weight decay too. By default it is 1 there, as it is for
        tensors whose weights or gradients are all zero: those groups hold biases and batch norm,
        see `param_groups_weight_decay`.
    maximize : bool, optional
        Go up the gradient.
    """

    _moments = _optional = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0,
        trust_coeff: float = 0.001,
        eps: float = 1e-8,
        *,
        always_adapt: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coeff": trust_coeff,
                "eps": eps,
                "always_adapt": always_adapt,
                "maximize": maximize,
            },
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        check_number(options["lr"], "learning rate")
        check_number(options["momentum"], "momentum value")
        check_number(options["weight_decay"], "weight_decay value")
        check_number(options["trust_coeff"], "trust_coeff value")
        check_number(options["eps"], "epsilon value")

    def _wants(self, name: str, options: Mapping[str, Any]) -> bool:
        return options["momentum"] != 0

    def _step(self, rows: list[tuple], groups: list[Mapping[str, Any]]) -> None:
        names = ("lr", "momentum", "weight_decay", "trust_coeff", "eps", "always_adapt", "maximize")
        _core.lars_step(rows, [tuple(group[name] for name in names) for group in groups])
