"""The methods of tensors that move numbers without changing them.

They are recorded for values that are not computed yet and for parameters; the rest gets a view of
its array, as in NumPy and PyTorch.
"""

import operator
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from . import _core

if TYPE_CHECKING:
    from ._tensor import Tensor


def axis_of(dim: int, ndim: int) -> int:
    """Return the axis that ``dim`` names in a tensor of ``ndim`` dimensions."""
    count = max(ndim, 1)
    if not -count <= operator.index(dim) < count:
        raise IndexError(f"axis {dim} is out of range for a tensor of {ndim} dimensions")
    return dim % count


def sizes_of(shape: tuple) -> tuple:
    """Return the sizes that were given one by one or as one sequence."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape


def _is_basic(part: Any) -> bool:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return True
    return hasattr(part, "__index__") and not isinstance(part, (bool, np.bool, np.ndarray, Shaping))


def basic_index(index: Any, shape: tuple[int, ...]) -> tuple[list, list, list, list] | None:
    """Work out an index of whole numbers, slices, ``...`` and None; None for any other.

    Returns
    -------
    start, step, count : list of int
        What is taken along each axis.
    sizes : list of int
        The shape of the result: without the axes of whole numbers, with those of None.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if not all(map(_is_basic, parts)):
        return None
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > len(shape) or sum(part is Ellipsis for part in parts) > 1:
        raise IndexError(f"index {index} does not fit a tensor of shape {shape}")
    where = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    start, step, count, sizes = [], [], [], []
    for part in (*parts[:where], *[slice(None)] * (len(shape) - used), *parts[where + 1 :]):
        if part is None:
            sizes.append(1)
            continue
        axis, size = len(start), shape[len(start)]
        if isinstance(part, slice):
            span = range(*part.indices(size))
            start.append(span.start if span else 0)
            step.append(span.step)
            count.append(len(span))
            sizes.append(len(span))
            continue
        place = operator.index(part)
        if not -size <= place < size:
            raise IndexError(f"index {place} is out of range for axis {axis} of size {size}")
        start.append(place % size)
        step.append(1)
        count.append(1)
    return start, step, count, sizes


