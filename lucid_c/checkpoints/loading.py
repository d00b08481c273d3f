# SPDX-License-Identifier: MIT
"""Load checkpoints into arrays and into models."""

from __future__ import annotations

import os
from collections import deque
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from .._core import get_num_threads
from .checkpoint import Checkpoint, depends_on, open_checkpoint, open_tree
from .entry import Blob, Entry, Storage
from .keys import KeyMap, map_keys
from .placeholder import Placeholder
from .state_dict import is_tensor_like

# Tensors may share memory in a file, but not so that a small file fills the machine.
MAX_SHARING = 8
SLACK_BYTES = 64 << 20
MAX_DEPTH = 100
MAX_READERS = 4  # threads; more only share the memory's bandwidth


class LoadResult(NamedTuple):
    """What did not fit when weights were loaded with ``strict=False``.

    Attributes
    ----------
    missing_keys : list of str
        Names of the model that were not in the file, and keep their values.
    unexpected_keys : list of str
        Names in the file that the model does not have.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Reader:
    """Reads entries into arrays; the same memory in the file once, within a budget."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._room = MAX_SHARING * checkpoint.payload + SLACK_BYTES
        self._arrays: dict[tuple, np.ndarray] = {}
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def array(self, entry: Entry) -> np.ndarray:
        """Return the values of an entry."""
        if entry.layout not in self._arrays:
            entry.check_readable()
            self._spend(entry.nbytes)
            self._arrays[entry.layout] = entry.read()
        return self._arrays[entry.layout]

    def _spend(self, nbytes: int) -> None:
        self._room -= nbytes
        if self._room < 0:
            raise ValueError("the tensors share memory and are far larger than the file")

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return a part of a tree with arrays for its entries."""
        if isinstance(value, Entry):
            try:
                value.check_readable()
            except ValueError as error:
                return Placeholder(f"tensor ({error})", ())
            return self.array(value)
        if isinstance(value, Storage):
            return Placeholder("torch storage", ())
        if isinstance(value, Blob):
            self._spend(value.nbytes)
            data = bytearray(value.nbytes)
            value.readinto(0, memoryview(data))
            return bytes(data)
        if not isinstance(value, (dict, list, tuple, Placeholder)):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        if id(value) in self._open or depth > MAX_DEPTH:
            raise ValueError("the object in the file contains itself or is nested too deeply")
        self._open.add(id(value))
        result = self._container(value, depth + 1)
        self._open.discard(id(value))
        self._done[id(value)] = result
        return result

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.plain(item, depth) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item, depth) for item in value]
        if isinstance(value, tuple):
            return tuple(self.plain(item, depth) for item in value)
        args = None if value.args is None else self.plain(value.args, depth)
        return Placeholder(value.name, args, self.plain(value.state, depth))


def load(path: str | os.PathLike[str], full: bool = False, use_ema: bool = False) -> dict[str, Any]:
    """Load a checkpoint as a dict of arrays.

    Parameters
    ----------
    path : str or os.PathLike
        As for `open_checkpoint`.
    full : bool, optional
        Give everything in the file (epoch, optimizer state, ...) with its own names, as plain
        containers and arrays; an object of an unknown class is a `Placeholder`.
    use_ema : bool, optional
        Take the averaged weights of a training checkpoint.

    Returns
    -------
    dict
        The weights by name. float16 and bfloat16 are widened to float32.

    Raises
    ------
    ValueError
        If the file is truncated, broken or hostile, or a tensor cannot be read.
    """
    with open_tree(path) if full else open_checkpoint(path, use_ema) as checkpoint:
        reader = _Reader(checkpoint)
        try:
            if full:
                return reader.plain(checkpoint.tree)
            for name, value in checkpoint.unreadable.items():
                if is_tensor_like(value):
                    raise ValueError(depends_on(name, value))
            return {name: _named(name, reader.array, entry) for name, entry in checkpoint.items()}
        except ValueError as error:
            raise ValueError(f"{checkpoint.path}: {error}") from None


def load_into(
    model: Any, path: str | os.PathLike[str], strict: bool = True, use_ema: bool = False
) -> LoadResult:
    """Load a checkpoint into a model; each tensor is read straight to its place.

    Names and shapes are compared before anything is read, and the model is changed only after
    everything has been read: an error leaves it as it was.

    Parameters
    ----------
    model : lucid_c.nn.Module
        The model.
    path : str or os.PathLike
        As for `open_checkpoint`.
    strict : bool, optional
        Whether missing and unexpected names are errors. Wrong shapes always are.
    use_ema : bool, optional
        Take the averaged weights of a training checkpoint.

    Returns
    -------
    LoadResult
        The missing and the unexpected names.

    Raises
    ------
    ValueError
        If the file does not fit the model; the message lists the names.
    """
    targets = {name: tuple(slot.shape) for name, slot in model._state_slots().items()}
    with open_checkpoint(path, use_ema) as checkpoint:
        shapes = {name: entry.shape for name, entry in checkpoint.items()}
        keys = map_keys(shapes, targets)
        try:
            _check(checkpoint, keys, strict)
            arrays = model._fresh(keys.sources)
            _fill(checkpoint, keys, arrays)
        except ValueError as error:
            raise ValueError(f"{checkpoint.path}: {error}") from None
    model._commit(arrays)
    return LoadResult(keys.missing, keys.unexpected)


def _fill(checkpoint: Checkpoint, keys: KeyMap, arrays: dict[str, np.ndarray]) -> None:
    """Read all tensors, those of a safetensors file on as many threads as the model runs on."""
    jobs = deque(keys.sources.items())
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            try:
                target, source = jobs.popleft()
            except IndexError:  # all are taken
                return
            try:
                _named(source, checkpoint[source].read_into, arrays[target])
            except BaseException as error:
                errors.append(error)

    helpers = []
    if checkpoint.format == "safetensors" and len(jobs) > 1:
        for _ in range(min(get_num_threads(), MAX_READERS) - 1):
            helper = Thread(target=work)
            try:
                helper.start()
            except RuntimeError:  # no more threads to be had
                break
            helpers.append(helper)
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]


def _check(checkpoint: Checkpoint, keys: KeyMap, strict: bool) -> None:
    for name in keys.missing:
        if name in checkpoint.unreadable:
            raise ValueError(depends_on(name, checkpoint.unreadable[name]))
    if keys.misshapen or (strict and (keys.missing or keys.unexpected)):
        raise ValueError(f"the weights do not fit the model:\n  {keys.describe()}")
    for source in keys.sources.values():
        _named(source, checkpoint[source].check_readable)


def _named(name: str, action: Any, *args: Any) -> Any:
    try:
        return action(*args)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
