"""Random tensors, and the seed that initial weights are drawn from.

Numbers are counter-based: each call and each model that is built takes the next stream of the
seed, so a program that starts with `seed` gives the same numbers on every machine.
"""

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from . import _core
from ._tensor import Tensor

__all__ = ["get_state", "rand", "randn", "seed", "set_state"]

_MASK = (1 << 64) - 1
_lock = Lock()
_seed = 0
_next_stream = 0


def _renew_lock() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):  # another thread may hold it at that moment
    os.register_at_fork(after_in_child=_renew_lock)


def seed(value: int = 0) -> None:
    """Set the seed and start again with its first stream.

    Parameters
    ----------
    value : int, optional
        Of any size; its lowest 64 bits count. Without a call the seed is 0.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__index__"):
        raise TypeError(f"the seed must be an integer, not {value!r}")
    _set(operator.index(value) & _MASK, 0)


def _set(seed: int, stream: int) -> None:
    global _seed, _next_stream
    with _lock:
        _seed, _next_stream = seed, stream


def _take() -> tuple[int, int]:
    """Return the seed and a stream of it that nobody else gets."""
    global _next_stream
    with _lock:
        taken = _seed, _next_stream
        _next_stream += 1
    return taken


def get_state() -> dict[str, int]:
    """Return the state of the random numbers: ``"seed"`` and the next ``"stream"``."""
    with _lock:
        return {"seed": _seed, "stream": _next_stream}


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
    _set(*values)


def next_seed() -> int:
    """Return a seed for the next module: 64 bits mixed from the seed and the next stream."""
    seed, stream = _take()
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
    return Tensor(function(tuple(sizes), *_take(), 0))
