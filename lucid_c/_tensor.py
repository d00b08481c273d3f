"""Tensors: NumPy arrays that also stand for values that are recorded but not computed yet."""

import math
import weakref
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _core
from ._gradients import Gradients
from ._reducing import Reducing
from ._shaping import Shaping, axis_of

__all__ = ["Parameter", "Tensor", "from_dlpack", "from_numpy", "tensor"]

_FLOAT32 = np.dtype(np.float32)
_NUMPY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "neg": np.negative,
    "abs": np.absolute,
}
_OPERANDS = (_core.Tensor, int, float, np.ndarray, np.generic)


def contents(x: Any) -> Any:
    """Return the array of a tensor, and anything else as it is."""
    return x._array() if isinstance(x, _core.Tensor) else x


def plain(x: Any) -> Any:
    """Return `contents` for what NumPy computes: where a gradient would be cut, it is an error."""
    array = contents(x)
    if isinstance(x, _core.Tensor) and x._records and not x._is_param:
        raise RuntimeError(
            "this operation has no gradient, and its operand requires one; use detach(), or "
            "compute under no_grad()"
        )
    return array


def as_tensor(x: Any) -> "Tensor":
    """Return a tensor of an array-like; plain numbers become float32."""
    if isinstance(x, Tensor):
        return x
    return Tensor(x, np.float32 if isinstance(x, (int, float, np.number)) else None)


def _is_single(x: Any) -> bool:
    return isinstance(x, _core.Tensor) and x._is_float32


def as_single(x: Any) -> Any:
    """Return what the core takes as a float32 operand: whole numbers and masks are converted."""
    if isinstance(x, _core.Tensor):
        return x if x._is_float32 else x._array().astype(np.float32)
    if isinstance(x, (np.ndarray, np.generic)):
        return x if x.dtype.kind == "f" else x.astype(np.float32)
    return float(x) if isinstance(x, bool) else x


def arithmetic(kind: str, a: Any, b: Any) -> "Tensor":
    """Apply an operator; one float32 tensor makes the result float32, else NumPy decides."""
    if _is_single(a) or _is_single(b):
        return _core.binary(kind, as_single(a), as_single(b))
    return Tensor(_NUMPY[kind](contents(a), contents(b)))


def _operator(kind: str, reflected: bool = False) -> Any:
    def apply(self: "Tensor", other: Any) -> Any:
        if not isinstance(other, _OPERANDS):
            return NotImplemented
        return arithmetic(kind, other, self) if reflected else arithmetic(kind, self, other)

    return apply


def _numpy_operator(function: Any, reflected: bool = False) -> Any:
    """Return an operator that the core does not have; NumPy computes it."""

    def apply(self: "Tensor", other: Any) -> Any:
        if not isinstance(other, _OPERANDS):
            return NotImplemented
        a, b = (other, self) if reflected else (self, other)
        if _is_single(a) or _is_single(b):
            a, b = as_single(a), as_single(b)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Tensor(function(plain(a), plain(b)))

    return apply


def _updating(kind: str) -> Any:
    def apply(self: "Tensor", other: Any) -> Any:
        return self._update(kind, other) if isinstance(other, _OPERANDS) else NotImplemented

    return apply


def _operand(x: Any) -> Any:
    """Return what an operator takes: lists become tensors, what is no number is a TypeError."""
    return x if isinstance(x, _OPERANDS) else Tensor(x)


def _method(kind: str) -> Any:
    def apply(self: "Tensor", other: Any) -> "Tensor":
        return arithmetic(kind, self, _operand(other))

    return apply


def _scaled_method(kind: str) -> Any:
    def apply(self: "Tensor", other: Any, *, alpha: float = 1) -> "Tensor":
        other = _operand(other)
        return arithmetic(kind, self, other if alpha == 1 else arithmetic("mul", other, alpha))

    return apply


def _updating_method(kind: str) -> Any:
    def apply(self: "Tensor", other: Any) -> "Tensor":
        return self._update(kind, _operand(other))

    return apply


