# SPDX-License-Identifier: MIT
"""The safetensors format: 8 bytes of header length, a JSON header, the data.

Reading is our own, because entries go tensor by tensor to their final place, bfloat16 included,
and nothing else is held in memory. Writing is the safetensors library's where it is installed.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from .._files import replacing
from .entry import CHUNK_BYTES, DTYPES, Blob, Entry, SharedFile

MAX_HEADER_BYTES = 100_000_000
MAX_DIMS = 32

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "F4": "float4_e2m1",
}
_CODES = {
    name: code
    for code, name in _NAMES.items()
    if name in ("float64", "float32", "float16", "bool") or "int" in name
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return result


def _header(file: SharedFile) -> tuple[dict[str, Any], int]:
    prefix = file.read_at(0, 8)
    if len(prefix) < 8:
        raise ValueError("the file is shorter than a safetensors header")
    length = struct.unpack("<Q", prefix)[0]
    if length > MAX_HEADER_BYTES or length > file.size - 8:
        raise ValueError(
            f"the header claims to have {length} bytes; the file is truncated or not safetensors"
        )
    try:
        header = json.loads(file.read_at(8, length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header is not valid JSON ({str(error)[:200]})") from None
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    return header, 8 + length


def _is_size_list(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(size) is int and 0 <= size < 1 << 48 for size in value)
    )


def _row(name: str, value: Any) -> tuple[int, int, str, tuple[int, ...]]:
    """Check one row of the header: begin, end, data type, shape."""
    if not isinstance(value, dict):
        raise ValueError(f"tensor {name!r:.100} has no description")
    code, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(code, str) or code not in _NAMES:
        raise ValueError(f"tensor {name!r:.100} has the unknown data type {code!r:.40}")
    if not _is_size_list(shape, MAX_DIMS):
        raise ValueError(f"tensor {name!r:.100} has no sensible shape")
    if not _is_size_list(offsets, 2) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r:.100} has no sensible offsets")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * DTYPES[_NAMES[code]][0]:
        raise ValueError(f"tensor {name!r:.100}: {shape} {code} does not take {end - begin} bytes")
    return begin, end, _NAMES[code], tuple(shape)


def read_safetensors(file: SharedFile) -> tuple[dict[str, Entry], dict[str, str]]:
    """Read the header of a safetensors file.

    Returns
    -------
    dict of str to Entry
        The tensors; they fill the data without overlap or gap, or it is an error.
    dict of str to str
        The metadata.
    """
    header, data_start = _header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("the metadata in the header are not strings")
    rows = {name: _row(name, value) for name, value in header.items()}
    position = 0
    for name, (begin, end, _, _) in sorted(rows.items(), key=lambda item: item[1][:2]):
        if begin != position:
            raise ValueError(f"tensor {name!r:.100} begins at byte {begin} instead of {position}")
        position = end
    if data_start + position != file.size:
        raise ValueError(
            f"the tensors take {position} bytes but the file has {file.size - data_start}"
        )
    entries = {
        name: Entry(Blob(file, data_start + begin, end - begin), dtype, shape)
        for name, (begin, end, dtype, shape) in rows.items()
    }
    return entries, metadata


def prepare(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return little-endian arrays in C order; TypeError for types that a file cannot have."""
    prepared = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"{name!r} cannot be the name of a tensor")
        array = np.asarray(value)
        if array.dtype.name not in _CODES:
            raise TypeError(f"tensor {name!r} has the type {array.dtype}, which cannot be saved")
        # asarray keeps 0-d arrays, which ascontiguousarray would make 1-d
        prepared[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return prepared


def write(path: str, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a safetensors file, with the arrays of `prepare`."""
    # As the library does: wide types first, so that everything is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name in order:
        array = tensors[name]
        offsets = [position, position + array.nbytes]
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        position = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            data = tensors[name].reshape(-1).view(np.uint8)
            for start in range(0, len(data), CHUNK_BYTES):
                file.write(data[start : start + CHUNK_BYTES])


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays to a safetensors file, whole or not at all.

    The file is written under a temporary name in the same folder, brought to disk, and then
    put in place; an error leaves an older file of that name as it was, and nothing else behind.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write.
    tensors : Mapping of str to array_like
        Floating-point (16, 32, 64 bits), integer and bool arrays.
    metadata : Mapping of str to str, optional
        Texts for the header.
    """
    texts = {"format": "pt", "producer": "lucid_c", **(metadata or {})}
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in texts.items()):
        raise TypeError("metadata must map str to str")
    prepared = prepare(tensors)
    with replacing(path) as temporary:
        try:
            from safetensors import SafetensorError
            from safetensors.numpy import save_file
        except ImportError:
            write(temporary, prepared, texts)
            return
        try:
            save_file(prepared, temporary, texts)
        except SafetensorError as error:
            raise OSError(f"{os.fspath(path)}: {error}") from None
