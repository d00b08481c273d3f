# SPDX-License-Identifier: MIT
"""Files of ``torch.save``: the zip form, the legacy form before it, and plain pickles.

A legacy file is five pickles (magic number, protocol version, system information, the object,
the keys of its storages) followed by the storages: 8 bytes that count the elements, then these.
A zip file has the object in ``<root>/data.pkl`` and each storage in ``<root>/data/<key>``.
"""

from __future__ import annotations

import struct
from typing import Any

from .entry import Blob, SharedFile, Storage
from .pickle_machine import Machine
from .pickle_stream import FileStream, MemoryStream
from .placeholder import Placeholder
from .torch_globals import MAX_SIZE, RULES, storage_dtype
from .zip_file import ZipArchive

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
MAX_PICKLE_BYTES = 64 << 20


def _text(value: Any) -> Any:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _storage_id(pid: Any) -> tuple[str, str | None, Placeholder, int, Any]:
    """Take apart a persistent id: key, data type, class, number of elements, view."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or _text(pid[0]) != "storage":
        raise ValueError("broken checkpoint: a persistent id that is not a storage")
    key, numel = _text(pid[2]), pid[4]
    if isinstance(key, int):
        key = str(key)
    if not isinstance(key, str) or len(key) > 256:
        raise ValueError("broken checkpoint: a storage without a key")
    if type(numel) is not int or not 0 <= numel <= MAX_SIZE:
        raise ValueError(f"broken checkpoint: storage {key!r} has no sensible size")
    return key, storage_dtype(pid[1]), pid[1], numel, pid[5] if len(pid) == 6 else None


def read_torch_zip(archive: ZipArchive, root: str) -> Any:
    """Read the object of a zip file of ``torch.save``.

    Parameters
    ----------
    archive : ZipArchive
        The open archive.
    root : str
        The folder in it that holds ``data.pkl``, with a slash at its end; may be empty.

    Returns
    -------
    object
        Plain containers with an `Entry` for each tensor.
    """
    if root + "constants.pkl" in archive.members:
        raise ValueError(
            "a TorchScript archive; save the state_dict() of the model with torch.save instead"
        )
    if root + "byteorder" in archive.members:
        order = archive.head(root + "byteorder", 16)
        if order != b"little":
            raise ValueError("the file was written on a big-endian machine")
    blobs: dict[str, Any] = {}

    def persistent(machine: Machine, pid: Any) -> Any:
        key, dtype, class_, numel, _ = _storage_id(pid)
        if dtype is None:
            return Placeholder(class_.name, ())
        if key not in blobs:
            blobs[key] = archive.blob(f"{root}data/{key}")
        storage = Storage(blobs[key], dtype, numel)
        if numel * storage.itemsize > blobs[key].nbytes:
            raise ValueError(
                f"storage {key!r} should have {numel} elements of {dtype} "
                f"but has {blobs[key].nbytes} bytes"
            )
        return storage

    blob = archive.blob(root + "data.pkl")
    if isinstance(blob, Blob):
        stream = FileStream(blob.file, blob.start, blob.start + blob.nbytes)
    else:
        if blob.nbytes > MAX_PICKLE_BYTES:
            raise ValueError(f"data.pkl claims to have {blob.nbytes} bytes")
        stream = MemoryStream(archive.head(root + "data.pkl", blob.nbytes))
    return Machine(stream, RULES, persistent).load()


class _LegacyStorages:
    """The storages of a legacy file: declared by its pickle, then found behind it."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self._roots: dict[str, tuple[Blob, int]] = {}  # key -> (bytes, elements)

    def persistent(self, machine: Machine, pid: Any) -> Any:
        """Return what a persistent id stands for."""
        if isinstance(pid, tuple) and pid and _text(pid[0]) == "module":
            return pid[1] if len(pid) > 1 else None
        key, dtype, class_, numel, view = _storage_id(pid)
        if dtype is None:
            raise ValueError(f"unknown storage type {class_.name}")
        storage = Storage(Blob(self._file, 0, 0), dtype, numel)
        nbytes = numel * storage.itemsize
        if nbytes > self._file.size:
            raise ValueError(f"storage {key!r} claims to have {nbytes} bytes")
        blob, elements = self._roots.setdefault(key, (Blob(self._file, 0, nbytes), numel))
        if (blob.nbytes, elements) != (nbytes, numel):
            raise ValueError(f"storage {key!r} is declared with two sizes")
        if view is None:
            return Storage(blob, dtype, numel)
        if not isinstance(view, tuple) or len(view) != 3:
            raise ValueError(f"broken checkpoint: a view of storage {key!r}")
        _, start, count = view
        for number in (start, count):
            if type(number) is not int or not 0 <= number <= numel:
                raise ValueError(f"broken checkpoint: a view outside storage {key!r}")
        if start + count > numel:
            raise ValueError(f"broken checkpoint: a view outside storage {key!r}")
        return Storage(blob, dtype, count, start * storage.itemsize)

    def locate(self, keys: Any, position: int) -> None:
        """Find the storages from `position` on, in the order of `keys`."""
        if not isinstance(keys, list):
            raise ValueError("broken checkpoint: no list of storages")
        pending = dict(self._roots)
        for key in keys:
            key = str(key) if isinstance(key, int) else _text(key)
            if not isinstance(key, str) or key not in pending:
                raise ValueError("broken checkpoint: a storage that no tensor uses, or uses twice")
            blob, elements = pending.pop(key)
            header = self._file.read_at(position, 8)
            position += 8
            if len(header) < 8 or position + blob.nbytes > self._file.size:
                raise ValueError("the file is truncated: it ends before its last storage")
            if struct.unpack("<q", header)[0] != elements:
                raise ValueError(f"storage {key!r} has another size than its tensors expect")
            blob.start = position
            position += blob.nbytes
        if pending:
            raise ValueError(f"storage {next(iter(pending))!r} is not in the file")


def read_pickle(file: SharedFile) -> tuple[Any, bool]:
    """Read a legacy file of ``torch.save``, or the object of a plain pickle.

    Returns
    -------
    object
        Plain containers with an `Entry` for each tensor.
    bool
        Whether it was a file of ``torch.save``.
    """
    stream = FileStream(file, 0, file.size)
    first = Machine(stream, RULES).load()
    if type(first) is not int or first != LEGACY_MAGIC:
        return first, False
    version = Machine(stream, {}).load()
    if type(version) is not int or version != LEGACY_VERSION:
        raise ValueError("unknown version of the torch.save format")
    system = Machine(stream, {}).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("the file was written on a big-endian machine, or is broken")
    storages = _LegacyStorages(file)
    tree = Machine(stream, RULES, storages.persistent).load()
    keys = Machine(stream, {}).load()
    storages.locate(keys, stream.position)
    return tree, True
