# SPDX-License-Identifier: MIT
"""One stored tensor, and the bounded ways of reading it.

Every file format ends here: an `Entry` is a shape, a data type and strides over a blob, and a
blob is a run of bytes in a file, in memory, or in a compressed member of an archive.
"""

from __future__ import annotations

import os
import threading
from math import prod
from typing import Any, BinaryIO

import numpy as np

from .._core import prefault

CHUNK_BYTES = 1 << 20
PIECE_BYTES = 1 << 18  # stays in the cache between getting its pages and filling them

# Data type name -> (bits per element, NumPy type of the stored bytes or None if not readable).
# bfloat16 is stored as the upper half of a float32, bool as one byte.
DTYPES: dict[str, tuple[int, str | None]] = {
    "float64": (64, "<f8"),
    "float32": (32, "<f4"),
    "float16": (16, "<f2"),
    "bfloat16": (16, "<u2"),
    "int64": (64, "<i8"),
    "int32": (32, "<i4"),
    "int16": (16, "<i2"),
    "int8": (8, "|i1"),
    "uint64": (64, "<u8"),
    "uint32": (32, "<u4"),
    "uint16": (16, "<u2"),
    "uint8": (8, "|u1"),
    "bool": (8, "|u1"),
    "complex64": (64, "<c8"),
    "complex128": (128, "<c16"),
    "complex32": (32, None),
    "float8_e4m3fn": (8, None),
    "float8_e4m3fnuz": (8, None),
    "float8_e5m2": (8, None),
    "float8_e5m2fnuz": (8, None),
    "float8_e8m0fnu": (8, None),
    "float6_e2m3": (6, None),
    "float6_e3m2": (6, None),
    "float4_e2m1": (4, None),
}


class SharedFile:
    """A file opened for reading whose position is not shared between readers.

    Parameters
    ----------
    path : str or os.PathLike
        The file. It must be a regular file: a pipe or a device has no size to check against.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        # opening a pipe would wait; a folder or a missing file gives the error of open()
        if os.path.exists(self.path) and not (
            os.path.isfile(self.path) or os.path.isdir(self.path)
        ):
            raise ValueError("not a regular file")
        self.handle: BinaryIO = open(self.path, "rb")
        self.size = os.fstat(self.handle.fileno()).st_size
        self.lock = threading.Lock()

    def read_at(self, start: int, count: int) -> bytes:
        """Read up to `count` bytes from position `start`."""
        with self.lock:
            self.handle.seek(start)
            return self.handle.read(count)

    def readinto_at(self, start: int, view: memoryview) -> int:
        """Fill `view` from position `start`; return how many bytes there were."""
        done = 0
        while done < len(view):
            count = self._read_some(start + done, view[done:])
            if not count:
                break
            done += count
        return done

    def _read_some(self, start: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):  # several threads at once
            return os.preadv(self.handle.fileno(), [view], start)
        with self.lock:
            self.handle.seek(start)
            return self.handle.readinto(view)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the file."""
        self.handle.close()


