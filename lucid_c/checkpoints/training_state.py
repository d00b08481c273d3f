# SPDX-License-Identifier: MIT
"""Everything that a training run needs to go on, in one file.

The file is a safetensors file: the arrays are its tensors, and their places in the structure, with
all plain values, are a JSON text in its header. So it is read without running anything, its arrays
are bit for bit what they were, they are written without a copy, and the weights in it can be loaded
like those of any checkpoint. The format has no checksums; the JSON text holds one for each array,
and the header one for the JSON text.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _core
from .._files import replacing
from .entry import Entry, SharedFile
from .safetensors_file import prepare, read_safetensors, write

MAX_DEPTH = 100
_MARKS = ("$array", "$tuple", "$dict")


def save_training_state(path: str | os.PathLike[str], /, **parts: Any) -> None:
    """Write the state of a training run to one file, whole or not at all.

    The file is written under a temporary name, brought to disk and moved into place: if the disk is
    full, or the process is killed at any moment, the file that was there before is still there.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, usually ``*.safetensors``.
    **parts : object
        What to keep, by name. Of an object with ``state_dict()`` (a model, an optimizer, an `EMA`,
        a schedule, a loader) or ``get_state()`` (`lucid_c.random`) that is kept. Anything else
        must consist of dicts, lists, tuples, strings, numbers, bools, None and arrays.

    Raises
    ------
    TypeError
        If a part holds something else; the message says where.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> save_training_state(  # doctest: +SKIP
    ...     "last.safetensors",
    ...     model=model,
    ...     optimizer=optimizer,
    ...     ema=ema,
    ...     schedule=schedule,
    ...     random=lucid_c.random,
    ...     progress={"epoch": 7, "best": 0.761},
    ... )
    >>> state = load_training_state(  # doctest: +SKIP
    ...     "last.safetensors", model=model, optimizer=optimizer, ema=ema, schedule=schedule,
    ...     random=lucid_c.random,
    ... )
    >>> state["progress"]["epoch"]  # doctest: +SKIP
    7
    """
    if not parts:
        raise ValueError("a training state needs at least one part, such as model=model")
    writer = _Writer()
    tree = {name: writer.plain(_state_of(part), name) for name, part in parts.items()}
    text = json.dumps(tree, separators=(",", ":"))
    texts = {
        "format": "pt",
        "producer": "lucid_c",
        "training_state": text,
        "crc32": str(zlib.crc32(text.encode("ascii"))),
    }
    with replacing(path) as temporary:
        write(temporary, writer.arrays, texts)


def load_training_state(path: str | os.PathLike[str], /, **parts: Any) -> dict[str, Any]:
    """Read what `save_training_state` wrote, and give objects their state back.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    **parts : object
        The objects to restore, by the names that they were saved under. They are changed only
        after the whole file has been read and checked, and either all of them or none.

    Returns
    -------
    dict
        All parts of the file by name, with NumPy arrays in them.

    Raises
    ------
    ValueError
        If the file is truncated, damaged or no training state, if it has no part of a name that
        is asked for, or if a part does not fit its object.
    OSError
        If the file cannot be read.
    """
    path = os.fspath(path)
    try:
        tree = _read(path)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    for name, part in parts.items():
        if name not in tree:
            raise ValueError(f"{path}: no part {name!r}; the file has {', '.join(tree)}")
        _setter_of(part, name)
    _restore(parts, tree)
    return tree


def _restore(parts: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    before = {name: _state_of(part) for name, part in parts.items()}
    done = []
    try:
        for name, part in parts.items():
            done.append(name)
            _setter_of(part, name)(tree[name])
    except BaseException as error:
        for name in done:
            _setter_of(parts[name], name)(before[name])
        error.add_note(f"(while restoring {done[-1]!r}; nothing has been changed)")
        raise


def _state_of(part: Any) -> Any:
    for method in ("state_dict", "get_state"):
        if callable(getattr(part, method, None)):
            return getattr(part, method)()
    return part


def _setter_of(part: Any, name: str) -> Any:
    for method in ("load_state_dict", "set_state"):
        if callable(getattr(part, method, None)):
            return getattr(part, method)
    raise TypeError(
        f"{name!r}: a {type(part).__name__} has no load_state_dict() and no set_state(); leave it "
        "out, and take it from the result"
    )


def _checksum(array: np.ndarray, dtype: str) -> int:
    start = zlib.crc32(f"{dtype} {array.shape}".encode())
    return zlib.crc32(array.reshape(-1).view(np.uint8), start)


class _Writer:
    """Takes a structure apart: arrays by name, and the rest for JSON."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def plain(self, value: Any, where: str, depth: int = 0) -> Any:
        """Return what JSON can hold in place of `value`, which is found at `where`."""
        if depth > MAX_DEPTH:
            raise ValueError(f"{where[:100]} contains itself or is nested too deeply")
        if isinstance(value, (_core.Tensor, np.ndarray)):
            return self._array(np.asarray(value), where)
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            items = [self.plain(v, f"{where}.{i}", depth + 1) for i, v in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, Mapping):
            return self._dict(value, where, depth + 1)
        raise TypeError(f"{where} is a {type(value).__name__}, which cannot be saved")

    def _array(self, array: np.ndarray, where: str) -> dict[str, Any]:
        name, count = where, 2
        while name in self.arrays:
            name, count = f"{where}#{count}", count + 1
        dtype = array.dtype.name
        if dtype == "float16":  # kept as the integers of its bits, since reading widens it
            array = array.astype(np.float16, order="C").view(np.uint16)
        try:
            self.arrays |= prepare({name: array})
        except TypeError:
            raise TypeError(f"{where} is an array of {dtype}, which cannot be saved") from None
        return {"$array": name, "dtype": dtype, "crc32": _checksum(self.arrays[name], dtype)}

    def _dict(self, value: Mapping, where: str, depth: int) -> dict[str, Any]:
        items = {k: self.plain(v, f"{where}.{k}", depth) for k, v in value.items()}
        if all(type(key) is str and not key.startswith("$") for key in items):
            return items
        keys = [self.plain(key, f"a key of {where}", depth) for key in items]
        return {"$dict": [list(pair) for pair in zip(keys, items.values(), strict=True)]}


