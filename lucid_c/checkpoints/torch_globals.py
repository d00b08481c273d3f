# SPDX-License-Identifier: MIT
"""The allow-list: what the globals of PyTorch's and NumPy's pickles stand for.

Each rule takes the arguments of a pickled call and makes a value of them. Where the arguments
themselves depend on an unknown global the result is a placeholder that names it.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np

from .entry import DTYPES, Blob, Entry, MemoryBlob, Storage, contiguous_strides
from .pickle_machine import Machine, Rule, as_blob
from .placeholder import Placeholder

MAX_DIMS = 32
MAX_SIZE = 1 << 48

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    "_UntypedStorage": "uint8",
}
_DTYPE_ALIASES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64"}


def storage_dtype(global_: Any) -> str | None:
    """Return the data type of a storage class such as ``torch.FloatStorage``; None if unknown."""
    if not isinstance(global_, Placeholder) or global_.args is not None:
        raise ValueError("broken checkpoint: a storage without a type")
    module, _, name = global_.name.rpartition(".")
    return STORAGE_DTYPES.get(name) if module in ("torch", "torch.cuda", "torch.storage") else None


def _sizes(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMS:
        raise ValueError(f"broken checkpoint: the {what} of a tensor is not a short tuple")
    for size in value:
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            raise ValueError(f"broken checkpoint: {size!r:.40} in the {what} of a tensor")
    return tuple(value)


def _expect(args: tuple, low: int, high: int, name: str) -> None:
    if not low <= len(args) <= high:
        raise ValueError(f"broken checkpoint: {name} with {len(args)} arguments")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None = None) -> Any:
    if isinstance(storage, Placeholder):
        return storage
    if not isinstance(storage, Storage):
        raise ValueError("broken checkpoint: a tensor without a storage")
    shape, strides = _sizes(shape, "shape"), _sizes(strides, "strides")
    (offset,) = _sizes((offset,), "offset")
    dtype = storage.dtype if dtype is None else dtype
    if len(shape) != len(strides):
        raise ValueError("broken checkpoint: the shape and strides of a tensor do not agree")
    itemsize = max(DTYPES[dtype][0] // 8, 1)
    room = storage.numel * storage.itemsize // itemsize
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if prod(shape) and last >= room:
        raise ValueError(
            f"tensor of shape {shape}, strides {strides} at {offset} lies outside its storage "
            f"of {room} elements"
        )
    if storage.start % itemsize:
        raise ValueError("broken checkpoint: a tensor that is not aligned in its storage")
    return Entry(storage.blob, dtype, shape, strides, storage.start // itemsize + offset)


def _rebuild_tensor(machine: Machine, args: tuple) -> Any:
    # (storage, offset, shape, strides), in v2 followed by requires_grad, hooks and metadata
    _expect(args, 4, 7, "_rebuild_tensor")
    return _tensor(*args[:4])


def _rebuild_tensor_v3(machine: Machine, args: tuple) -> Any:
    # (storage, offset, shape, strides, requires_grad, hooks, dtype, metadata)
    _expect(args, 7, 8, "_rebuild_tensor_v3")
    dtype = args[6]
    if not isinstance(dtype, Placeholder) or not dtype.name.startswith("torch."):
        raise ValueError("broken checkpoint: a tensor without a data type")
    name = dtype.name.removeprefix("torch.")
    name = _DTYPE_ALIASES.get(name, name)
    return _tensor(*args[:4], name) if name in DTYPES else dtype


def _rebuild_from_type(machine: Machine, args: tuple) -> Any:
    # (function, type, arguments, state): a tensor that has Python attributes
    _expect(args, 4, 4, "_rebuild_from_type")
    if isinstance(args[0], Placeholder) and "_rebuild_from_type" in args[0].name:
        raise ValueError("broken checkpoint: nested _rebuild_from_type")
    return machine.call(args[0], args[2])


def _rebuild_parameter(machine: Machine, args: tuple) -> Any:
    # (tensor, requires_grad, ...)
    if not args or not isinstance(args[0], (Entry, Placeholder)):
        return Placeholder("torch.nn.parameter.Parameter", args)
    return args[0]


def numpy_dtype(value: Any) -> np.dtype | None:
    """Read a pickled ``numpy.dtype`` object; None if it is not a plain number type."""
    if not isinstance(value, Placeholder) or value.name != "numpy.dtype" or not value.args:
        return None
    code, state = value.args[0], value.state
    if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1|c8|c16", code):
        return None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
    if code == "f1" or order not in ("<", ">", "|", "="):
        return None
    return np.dtype(code).newbyteorder("<" if order == "=" else order)


def _entry_of(blob: Any, dtype: np.dtype, shape: tuple[int, ...], fortran: bool) -> Entry:
    if prod(shape) * dtype.itemsize > blob.nbytes:
        raise ValueError(f"an array of shape {shape} has only {blob.nbytes} bytes of data")
    stored = None if dtype.name == "bool" else dtype
    return Entry(blob, dtype.name, shape, contiguous_strides(shape, fortran), 0, stored)


class ArrayEntry(Entry):
    """A NumPy array in a pickle: first made empty, then given its state."""

    def __init__(self) -> None:
        super().__init__(MemoryBlob(b""), "uint8", (0,))
        self.unknown: str | None = "numpy.ndarray"

    def set_state(self, machine: Machine, state: Any) -> None:
        """Take the pickled state (version, shape, dtype, Fortran order, data)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("broken checkpoint: an array without its state")
        _, shape, dtype_object, fortran, data = state
        dtype, blob = numpy_dtype(dtype_object), as_blob(data)
        if isinstance(data, (str, bytes, bytearray)):
            machine.charge(len(data))
        if dtype is None or blob is None:
            self.unknown = "numpy.ndarray of objects"
            return
        made = _entry_of(blob, dtype, _sizes(shape, "shape"), bool(fortran))
        self.__dict__.update(made.__dict__)
        self.unknown = None

    def check_readable(self) -> None:
        """Raise `ValueError` if the values are not plain numbers."""
        if self.unknown is not None:
            raise ValueError(f"the values of a {self.unknown} cannot be read")
        super().check_readable()


