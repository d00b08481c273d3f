"""Random tensors, and the seed that initial weights are drawn from.

Numbers are counter-based: each call and each model that is built takes the next stream of the
seed, so a program that starts with `seed` gives the same numbers on every machine.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from . import _core
from ._tensor import Tensor

__all__ = ["rand", "randn", "seed"]

_MASK = (1 << 64) - 1
_seed = 0
_streams = count()


def seed(value: int = 0) -> None:
    """Set the seed and start again with its first stream.

    Parameters
    ----------
    value : int, optional
        Of any size; its lowest 64 bits count. Without a call the seed is 0.
    """
    global _seed, _streams
    if isinstance(value, (bool, str)) or not hasattr(value, "__index__"):
        raise TypeError(f"the seed must be an integer, not {value!r}")
    _seed, _streams = operator.index(value) & _MASK, count()


def next_seed() -> int:
    """Return a seed for the next module: 64 bits mixed from the seed and the next stream."""
    z = (_seed + (next(_streams) + 1) * 0x9E3779B97F4A7C15) & _MASK  # SplitMix64
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
    return Tensor(function(tuple(sizes), _seed, next(_streams), 0))
