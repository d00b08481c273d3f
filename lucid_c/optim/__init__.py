# SPDX-License-Identifier: MIT
"""Optimizers, learning-rate schedules and averages of weights, with PyTorch's names.

A step is one pass over the memory of all parameters. It gives the same bits for every number of
threads, and on every instruction set.
"""

from . import lr_scheduler
from .adam import LAMB, Adam, AdamW
from .ema import EMA
from .groups import param_groups_weight_decay
from .optimizer import Optimizer
from .sgd import LARS, SGD

__all__ = [
    "EMA",
    "LAMB",
    "LARS",
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "lr_scheduler",
    "param_groups_weight_decay",
]
