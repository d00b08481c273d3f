# SPDX-License-Identifier: MIT
"""Limit gradients by their norm or by their values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ... import _core
from ..._tensor import Parameter, Tensor


def _with_grad(parameters: Any) -> list[Parameter]:
    parameters = [parameters] if isinstance(parameters, _core.Tensor) else list(parameters)
    for each in parameters:
        if not isinstance(each, Parameter):
            raise TypeError(f"parameters are expected, not {type(each).__name__}")
    return [each for each in parameters if _core.has_grad(each)]


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients down so that the norm of all of them together is at most `max_norm`.

    Gradients are changed in place; a tensor read from ``grad`` before keeps its numbers.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient are passed over.
    max_norm : float
        The largest norm that is let through.
    norm_type : float, optional
        2, ``inf`` for the largest magnitude, or another power. Only 2 is computed in C.
    error_if_nonfinite : bool, optional
        Whether a norm that is NaN or infinite is an error. Otherwise the gradients become NaN or
        zero, as PyTorch's do.
    foreach : optional
        Accepted for programs written for PyTorch; changes nothing.

    Returns
    -------
    Tensor
        The norm before, without dimensions.

    Raises
    ------
    RuntimeError
        If the norm is not finite and `error_if_nonfinite` is set; the gradients stay as they were.
    """
    params = _with_grad(parameters)
    max_norm, norm_type = float(max_norm), float(norm_type)
    if not norm_type > 0:
        raise ValueError(f"norm_type must be positive, got {norm_type}")
    norm = _total_norm(params, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, "
            "so it cannot be clipped. To disable this error and scale the gradients by the "
            "non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1.0:
        _core.grads_scale(params, factor)
    with np.errstate(over="ignore"):
        return Tensor(np.float32(norm))


def _total_norm(params: list[Parameter], norm_type: float) -> float:
    if norm_type == 2.0:
        return _core.grads_norm(params)
    if not params:
        return 0.0
    grads = [np.abs(each.grad.numpy().astype(np.float64)) for each in params]
    if norm_type == math.inf:
        return float(max(grad.max(initial=0.0) for grad in grads))
    with np.errstate(all="ignore"):
        return float(sum((grad**norm_type).sum() for grad in grads) ** (1.0 / norm_type))


def clip_grad_value_(
    parameters: Iterable[Parameter] | Parameter, clip_value: float, foreach: bool | None = None
) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value].

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient are passed over.
    clip_value : float
        The largest magnitude that is let through; NaN in a gradient stays.
    foreach : optional
        Accepted for programs written for PyTorch; changes nothing.
    """
    clip_value = float(clip_value)
    if not clip_value >= 0:
        raise ValueError(f"clip_value must not be negative, got {clip_value}")
    _core.grads_clamp(_with_grad(parameters), clip_value)
