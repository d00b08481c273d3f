"""Functions on tensors, with PyTorch's names and arguments, those of `nn.functional` included.

Each takes tensors, arrays, nested lists and numbers, and returns tensors. One float32 operand makes
the result float32; arrays of floats are computed as float32; tensors of other types keep theirs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._tensor import Tensor, arithmetic, as_single, as_tensor
from .nn.functional import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    batch_norm,
    conv2d,
    dropout,
    linear,
    log_softmax,
    max_pool2d,
    pad,
    relu,
    sigmoid,
    softmax,
    tanh,
    whole,
)

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "argmax",
    "argmin",
    "avg_pool2d",
    "batch_norm",
    "cat",
    "chunk",
    "clamp",
    "conv2d",
    "div",
    "dropout",
    "exp",
    "expand",
    "flatten",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "neg",
    "pad",
    "permute",
    "pow",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "unsqueeze",
]


def _binary(kind: str, a: Any, b: Any) -> Tensor:
    a = as_tensor(a)
    return arithmetic(kind, a, b if isinstance(b, (int, float)) else as_tensor(b))


def add(input: ArrayLike, other: ArrayLike, *, alpha: float = 1) -> Tensor:
    """Return ``input + alpha * other`` with broadcasting."""
    return _binary("add", input, other if alpha == 1 else mul(other, alpha))


def sub(input: ArrayLike, other: ArrayLike, *, alpha: float = 1) -> Tensor:
    """Return ``input - alpha * other`` with broadcasting."""
    return _binary("sub", input, other if alpha == 1 else mul(other, alpha))


def mul(input: ArrayLike, other: ArrayLike) -> Tensor:
    """Return ``input * other`` with broadcasting."""
    return _binary("mul", input, other)


def div(input: ArrayLike, other: ArrayLike, *, rounding_mode: str | None = None) -> Tensor:
    """Return ``input / other`` with broadcasting.

    ``rounding_mode`` is None, ``"floor"`` (round down) or ``"trunc"`` (round towards zero).
    """
    if rounding_mode is None:
        return _binary("div", input, other)
    return as_tensor(input).div(
        other if isinstance(other, (int, float)) else as_tensor(other), rounding_mode=rounding_mode
    )


def pow(input: ArrayLike, exponent: ArrayLike) -> Tensor:
    """Return ``input ** exponent`` with broadcasting."""
    return _binary("pow", input, exponent)


def maximum(input: ArrayLike, other: ArrayLike) -> Tensor:
    """Return the larger at each place, with broadcasting; NaN wins."""
    return _binary("maximum", input, other)


def minimum(input: ArrayLike, other: ArrayLike) -> Tensor:
    """Return the smaller at each place, with broadcasting; NaN wins."""
    return _binary("minimum", input, other)


def matmul(input: ArrayLike, other: ArrayLike) -> Tensor:
    """Return the matrix product, with the rules of `numpy.matmul`."""
    return as_tensor(input).matmul(as_tensor(other))


def neg(input: ArrayLike) -> Tensor:
    """Return the negative."""
    return as_tensor(input).neg()


def abs(input: ArrayLike) -> Tensor:
    """Return the magnitude."""
    return as_tensor(input).abs()


def exp(input: ArrayLike) -> Tensor:
    """Return e to the power of the elements."""
    return as_tensor(input).exp()


def log(input: ArrayLike) -> Tensor:
    """Return the natural logarithm."""
    return as_tensor(input).log()


def sqrt(input: ArrayLike) -> Tensor:
    """Return the square root."""
    return as_tensor(input).sqrt()


def clamp(input: ArrayLike, min: Any = None, max: Any = None) -> Tensor:
    """Return the elements limited to [min, max], numbers or tensors; None leaves a side open."""
    return as_tensor(input).clamp(min, max)


def sum(input: ArrayLike, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the sum of all elements, or over one axis or several."""
    return as_tensor(input).sum(dim, keepdim)


def mean(input: ArrayLike, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the mean of all elements, or over one axis or several."""
    return as_tensor(input).mean(dim, keepdim)


def max(input: ArrayLike, dim: Any = None, keepdim: bool = False) -> Any:
    """Return the largest element, or (values, indices) along one axis."""
    return as_tensor(input).max(dim, keepdim)


def min(input: ArrayLike, dim: Any = None, keepdim: bool = False) -> Any:
    """Return the smallest element, or (values, indices) along one axis."""
    return as_tensor(input).min(dim, keepdim)


def argmax(input: ArrayLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return where the largest element is; the first of equals, and NaN counts as largest."""
    return as_tensor(input).argmax(dim, keepdim)


def argmin(input: ArrayLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return where the smallest element is; the first of equals, and NaN counts as smallest."""
    return as_tensor(input).argmin(dim, keepdim)


def reshape(input: ArrayLike, shape: Sequence[int]) -> Tensor:
    """Return the same numbers, in the same order, in another shape; one size may be -1."""
    return as_tensor(input).reshape(shape)


def flatten(input: ArrayLike, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Return the tensor with the axes from ``start_dim`` to ``end_dim`` made one."""
    return as_tensor(input).flatten(start_dim, end_dim)


def squeeze(input: ArrayLike, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Return the tensor without its axes of size 1, or without those named."""
    return as_tensor(input).squeeze(dim)


def unsqueeze(input: ArrayLike, dim: int) -> Tensor:
    """Return the tensor with an axis of size 1 put in."""
    return as_tensor(input).unsqueeze(dim)


def transpose(input: ArrayLike, dim0: int, dim1: int) -> Tensor:
    """Return the tensor with two axes exchanged."""
    return as_tensor(input).transpose(dim0, dim1)


def permute(input: ArrayLike, dims: Sequence[int]) -> Tensor:
    """Return the tensor with its axes in the order given."""
    return as_tensor(input).permute(dims)


def expand(input: ArrayLike, size: Sequence[int]) -> Tensor:
    """Return the tensor repeated along axes of size 1; -1 keeps a size."""
    return as_tensor(input).expand(size)


def cat(tensors: Sequence[ArrayLike], dim: int = 0) -> Tensor:
    """Join tensors along an axis; their other sizes are equal.

    One float32 tensor makes the result float32. Empty tensors of shape (0,) are passed over.
    """
    items, dim = [as_tensor(each) for each in tensors], whole(dim, "dim")
    single = any(each._is_float32 for each in items)
    items = [each for each in items if each.shape != (0,)] or items[:1]
    if not items or single:
        return _core.cat([as_single(each) for each in items], dim)
    return Tensor(np.concatenate([each._array() for each in items], dim))


def stack(tensors: Sequence[ArrayLike], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    return cat([unsqueeze(each, dim) for each in tensors], dim)


def split(
    tensor: ArrayLike, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Cut a tensor along an axis into parts of one size (the last may be smaller), or of several.

    Parameters
    ----------
    tensor : array_like
        Any shape.
    split_size_or_sections : int or sequence of int
        The size of each part, or all sizes.
    dim : int
        The axis.
    """
    return as_tensor(tensor).split(split_size_or_sections, dim)


def chunk(input: ArrayLike, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut a tensor along an axis into at most ``chunks`` parts of equal size (the last smaller)."""
    return as_tensor(input).chunk(chunks, dim)