def _read(path: str) -> dict[str, Any]:
    file = SharedFile(path)
    try:
        entries, metadata = read_safetensors(file)
        text = metadata.get("training_state")
        if text is None:
            raise ValueError("not a training state")
        if metadata.get("crc32") != str(zlib.crc32(text.encode("utf-8", "surrogatepass"))):
            raise ValueError("the description of the training state is damaged")
        reader = _Reader(entries)
        tree = reader.value(json.loads(text))
        if not isinstance(tree, dict) or reader.entries:
            raise ValueError("the arrays in the file are not those of its description")
        return tree
    finally:
        file.close()


class _Reader:
    """Puts a structure together again."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = dict(entries)  # those that have not been read yet

    def value(self, given: Any) -> Any:
        """Return what `_Writer.plain` made this of."""
        if isinstance(given, list):
            return [self.value(each) for each in given]
        if not isinstance(given, dict):
            return given
        mark = next((mark for mark in _MARKS if mark in given), None)
        if mark is None:
            return {key: self.value(each) for key, each in given.items()}
        if mark == "$array":
            return self._array(given)
        items = given[mark]
        if not isinstance(items, list):
            raise ValueError(f"the description has a broken {mark[1:]}")
        if mark == "$tuple":
            return tuple(self.value(each) for each in items)
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in items):
            raise ValueError("the description has a broken dict")
        try:
            return {self.value(key): self.value(each) for key, each in items}
        except TypeError:
            raise ValueError("the description has a dict with impossible keys") from None

    def _array(self, given: dict[str, Any]) -> np.ndarray:
        name, dtype = given["$array"], given.get("dtype")
        entry = self.entries.pop(name, None) if isinstance(name, str) else None
        if entry is None:
            raise ValueError(f"the array {name!r:.100} is missing")
        stored = "uint16" if dtype == "float16" else dtype
        if entry.dtype != stored:
            raise ValueError(f"the array {name!r:.100} is {entry.dtype} instead of {stored!r:.20}")
        array = entry.read()
        if _checksum(array, str(dtype)) != given.get("crc32"):
            raise ValueError(f"the array {name!r:.100} is damaged")
        return array.view(np.float16) if dtype == "float16" else array
