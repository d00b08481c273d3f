# SPDX-License-Identifier: MIT
"""Arrays of an ``.npz`` file as entries; only plain numbers, never pickled objects."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .entry import DTYPES, Entry, contiguous_strides
from .placeholder import Placeholder
from .zip_file import ZipArchive

HEADER_BYTES = 1 << 16
MAX_DIMS = 32
_FORMATS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Tail:
    """A blob without its first bytes."""

    def __init__(self, blob: Any, start: int) -> None:
        self._blob = blob
        self._start = start
        self.nbytes = blob.nbytes - start

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill `view` from byte `offset` of the tail."""
        self._blob.readinto(self._start + offset, view)


def _entry(archive: ZipArchive, member: str) -> Entry | Placeholder:
    head = io.BytesIO(archive.head(member, HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        if version not in _FORMATS:
            raise ValueError(f"unsupported .npy version {version}")
        shape, fortran, dtype = _FORMATS[version](head)
    except Exception as error:  # the header is a Python literal; many things can be wrong with it
        raise ValueError(f"broken array {member!r:.100} ({error!s:.200})") from None
    if len(shape) > MAX_DIMS or any(size < 0 for size in shape):
        raise ValueError(f"broken array {member!r:.100}: shape {shape}")
    if dtype.name not in DTYPES:
        return Placeholder(f"numpy.ndarray of {dtype}")
    blob = _Tail(archive.blob(member), head.tell())
    stored = None if dtype.name == "bool" else dtype
    try:
        return Entry(blob, dtype.name, shape, contiguous_strides(shape, fortran), 0, stored)
    except ValueError as error:
        raise ValueError(f"broken array {member!r:.100}: {error}") from None


def read_npz(archive: ZipArchive) -> dict[str, Entry | Placeholder]:
    """Return the arrays of an open ``.npz`` archive by name."""
    return {
        name.removesuffix(".npy"): _entry(archive, name)
        for name in archive.members
        if name.endswith(".npy")
    }
