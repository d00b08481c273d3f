# SPDX-License-Identifier: MIT
"""Find the weights in what a checkpoint holds, and give them their plain names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .entry import Entry
from .placeholder import Placeholder

# Where training scripts keep the weights, in order of preference.
PLAIN_KEYS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "content",
)
EMA_KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_state_dict",
    "ema_model",
    "model_ema_state_dict",
    "params_ema",
)
# What wrappers put before every name.
PREFIXES = (
    "module.",
    "model.",
    "_orig_mod.",
    "state_dict.",
    "backbone.",
    "net.",
    "network.",
    *(key + "." for key in EMA_KEYS),
)
MAX_WRAPPERS = 50

Found = dict[str, Entry | Placeholder]


def is_counter(name: str) -> bool:
    """Whether a tensor only counts training steps and is no weight."""
    return name.rpartition(".")[2] in ("num_batches_tracked", "n_averaged")


def is_tensor_like(value: Any) -> bool:
    """Whether a value is a tensor, or the placeholder of one by its name."""
    if isinstance(value, Placeholder):
        marks = ("_rebuild", "Storage", "Tensor", "Parameter", "numpy.ndarray")
        return any(mark in value.name for mark in marks)
    return isinstance(value, Entry)


def _tensors(tree: Any) -> Found:
    """Return the tensors of a mapping; unknown objects stay, to be named where they are wanted."""
    if not isinstance(tree, dict) or not any(map(is_tensor_like, tree.values())):
        return {}
    return {
        key: value
        for key, value in tree.items()
        if isinstance(key, str) and isinstance(value, (Entry, Placeholder))
    }


def _search(tree: Any, keys: tuple[str, ...], seen: set[int] | None = None) -> Found:
    """Return the tensors under the first of `keys` that has any, however deep."""
    seen = {id(tree)} if seen is None else seen
    for key in keys:
        value = tree.get(key)
        if not isinstance(value, dict) or id(value) in seen or len(seen) > MAX_WRAPPERS:
            continue
        seen.add(id(value))
        # an EMA object may hold its weights under any of the usual keys
        found = _search(value, PLAIN_KEYS, seen) or _tensors(value)
        if found:
            return found
    return {}


def _reject_object(value: Any, what: str) -> None:
    if isinstance(value, Placeholder):
        raise ValueError(
            f"{what} is a pickled {value.name} object, which is not built; "
            "save its state_dict() instead"
        )


def find_state_dict(tree: Any, use_ema: bool = False) -> Found:
    """Find the weights in the object of a checkpoint.

    A training checkpoint has them under ``state_dict``, ``model`` or the like; averaged weights
    lie beside them (``state_dict_ema``, ``model_ema``, ...). Otherwise the object itself is the
    mapping of names to tensors, or its only member that is one.

    Parameters
    ----------
    tree : object
        Plain containers with an `Entry` for each tensor.
    use_ema : bool, optional
        Take the averaged weights. Without them the averaged ones are only taken where a file
        has no others.

    Returns
    -------
    dict of str to Entry or Placeholder
        The tensors, with a placeholder where one depends on an unknown global.

    Raises
    ------
    ValueError
        If there are none, or if it is not clear which are meant.
    """
    _reject_object(tree, "the content of the file")
    if not isinstance(tree, dict):
        kind = "tensor" if isinstance(tree, Entry) else type(tree).__name__
        raise ValueError(f"the file holds no mapping of tensors but a {kind}")
    if use_ema:
        found = _search(tree, EMA_KEYS) or _flat_ema(_tensors(tree), True)
        if not found:
            for key in EMA_KEYS:
                _reject_object(tree.get(key), repr(key))
            raise ValueError(f"no averaged (EMA) weights in the file; it has {_names(tree)}")
        return found
    found = _search(tree, PLAIN_KEYS) or _flat_ema(_tensors(tree), False)
    if not found:
        for key in PLAIN_KEYS:
            _reject_object(tree.get(key), repr(key))
        found = _search(tree, EMA_KEYS)
    if found:
        return found
    members = {key: value for key, value in tree.items() if _tensors(value)}
    if len(members) != 1:
        what = "several sets of tensors" if members else "no tensors"
        raise ValueError(f"{what} in the file; it has {_names(members or tree)}")
    return _tensors(next(iter(members.values())))


def _flat_ema(found: Found, use_ema: bool) -> Found:
    """Divide a flat mapping whose averaged weights are marked by a prefix of their names."""
    marks = tuple(key + "." for key in EMA_KEYS)
    marked = {key: value for key, value in found.items() if key.startswith(marks)}
    if use_ema:
        return marked
    return {key: value for key, value in found.items() if key not in marked} or marked


def _names(tree: dict) -> str:
    names = [f"{key!r:.60}" for key in list(tree)[:8]]
    return ", ".join(names) + (", ..." if len(tree) > 8 else "") if names else "nothing"


def common_prefix(names: Mapping[str, Any] | list[str]) -> str:
    """Return the wrapper prefixes, one after the other, that all `names` begin with."""
    prefix = ""
    rest = [name for name in names if "." in name or not is_counter(name)]
    while rest:
        for candidate in PREFIXES:
            if all(name.startswith(candidate) and name != candidate for name in rest):
                prefix += candidate
                rest = [name[len(candidate) :] for name in rest]
                break
        else:
            break
    return prefix


def strip_prefixes(entries: Found) -> Found:
    """Return `entries` without the wrapper prefixes that all their names share."""
    prefix = common_prefix(entries)
    return {name.removeprefix(prefix): value for name, value in entries.items()}
