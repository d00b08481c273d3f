# SPDX-License-Identifier: MIT
"""Random generators that depend on a seed and a position alone, and who asks for one."""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

ORDER, SAMPLE, BATCH, SPLIT = range(4)  # what a generator is for; each has its own streams


def check_seed(seed: Any) -> int:
    """Return the seed as an int, or raise: an integer from 0 to 2^64 - 1."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an integer, not {seed!r}")
    seed = operator.index(seed)
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, not {seed}")
    return seed


def generator(seed: int, *position: int) -> np.random.Generator:
    """Return a generator of its own for one position, for example (SAMPLE, epoch, index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=position)))


def takes_rng(function: Callable) -> bool:
    """Whether a callable has a parameter named ``rng``."""
    try:
        return "rng" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False
