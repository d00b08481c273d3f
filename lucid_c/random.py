"""Random tensors, and the seed that initial weights and dropout are drawn from.

Numbers are counter-based: each call, each model that is built and each dropout in a forward takes
the next stream of the seed, so a program that starts with `seed` gives the same numbers on every machine.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from ._tensor import Tensor

__all__ = ["get_state", "rand", "randn", "seed", "set_state"]

_MASK = (1 << 64) - 1


def seed(value: int = 0) -> None:
    """Set the seed and start again with its first stream.

    Parameters
    ----------
    value : int, optional
        Of any size; its lowest 64 bits count. Without a call the seed is 0.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__index__"):
        raise TypeError(f"the seed must be an integer, not {value!r}")
    _core.random_set(operator.index(value) & _MASK, 0)


def get_state() -> dict[str, int]:
    """Return the state of the random numbers: ``"seed"`` and the next ``"stream"``."""
    return dict(zip(("seed", "stream"), _core.random_get(), strict=True))


def set_state(state: Mapping[str, Any]) -> None:
    """Go on where `get_state` was called.

    Parameters
    ----------
    state : Mapping
        What `get_state` returned.
    """
    names = ("seed", "stream")
    if not isinstance(state, Mapping) or set(state) != set(names):
        raise ValueError(f"the state must have 'seed' and 'stream', not {state!r}")
    values = [state[name] for name in names]
    for name, value in zip(names, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MASK:
            raise ValueError(f"{name!r} must be an integer of 64 bits, not {value!r}")
    _core.random_set(*values)


def next_seed() -> int:
    """Return a seed for the next module: 64 bits mixed from the seed and the next stream."""
    seed, stream = _core.random_take()
    z = (seed + (stream + 1) * 0x9E3779B97F4A7C15) & _MASK  # SplitMix64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def randn(*shape: int | Sequence[int]) -> Tensor:
    """Return a float32 tensor of normal numbers, mean 0 and variance 1.

    Parameters
    ----------
    *shape : int or sequence of int
        Sizes, one by one or as one sequence.
    """
    return _draw(_core.random_normal, shape)


def rand(*shape: int | Sequence[int]) -> Tensor:
    """Return a float32 tensor of uniform numbers in [0, 1).

    Parameters
    ----------
    *shape : int or sequence of int
        Sizes, one by one or as one sequence.
    """
    return _draw(_core.random_uniform, shape)


def _draw(function: Callable[..., np.ndarray], shape: tuple) -> Tensor:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(hasattr(size, "__index__") for size in sizes):
        raise TypeError(f"the shape must be integers, not {sizes!r}")
    return Tensor(function(tuple(sizes), *_core.random_take(), 0))