class Shaping:
    """Shape, slices, copies and conversions."""

    __slots__ = ()

    def _move(self, view: Callable[[np.ndarray], Any], record: Callable[[], Any]) -> "Tensor":
        return record() if self._records else self._wrap(view(self._array()))

    @staticmethod
    def _wrap(array: np.ndarray) -> "Tensor":
        from ._tensor import Tensor

        return Tensor(array)

    def reshape(self, *shape: Any) -> "Tensor":
        """Return the same numbers, in the same order, in another shape; one size may be -1."""
        sizes = sizes_of(shape)
        if any(size < -1 for size in sizes):
            raise ValueError(f"sizes are at least 0, or -1 once, got {sizes}")
        return self._move(lambda a: a.reshape(sizes), lambda: _core.reshape(self, sizes))

    def view(self, *shape: Any) -> "Tensor":
        """Return `reshape` of the tensor."""
        return self.reshape(*shape)

    def view_as(self, other: "Tensor") -> "Tensor":
        """Return the tensor in the shape of another one."""
        return self.reshape(other.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor":
        """Return the tensor with the axes from ``start_dim`` to ``end_dim`` made one."""
        shape = self.shape
        start, end = axis_of(start_dim, len(shape)), axis_of(end_dim, len(shape))
        if start > end:
            raise ValueError(f"start_dim {start_dim} comes after end_dim {end_dim}")
        middle = 1
        for size in shape[start : end + 1]:
            middle *= size
        return self.reshape(*shape[:start], middle, *shape[end + 1 :])

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> "Tensor":
        """Return the tensor without its axes of size 1, or without those named."""
        shape = self.shape
        dims = range(len(shape)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
        gone = {axis_of(d, len(shape)) for d in dims}
        return self.reshape([s for i, s in enumerate(shape) if s != 1 or i not in gone])

    def unsqueeze(self, dim: int) -> "Tensor":
        """Return the tensor with an axis of size 1 put in."""
        shape = list(self.shape)
        shape.insert(axis_of(dim, len(shape) + 1), 1)
        return self.reshape(shape)

    def permute(self, *dims: Any) -> "Tensor":
        """Return the tensor with its axes in the order given."""
        axes = sizes_of(dims)
        return self._move(lambda a: a.transpose(axes), lambda: _core.permute(self, axes))

    def transpose(self, dim0: int, dim1: int) -> "Tensor":
        """Return the tensor with two axes exchanged."""
        axes = list(range(len(self.shape)))
        a, b = axis_of(dim0, len(axes)), axis_of(dim1, len(axes))
        if axes:
            axes[a], axes[b] = b, a
        return self.permute(axes)

    def t(self) -> "Tensor":
        """Return the transpose of a tensor of at most two dimensions."""
        if len(self.shape) > 2:
            raise ValueError(f"t() takes at most 2 dimensions, got shape {self.shape}")
        return self.T

    @property
    def T(self) -> "Tensor":
        """The tensor with its axes in reverse order."""
        return self.permute(list(reversed(range(len(self.shape)))))

    def expand(self, *sizes: Any) -> "Tensor":
        """Return the tensor repeated along axes of size 1; -1 keeps a size."""
        shape, wanted = self.shape, sizes_of(sizes)
        new = len(wanted) - len(shape)
        full = tuple(
            shape[i - new] if size == -1 and i >= new else size for i, size in enumerate(wanted)
        )
        return self._move(lambda a: np.broadcast_to(a, full), lambda: _core.expand(self, full))

    def expand_as(self, other: "Tensor") -> "Tensor":
        """Return the tensor repeated to the shape of another one."""
        return self.expand(other.shape)

    def split(self, split_size: Any, dim: int = 0) -> tuple["Tensor", ...]:
        """Return parts of one size along an axis (the last may be smaller), or of several sizes."""
        axis = axis_of(dim, len(self.shape))
        total = self.shape[axis]
        if isinstance(split_size, (tuple, list)):
            sizes = list(split_size)
            if any(size < 0 for size in sizes) or sum(sizes) != total:
                raise ValueError(f"parts of sizes {split_size} do not make an axis of size {total}")
        else:
            each = operator.index(split_size)
            if each < 1:
                raise ValueError(f"the size of a part must be at least 1, got {each}")
            sizes = [each] * (total // each) + [total % each] * (total % each > 0) or [0]
        ends = list(accumulate(sizes))
        before = (slice(None),) * axis
        return tuple(self[(*before, slice(e - n, e))] for n, e in zip(sizes, ends, strict=True))

    def chunk(self, chunks: int, dim: int = 0) -> tuple["Tensor", ...]:
        """Return at most ``chunks`` parts of equal size along an axis (the last smaller)."""
        if chunks < 1:
            raise ValueError(f"chunks must be at least 1, got {chunks}")
        size = -(-self.shape[axis_of(dim, len(self.shape))] // chunks)
        return self.split(size or 1, dim)

    def __getitem__(self, index: Any) -> "Tensor":
        from ._tensor import plain

        found = basic_index(index, self.shape) if self._records else None
        if found is None:
            parts = index if isinstance(index, tuple) else (index,)
            parts = tuple(p._array() if isinstance(p, Shaping) else p for p in parts)
            return self._wrap(plain(self)[parts if isinstance(index, tuple) else parts[0]])
        start, step, count, sizes = found
        result = _core.slice(self, start, step, count)
        return result if count == sizes else _core.reshape(result, sizes)

    # --- copies

    def clone(self) -> "Tensor":
        """Return a copy."""
        if self._records:
            return _core.reshape(self, self.shape)
        return self._wrap(np.array(self._array()))

    def detach(self) -> "Tensor":
        """Return the numbers without what they were computed from: no gradient flows through."""
        return _core.detach(self) if self._recorded else self._wrap(self._array())

    def contiguous(self) -> "Tensor":
        """Return the tensor in C order."""
        if self._records or self._array().flags.c_contiguous:
            return self
        return self._wrap(np.ascontiguousarray(self._array()))

    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order."""
        return self._recorded or self._array().flags.c_contiguous

    # --- types

    def to(self, target: DTypeLike, **_: Any) -> "Tensor":
        """Return the tensor as another type (float32, integer or bool); ``"cpu"`` is as it is."""
        if str(target) == "cpu" or target == self.dtype:
            return self
        if str(target).partition(":")[0] in ("cuda", "mps", "xpu"):
            raise ValueError(f"lucid_c computes on CPUs only, not on {str(target)!r}")
        if np.dtype(target).kind not in "iub" and np.dtype(target) != np.float32:
            raise ValueError(f"floats are float32 in lucid_c, not {np.dtype(target)}")
        return self._wrap(self._array().astype(target))

    def cpu(self) -> "Tensor":
        """Return the tensor itself."""
        return self

    def float(self) -> "Tensor":
        """Return the tensor as float32."""
        return self.to(np.float32)

    def long(self) -> "Tensor":
        """Return the tensor as int64."""
        return self.to(np.int64)

    def int(self) -> "Tensor":
        """Return the tensor as int32."""
        return self.to(np.int32)

    def bool(self) -> "Tensor":
        """Return the tensor as bool."""
        return self.to(np.bool)