def _numpy_array(machine: Machine, args: tuple) -> Any:
    # _reconstruct(type, (0,), b"b"); the state follows
    _expect(args, 3, 3, "_reconstruct")
    return ArrayEntry()


def _numpy_from_buffer(machine: Machine, args: tuple) -> Any:
    # _frombuffer(data, dtype, shape, order)
    _expect(args, 4, 4, "_frombuffer")
    blob, dtype = as_blob(args[0]), numpy_dtype(args[1])
    if blob is None or dtype is None:
        return Placeholder("numpy.ndarray", args)
    machine.charge(0 if isinstance(blob, Blob) else blob.nbytes)
    return _entry_of(blob, dtype, _sizes(args[2], "shape"), args[3] == "F")


def _numpy_scalar(machine: Machine, args: tuple) -> Any:
    # scalar(dtype, data)
    _expect(args, 2, 2, "scalar")
    if isinstance(args[1], (str, bytes)):
        machine.charge(len(args[1]))
    blob, dtype = as_blob(args[1]), numpy_dtype(args[0])
    if not isinstance(blob, MemoryBlob) or dtype is None or blob.nbytes != dtype.itemsize:
        return Placeholder("numpy.scalar", args)
    return np.frombuffer(blob.data, dtype)[0].astype(dtype.newbyteorder("="))


def _mapping(machine: Machine, args: tuple) -> Any:
    # dict(), dict(pairs) or dict(mapping)
    _expect(args, 0, 1, "dict")
    source = args[0] if args else []
    if isinstance(source, dict):
        machine.charge(len(source))
        return dict(source)
    if not isinstance(source, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in source
    ):
        raise ValueError("broken checkpoint: a dict of something that is not pairs")
    machine.charge(len(source))
    return machine.pairs([pair[0] for pair in source], [pair[1] for pair in source])


def _default_dict(machine: Machine, args: tuple) -> Any:
    # (factory, contents)
    return _mapping(machine, args[1:2])


def _items(machine: Machine, args: tuple, name: str) -> list:
    _expect(args, 0, 1, name)
    if not args:
        return []
    if not isinstance(args[0], (list, tuple, set, frozenset)):
        raise ValueError(f"broken checkpoint: a {name} of something that is not a sequence")
    machine.charge(len(args[0]))
    return list(args[0])


def _encode(machine: Machine, args: tuple) -> Any:
    # codecs.encode(text, "latin1"): how protocol 2 writes bytes
    _expect(args, 1, 2, "encode")
    if not isinstance(args[0], str) or args[1:] != ("latin1",):
        return Placeholder("_codecs.encode", args)
    machine.charge(len(args[0]))
    try:
        return args[0].encode("latin1")
    except UnicodeEncodeError:
        raise ValueError("broken pickle: bytes beyond 255") from None


def _complex(machine: Machine, args: tuple) -> Any:
    if len(args) != 2 or not all(isinstance(part, float) for part in args):
        return Placeholder("builtins.complex", args)
    return complex(*args)


def _reconstructor(machine: Machine, args: tuple) -> Any:
    # copyreg._reconstructor(class, base, state): an object of protocol 0 or 1
    name = args[0].name if args and isinstance(args[0], Placeholder) else "copyreg._reconstructor"
    return Placeholder(name, args)


RULES: dict[str, Rule] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch.autograd.variable.Variable": _rebuild_parameter,
    "torch.Size": lambda m, args: tuple(_items(m, args, "Size")),
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": lambda m, args: _items(m, args, "list"),
    "builtins.tuple": lambda m, args: tuple(_items(m, args, "tuple")),
    "builtins.set": lambda m, args: set(m.keys(_items(m, args, "set"))),
    "builtins.frozenset": lambda m, args: frozenset(m.keys(_items(m, args, "set"))),
    "builtins.complex": _complex,
    "copyreg._reconstructor": _reconstructor,
    "_codecs.encode": _encode,
    "numpy._core.multiarray._reconstruct": _numpy_array,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy._core.numeric._frombuffer": _numpy_from_buffer,
}
