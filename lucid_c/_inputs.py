"""Inputs of functions that look at a model: an array, or a shape that stands for one."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .nn import Module


def check_model(model: Any) -> Module:
    """Return a module; TypeError for anything else."""
    if not isinstance(model, Module):
        raise TypeError(f"model must be a lucid_c.nn.Module, not {type(model).__name__}")
    return model


def is_shape(x: Any) -> bool:
    """Whether this is a sequence of whole numbers, which no input of a model is."""
    return (
        isinstance(x, (tuple, list))
        and bool(x)
        and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in x)
    )


def check_shape(shape: Sequence[int], what: str = "the shape") -> tuple[int, ...]:
    """Return a shape as a tuple of positive ints."""
    if not is_shape(shape):
        raise TypeError(f"{what} must be a tuple of integers such as (1, 3, 224, 224): {shape!r}")
    sizes = tuple(operator.index(n) for n in shape)
    if min(sizes) < 1:
        raise ValueError(f"{what} must have positive sizes, not {sizes}")
    return sizes


def example_shape(x: ArrayLike | Sequence[int]) -> tuple[int, ...]:
    """Return the shape that was given, or that of the array that was given."""
    return check_shape(x) if is_shape(x) else check_shape(np.shape(x), "the input's shape")


def example(x: ArrayLike | Sequence[int]) -> Any:
    """Return the input itself, or random numbers where a shape was given."""
    if not is_shape(x):
        return x
    return np.random.default_rng(0).standard_normal(check_shape(x), dtype=np.float32)


@contextmanager
def eval_mode(model: Module) -> Iterator[None]:
    """Put a model into eval mode, and each of its modules back as it was at the end."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module._set_training(False)
    try:
        yield
    finally:
        for module in training:
            module._set_training(True)
