"""The methods of tensors that reduce axes.

NumPy's functions call them with ``axis``, ``keepdims``, ``out`` and ``dtype``: `np.max` of a tensor
works.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core

if TYPE_CHECKING:
    from ._tensor import Tensor


class MaxResult(NamedTuple):
    """What `Reducing.max` and `Reducing.min` give along an axis."""

    values: "Tensor"
    indices: "Tensor"


class Reducing:
    """Sums, means and extremes."""

    __slots__ = ()

    def _reduce(
        self, kind: str, dim: Any, keepdim: bool, axis: Any = None, out: Any = None, **other: Any
    ) -> "Tensor":
        keepdim = bool(other.pop("keepdims", keepdim))
        wrong = [key for key, value in other.items() if key != "dtype" or value is not None]
        if wrong or out is not None:
            raise TypeError(f"{kind}() does not take {wrong[0] if wrong else 'out'!r}")
        dim = axis if dim is None else dim
        dim = tuple(dim) if isinstance(dim, list) else dim
        if self._is_float32:
            return _core.reduce(kind, self, dim, keepdim)
        axes = None if dim == () else dim
        return self._wrap(getattr(np, kind)(self._array(), axis=axes, keepdims=keepdim))

    def sum(self, dim: Any = None, keepdim: bool = False, **other: Any) -> "Tensor":
        """Return the sum of all elements, or over one axis or several."""
        return self._reduce("sum", dim, keepdim, **other)

    def mean(self, dim: Any = None, keepdim: bool = False, **other: Any) -> "Tensor":
        """Return the mean of all elements, or over one axis or several."""
        return self._reduce("mean", dim, keepdim, **other)

    def argmax(self, dim: int | None = None, keepdim: bool = False, **other: Any) -> "Tensor":
        """Return where the largest element is, along an axis or in the flattened tensor."""
        return self._reduce("argmax", dim, keepdim, **other)

    def argmin(self, dim: int | None = None, keepdim: bool = False, **other: Any) -> "Tensor":
        """Return where the smallest element is, along an axis or in the flattened tensor."""
        return (-self).argmax(dim, keepdim, **other)

    def all(self, dim: Any = None, keepdim: bool = False, **other: Any) -> "Tensor":
        """Return whether no element is zero or False, of all or along an axis."""
        return self._test(np.all, dim, keepdim, **other)

    def any(self, dim: Any = None, keepdim: bool = False, **other: Any) -> "Tensor":
        """Return whether an element is not zero or False, of all or along an axis."""
        return self._test(np.any, dim, keepdim, **other)

    def _test(
        self,
        function: Any,
        dim: Any,
        keepdim: bool,
        axis: Any = None,
        keepdims: bool = False,
        **_: Any,
    ) -> "Tensor":
        dim = axis if dim is None else dim
        dim = tuple(dim) if isinstance(dim, list) else dim
        return self._wrap(function(self._array(), axis=dim, keepdims=bool(keepdim or keepdims)))

    def max(self, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
        """Return the largest element, or (values, indices) along one axis.

        With another tensor instead of an axis, the larger of the two at each place.
        """
        return self._extreme("max", dim, keepdim, other)

    def min(self, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
        """Return the smallest element, or (values, indices) along one axis.

        With another tensor instead of an axis, the smaller of the two at each place.
        """
        return self._extreme("min", dim, keepdim, other)

    def _extreme(self, kind: str, dim: Any, keepdim: bool, other: dict) -> Any:
        if isinstance(dim, (_core.Tensor, np.ndarray)):
            return getattr(self, kind + "imum")(dim)
        values = self._reduce(kind, dim, keepdim, **other)
        if dim is None or isinstance(dim, (tuple, list)):
            return values
        return MaxResult(values, getattr(self, "arg" + kind)(dim, keepdim))
