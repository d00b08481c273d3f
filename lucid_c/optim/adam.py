# SPDX-License-Identifier: MIT
"""Adam, AdamW, and LAMB, which scales Adam's direction tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _core
from .optimizer import Optimizer, check_number


def _check_moments(options: Mapping[str, Any]) -> None:
    check_number(options["lr"], "learning rate")
    check_number(options["eps"], "epsilon value")
    check_number(options["weight_decay"], "weight_decay value")
    betas = options["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers, not {betas!r}")
    for i, beta in enumerate(betas):
        check_number(beta, f"beta parameter at index {i}", high=1.0, open_end=True)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), as PyTorch has it.

    Parameters
    ----------
    params : iterable
        Parameters, or groups; see `Optimizer`.
    lr : float, optional
        The learning rate.
    betas : tuple of float, optional
        How much of the two running averages, of the gradient and of its square, is kept.
    eps : float, optional
        Added to the denominator.
    weight_decay : float, optional
        Times the weights, added to the gradient; or subtracted from the weights themselves, times
        the learning rate, with `decoupled_weight_decay`.
    amsgrad : bool, optional
        Divide by the largest second moment so far (Reddi et al. 2018).
    maximize : bool, optional
        Go up the gradient.
    decoupled_weight_decay : bool, optional
        See `weight_decay`.
    foreach, capturable, differentiable, fused : optional
        Accepted for programs written for PyTorch; they change nothing.
    """

    _moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _optional = ("max_exp_avg_sq",)
    _counts_steps = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        _check_moments(options)

    def _wants(self, name: str, options: Mapping[str, Any]) -> bool:
        return name != "max_exp_avg_sq" or bool(options["amsgrad"])

    def _step(self, rows: list[tuple], groups: list[Mapping[str, Any]]) -> None:
        names = ("eps", "weight_decay", "decoupled_weight_decay", "maximize")
        options = [(g["lr"], *g["betas"], *(g[name] for name in names)) for g in groups]
        _core.adam_step(rows, options)


class AdamW(Adam):
    """Adam with weight decay of its own (Loshchilov and Hutter 2019), as PyTorch has it.

    Parameters
    ----------
    params : iterable
        Parameters, or groups; see `Optimizer`.
    lr : float, optional
        The learning rate.
    betas : tuple of float, optional
        How much of the two running averages, of the gradient and of its square, is kept.
    eps : float, optional
        Added to the denominator.
    weight_decay : float, optional
        Times the learning rate and the weights, subtracted from the weights.
    amsgrad, maximize : bool, optional
        As for `Adam`.
    foreach, capturable, differentiable, fused : optional
        Accepted for programs written for PyTorch; they change nothing.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )


class LAMB(Optimizer):
    """Adam for large batches, scaled tensor by tensor (You et al. 2020, algorithm 2).

    For each tensor, with the weights p and Adam's direction r (both moments corrected for their
    start at zero): ``u = r + weight_decay * p``; ``p -= lr * |p| / |u| * u``.

    Parameters
    ----------
    params : iterable
        Parameters, or groups; see `Optimizer`.
    lr : float, optional
        The learning rate.
    betas : tuple of float, optional
        How much of the two running averages, of the gradient and of its square, is kept.
    eps : float, optional
        Added to the denominator of r.
    weight_decay : float, optional
        See above.
    bias_correction : bool, optional
        Whether the moments are corrected.
    always_adapt : bool, optional
        Use the ratio of norms for groups without weight decay too. By default it is 1 there, as
        it is for tensors whose weights or u are all zero: those groups hold biases and batch
        norm, see `param_groups_weight_decay`.
    maximize : bool, optional
        Go up the gradient.
    """

    _moments = ("exp_avg", "exp_avg_sq")
    _counts_steps = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        always_adapt: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "bias_correction": bias_correction,
                "always_adapt": always_adapt,
                "maximize": maximize,
            },
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        _check_moments(options)

    def _step(self, rows: list[tuple], groups: list[Mapping[str, Any]]) -> None:
        names = ("eps", "weight_decay", "bias_correction", "always_adapt", "maximize")
        options = [(g["lr"], *g["betas"], *(g[name] for name in names)) for g in groups]
        _core.lamb_step(rows, options)