class Blob:
    """A run of `nbytes` bytes of a file, from byte `start`."""

    def __init__(self, file: SharedFile, start: int, nbytes: int) -> None:
        self.file = file
        self.start = start
        self.nbytes = nbytes

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill `view` from byte `offset` of the blob; `ValueError` if the file is shorter."""
        if self.file.readinto_at(self.start + offset, view) != len(view):
            raise ValueError("the file ends before the tensor does")


class MemoryBlob:
    """Bytes that are already in memory (an array inside a pickle)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nbytes = len(data)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill `view` from byte `offset` of the blob."""
        view[:] = self.data[offset : offset + len(view)]


class Storage:
    """The memory of one or several tensors: `numel` elements from byte `start` of a blob."""

    def __init__(self, blob: Any, dtype: str, numel: int, start: int = 0) -> None:
        self.blob = blob
        self.dtype = dtype
        self.numel = numel
        self.start = start

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return DTYPES[self.dtype][0] // 8


def contiguous_strides(shape: tuple[int, ...], fortran: bool = False) -> tuple[int, ...]:
    """Strides, in elements, of a dense array in C or Fortran order."""
    strides = [1] * len(shape)
    order = range(1, len(shape)) if fortran else range(len(shape) - 2, -1, -1)
    for axis in order:
        before = axis - 1 if fortran else axis + 1
        strides[axis] = strides[before] * max(shape[before], 1)
    return tuple(strides)


class Entry:
    """A tensor in an open checkpoint: what it is, without its values.

    Parameters
    ----------
    blob : Blob or MemoryBlob
        The bytes. `Entry` checks that no element lies outside.
    dtype : str
        Name of the stored data type, such as ``"float32"`` or ``"bfloat16"``.
    shape : tuple of int
        Shape of the tensor.
    strides : tuple of int, optional
        Strides in elements; C order by default.
    offset : int, optional
        First element, counted from the start of the blob.
    stored : numpy.dtype, optional
        NumPy type of the stored bytes, where `dtype` alone does not say it.
    """

    def __init__(
        self,
        blob: Any,
        dtype: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
        stored: np.dtype | None = None,
    ) -> None:
        if stored is None and DTYPES[dtype][1] is not None:
            stored = np.dtype(DTYPES[dtype][1])
        itemsize = stored.itemsize if stored is not None else (DTYPES[dtype][0] + 7) // 8
        strides = contiguous_strides(shape) if strides is None else strides
        if len(strides) != len(shape) or offset < 0 or min((*shape, *strides), default=0) < 0:
            raise ValueError(f"bad tensor layout: shape {shape}, strides {strides}, at {offset}")
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        packed = DTYPES.get(dtype, (8, None))[0] < 8
        if prod(shape) and not packed and (last + 1) * itemsize > blob.nbytes:
            raise ValueError(
                f"tensor of shape {shape}, strides {strides} at {offset} lies outside "
                f"its storage of {blob.nbytes} bytes"
            )
        self.dtype = dtype
        self.shape = shape
        self._blob = blob
        self._stored = stored
        self._strides = strides
        self._offset = offset

    def __repr__(self) -> str:
        return f"Entry(shape={self.shape}, dtype={self.dtype!r})"

    @property
    def nbytes(self) -> int:
        """Size of the tensor as stored, in bytes."""
        return (prod(self.shape) * DTYPES.get(self.dtype, (8, None))[0] + 7) // 8

    @property
    def layout(self) -> tuple:
        """What makes two entries the same memory: a key for sharing."""
        return (id(self._blob), self.dtype, self.shape, self._strides, self._offset)

    def check_readable(self) -> None:
        """Raise `ValueError` if the values cannot be read into an array.

        This is the case for data types that have no counterpart here, and for a tensor that
        repeats a smaller storage (``expand``), where a few bytes could claim any size.
        """
        if self._stored is None or self._stored.kind not in "fiubc":
            raise ValueError(f"values of type {self.dtype} cannot be read")
        if prod(self.shape) * self._stored.itemsize > self._blob.nbytes:
            raise ValueError(
                f"tensor of shape {self.shape} repeats a storage of {self._blob.nbytes} bytes; "
                "save a contiguous copy of it"
            )

    def read(self) -> np.ndarray:
        """Read the values into a new array.

        Returns
        -------
        numpy.ndarray
            float16 and bfloat16 are widened to float32; other types stay as they are.
        """
        self.check_readable()
        assert self._stored is not None
        if self.dtype in ("float16", "bfloat16"):
            kind = np.dtype(np.float32)
        elif self.dtype == "bool":
            kind = np.dtype(np.bool_)
        else:
            kind = self._stored.newbyteorder("=")
        out = np.empty(self.shape, kind)
        self._copy_to(out)
        return out

    def read_into(self, out: np.ndarray) -> None:
        """Read the values into an array that exists, in chunks, with no other copy.

        Parameters
        ----------
        out : numpy.ndarray
            C-contiguous, writable, float32 or int64, of the shape of the tensor. Floating-point
            values are widened or narrowed to float32; int64 takes integers only.
        """
        if out.dtype not in (np.float32, np.int64):
            raise TypeError(f"out must be float32 or int64, got {out.dtype}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("out must be C-contiguous and writable")
        if out.shape != self.shape:
            raise ValueError(f"out has shape {out.shape}, the stored tensor {self.shape}")
        self.check_readable()
        assert self._stored is not None
        if self._stored.kind == "c" or (
            out.dtype == np.int64 and (self._stored.kind == "f" or self.dtype == "bfloat16")
        ):
            raise ValueError(f"values of type {self.dtype} do not fit {out.dtype}")
        self._copy_to(out)

    def _copy_to(self, out: np.ndarray) -> None:
        if out.size == 0:
            return
        axes = [a for a, n in enumerate(self.shape) if n > 1]
        dense = contiguous_strides(self.shape)
        if all(self._strides[a] == dense[a] for a in axes):
            self._copy_dense(out.reshape(-1))
        else:
            self._copy_strided(out, self._offset)

    def _copy_dense(self, flat: np.ndarray) -> None:
        assert self._stored is not None
        item = self._stored.itemsize
        start = self._offset * item
        if flat.dtype == self._stored:
            step = PIECE_BYTES // item
            for first in range(0, flat.size, step):
                part = flat[first : first + step]
                prefault(part)
                self._blob.readinto(start + first * item, memoryview(part).cast("B"))
            return
        step = CHUNK_BYTES // item
        buffer = np.empty(min(step, flat.size), self._stored)
        for first in range(0, flat.size, step):
            part = buffer[: min(step, flat.size - first)]
            self._blob.readinto(start + first * item, memoryview(part).cast("B"))
            self._convert(part, flat[first : first + part.size])

    def _copy_strided(self, out: np.ndarray, offset: int) -> None:
        # Halve the axis with the widest steps until a part spans no more than a chunk.
        assert self._stored is not None
        item = self._stored.itemsize
        spans = [(n - 1) * s for n, s in zip(out.shape, self._strides, strict=True)]
        count = 1 + sum(spans)
        if count * item <= CHUNK_BYTES:
            raw = bytearray(count * item)
            self._blob.readinto(offset * item, memoryview(raw))
            steps = tuple(s * item for s in self._strides)
            self._convert(np.ndarray(out.shape, self._stored, raw, 0, steps), out)
            return
        axis = max((s, a) for a, s in enumerate(self._strides) if out.shape[a] > 1)[1]
        half = out.shape[axis] // 2
        low, high = np.split(out, [half], axis)
        self._copy_strided(low, offset)
        self._copy_strided(high, offset + half * self._strides[axis])

    def _convert(self, raw: np.ndarray, out: np.ndarray) -> None:
        if self.dtype == "bfloat16":
            wide = raw.astype(np.uint32)
            wide <<= 16
            out[...] = wide.view(np.float32)
        elif self.dtype == "bool":
            np.not_equal(raw, 0, out=out, casting="unsafe")
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                out[...] = raw