def _comparison(function: Any) -> Any:
    def apply(self: "Tensor", other: Any) -> Any:
        if not isinstance(other, (*_OPERANDS, list, tuple)):
            return NotImplemented
        return Tensor(function(self._array(), contents(other)))

    return apply


class Tensor(Shaping, Reducing, Gradients, _core.Tensor):
    """A NumPy array, wrapped without a copy, or a value inside of a model's `forward`.

    Within a `forward` operators on tensors are recorded and run at the end of the outermost
    call, or earlier where the numbers are looked at (`numpy`, `item`, ``if``, comparisons).

    Floats are float32: float32 arrays are wrapped as they are, other floats converted. Integers
    and bools keep their type, and NumPy computes with them; an operator with a float32 tensor
    gives float32.

    Parameters
    ----------
    data : array_like
        Numbers.
    dtype : dtype, optional
        The type to convert to: float32, an integer type or bool.
    requires_grad : bool, optional
        Whether gradients with respect to it are computed; float32 only.
    """

    __slots__ = ("__weakref__",)
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __new__(cls, data: ArrayLike, dtype: DTypeLike = None, requires_grad: bool = False) -> Self:
        array = np.asarray(data, dtype)
        if array.dtype.kind == "f" and array.dtype != _FLOAT32:
            if dtype is not None:
                raise ValueError(f"floats are float32 in lucid_c, not {array.dtype}")
            array = array.astype(np.float32)
        elif array.dtype.kind not in "fiub":
            raise TypeError(f"a tensor holds floats, integers or bools, not {array.dtype}")
        self = super().__new__(cls, array)
        if requires_grad:
            self.requires_grad = True
        return self

    # --- what it is

    @property
    def dtype(self) -> np.dtype:
        """The NumPy type of the numbers; nothing is run to find it."""
        if self._is_float32:
            return _FLOAT32
        return np.dtype(np.int64) if self._recorded else self._array().dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def data(self) -> "Tensor":
        """The tensor itself; assigning copies into it."""
        return self

    @data.setter
    def data(self, value: ArrayLike) -> None:
        self.copy_(value)

    @property
    def device(self) -> str:
        """Always ``"cpu"``."""
        return "cpu"

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[axis_of(dim, self.ndim)]

    # --- reading

    def item(self) -> Any:
        """Return the only element as a Python number."""
        return self._array().item()

    def tolist(self) -> Any:
        """Return the elements as nested lists."""
        return self._array().tolist()

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        given = {key: value for key, value in options.items() if value is not None}
        return self.numpy().__dlpack__(**given)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without dimensions has no len()")
        return self.shape[0]

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return contents(value) in self._array()

    def __bool__(self) -> bool:
        return bool(self._array())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self._array().__index__()

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec and not self.shape else str(self), spec)

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._recorded:
            return f"{name}(recorded, shape={self.shape})"
        array = self._array()
        text = np.array2string(array, separator=", ", prefix=name + "(")
        note = "" if array.dtype in (np.float32, np.int64, np.bool) else f", dtype={array.dtype}"
        empty = f", shape={array.shape}" if not array.size else ""
        if not self._is_param and self.requires_grad:
            note += ", requires_grad=True"
        return f"{name}({text}{empty}{note})"

    def __reduce__(self) -> tuple:
        if self._is_param:
            return _restore, (self.numpy(), isinstance(self, Parameter), self.requires_grad)
        if not self.is_leaf:
            raise RuntimeError("a tensor with a history cannot be copied or pickled; use detach()")
        return type(self), (self._array(), None, self.requires_grad)

    def __deepcopy__(self, memo: dict) -> "Tensor":
        function, args = self.__reduce__()
        return function(np.array(args[0]), *args[1:])

    # --- writing

    def __setitem__(self, index: Any, value: Any) -> None:
        if not self._is_param:
            plain(self)
            value = plain(value)
        value = contents(value)
        if isinstance(index, tuple):
            index = tuple(contents(i) for i in index)
        if self._is_param:
            array = np.array(self.numpy())
            array[contents(index)] = value
            _core.commit([(self, array)])
        else:
            self._own()[contents(index)] = value

    def copy_(self, source: ArrayLike) -> Self:
        """Copy numbers into this tensor; the shape is broadcast."""
        self[...] = source
        return self

    def fill_(self, value: float) -> Self:
        """Set all elements to one number."""
        self[...] = value
        return self

    def zero_(self) -> Self:
        """Set all elements to zero."""
        return self.fill_(0)

    def _update(self, kind: str, other: Any) -> Self:
        tracked = any(isinstance(each, _core.Tensor) and each._records for each in (self, other))
        if self._recorded or self._is_param or tracked:
            if not self._is_param and self._records and self.is_leaf and self.requires_grad:
                raise RuntimeError(
                    "a leaf that requires gradients cannot be changed in place; use no_grad()"
                )
            result = arithmetic(kind, self, other)
            if result.shape != self.shape:
                raise ValueError(f"shape {result.shape} cannot be written into {self.shape}")
            if self._is_param:
                self[...] = result
            else:
                self._become(result)
        else:
            array = self._own()
            _NUMPY[kind](array, contents(other), out=array, casting="same_kind")
        return self

    __iadd__ = _updating("add")
    __isub__ = _updating("sub")
    __imul__ = _updating("mul")
    __itruediv__ = _updating("div")
    add_, sub_ = _updating_method("add"), _updating_method("sub")
    mul_, div_ = _updating_method("mul"), _updating_method("div")

    # --- arithmetic

    __add__, __radd__ = _operator("add"), _operator("add", True)
    __sub__, __rsub__ = _operator("sub"), _operator("sub", True)
    __mul__, __rmul__ = _operator("mul"), _operator("mul", True)
    __truediv__, __rtruediv__ = _operator("div"), _operator("div", True)
    __pow__, __rpow__ = _operator("pow"), _operator("pow", True)
    __floordiv__, __rfloordiv__ = (_numpy_operator(np.floor_divide, r) for r in (False, True))
    __mod__, __rmod__ = (_numpy_operator(np.remainder, r) for r in (False, True))
    maximum, minimum = _method("maximum"), _method("minimum")
    add, sub = _scaled_method("add"), _scaled_method("sub")
    mul, pow = _method("mul"), _method("pow")
    __lt__, __le__ = _comparison(np.less), _comparison(np.less_equal)
    __gt__, __ge__ = _comparison(np.greater), _comparison(np.greater_equal)
    __eq__, __ne__ = _comparison(np.equal), _comparison(np.not_equal)
    __and__, __or__ = _comparison(np.bitwise_and), _comparison(np.bitwise_or)

    def div(self, other: Any, *, rounding_mode: str | None = None) -> "Tensor":
        """Return the quotient, rounded down with ``"floor"`` and towards zero with ``"trunc"``."""
        other = _operand(other)
        if rounding_mode == "floor":
            return self // other
        if rounding_mode not in (None, "trunc"):
            raise ValueError(
                f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}"
            )
        result = arithmetic("div", self, other)
        if rounding_mode is None:
            return result
        floats = any(np.asarray(contents(each)).dtype.kind == "f" for each in (self, other))
        whole = np.trunc(plain(result))
        return Tensor(whole if floats else whole.astype(np.int64))

    def __invert__(self) -> "Tensor":
        return Tensor(np.invert(self._array()))

    def __pos__(self) -> "Tensor":
        return self

    def __neg__(self) -> "Tensor":
        return self._unary("neg")

    def __abs__(self) -> "Tensor":
        return self._unary("abs")

    def __matmul__(self, other: Any) -> "Tensor":
        return matmul(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rmatmul__(self, other: Any) -> "Tensor":
        return matmul(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def matmul(self, other: ArrayLike) -> "Tensor":
        """Return the matrix product, with the rules of `numpy.matmul`."""
        return matmul(self, other)

    def _unary(self, kind: str) -> "Tensor":
        if self._is_float32:
            return _core.unary(kind, self)
        return Tensor((_NUMPY.get(kind) or getattr(np, kind))(self._array()))

    def neg(self) -> "Tensor":
        """Return the negative."""
        return self._unary("neg")

    def abs(self) -> "Tensor":
        """Return the magnitude."""
        return self._unary("abs")

    def exp(self) -> "Tensor":
        """Return e to the power of the elements."""
        return self._unary("exp")

    def log(self) -> "Tensor":
        """Return the natural logarithm."""
        return self._unary("log")

    def sqrt(self) -> "Tensor":
        """Return the square root."""
        return self._unary("sqrt")

    def tanh(self) -> "Tensor":
        """Return the hyperbolic tangent."""
        return self._unary("tanh")

    def relu(self) -> "Tensor":
        """Return the elements, negative ones as zero."""
        return _core.unary("relu", self)

    def sigmoid(self) -> "Tensor":
        """Return 1 / (1 + exp(-x))."""
        return _core.unary("sigmoid", self)

    def softmax(self, dim: int) -> "Tensor":
        """Return the softmax along an axis."""
        return _core.softmax(self, dim, False)

    def log_softmax(self, dim: int) -> "Tensor":
        """Return the logarithm of the softmax along an axis."""
        return _core.softmax(self, dim, True)

    def clamp(self, min: Any = None, max: Any = None) -> "Tensor":
        """Return the elements limited to [min, max]; None leaves a side open.

        The limits are numbers, or tensors that are broadcast.
        """
        if min is None and max is None:
            raise ValueError("clamp() needs min or max")
        if any(isinstance(limit, (_core.Tensor, np.ndarray)) for limit in (min, max)):
            result = self if min is None else self.maximum(min)
            return result if max is None else result.minimum(max)
        for name, limit in (("min", min), ("max", max)):
            if limit is not None and not isinstance(limit, (int, float, np.number)):
                raise TypeError(f"{name} must be a number or a tensor, not {limit!r}")
        if not self._is_float32:
            low = self._array() if min is None else np.maximum(self._array(), min)
            return Tensor(low if max is None else np.minimum(low, max))
        low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
        return _core.clamp(self, float(low), float(high))


class Parameter(Tensor):
    """A tensor that a module trains and keeps in its state dict.

    Its numbers are copied in. They change through `Module.load_state_dict`, `copy_`, `fill_`,
    ``+=`` and ``[...] =``; arrays that were read before keep the old numbers.

    Parameters
    ----------
    data : array_like
        Floats.
    requires_grad : bool, optional
        Whether it is trained.
    """

    __slots__ = ()

    def __new__(cls, data: ArrayLike, requires_grad: bool = True) -> Self:
        self = _core.new_param(data)
        self.requires_grad = requires_grad
        return self


_wrappers: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()


def known(value: Any) -> Any:
    """Return the wrapper that Python already has of the same parameter; else ``value``."""
    return _wrappers.setdefault(value._key(), value) if isinstance(value, Tensor) else value


def new_buffer(data: ArrayLike) -> Tensor:
    """Return a tensor that a module can keep as a buffer; its numbers are copied in."""
    return _core.new_param(data, True)


def _restore(array: np.ndarray, parameter: bool, requires_grad: bool) -> Tensor:
    return Parameter(array, requires_grad) if parameter else new_buffer(array)


def matmul(a: Any, b: Any) -> Tensor:
    """Return the matrix product; one float32 tensor makes the result float32."""
    if _is_single(a) or _is_single(b):
        return _core.matmul(as_single(a), as_single(b))
    return Tensor(np.matmul(contents(a), contents(b)))


def tensor(data: ArrayLike, dtype: DTypeLike = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor with a copy of the data; floats become float32.

    Parameters
    ----------
    data : array_like
        Numbers.
    dtype : dtype, optional
        The type to convert to.
    requires_grad : bool, optional
        Whether gradients with respect to it are computed; float32 only.
    """
    return Tensor(np.array(Tensor(data, dtype)._array()), requires_grad=requires_grad)


def from_numpy(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the memory of an array; floats of other widths are converted."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"a NumPy array is expected, not {type(array).__name__}")
    return Tensor(array)


def from_dlpack(source: Any) -> Tensor:
    """Return a tensor that shares the memory of an object with ``__dlpack__``, if it is float32."""
    if not hasattr(source, "__dlpack__"):
        raise TypeError(f"an object with __dlpack__ is expected, not {type(source).__name__}")
    return Tensor(np.from_dlpack(source))
