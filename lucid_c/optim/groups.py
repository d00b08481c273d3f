# SPDX-License-Identifier: MIT
"""Which parameters decay."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..nn import Module


def param_groups_weight_decay(
    model: Module, weight_decay: float = 1e-5, no_weight_decay_list: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: without weight decay, and with it.

    Biases and the scales and shifts of batch norm (everything of one dimension) do not decay, as
    in timm's function of this name (He et al. 2019, "Bag of tricks", section 3.1).

    Parameters
    ----------
    model : Module
        The model; parameters that require no gradient are left out.
    weight_decay : float, optional
        Of the second group.
    no_weight_decay_list : collection of str, optional
        Names of further parameters that do not decay.

    Returns
    -------
    list of dict
        Groups; one without parameters stays, so that their number is always two.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, not {type(model).__name__}")
    still, decaying = [], []
    for name, param in model.named_parameters():
        if param.requires_grad:
            fixed = param.ndim <= 1 or name.endswith(".bias") or name in no_weight_decay_list
            (still if fixed else decaying).append(param)
    return [
        {"params": still, "weight_decay": 0.0},
        {"params": decaying, "weight_decay": weight_decay},
    ]
