# SPDX-License-Identifier: MIT
"""Spellings of parameter names, and the choice of the one that fits a model.

The names here are those of timm and torchvision (for ResNeSt also its authors'), so files of
theirs need no change. lucid 2.x and 3.x name the stem, the fused layers and the head otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from .state_dict import PREFIXES, common_prefix, is_counter

Shape = tuple[int, ...]

HEADS = ("classifier.", "last_linear.", "head.fc.", "head.")

_BLOCK = r"^(layer\d+\.\d+\.)"
# lucid: convolution, norm and ReLU of a block fused into one layer, or put in a Sequential.
# Patterns are compiled when a file has such names.
_FUSED = (
    (_BLOCK + r"conv2\.fc1\.conv\.", r"\1conv2.fc1."),
    (_BLOCK + r"conv2\.fc1\.bn\.", r"\1conv2.bn1."),
    (_BLOCK + r"conv(\d)\.bn\.", r"\1bn\2."),
    (_BLOCK + r"conv3\.0\.", r"\1conv3."),
    (_BLOCK + r"conv3\.1\.", r"\1bn3."),
)
_FUSED_CONV = _BLOCK + r"conv(\d)\.conv\."
_DOWNSAMPLE = _BLOCK + r"downsample\.([01])\."


class KeyMap(NamedTuple):
    """How the names in a file go to the names of a model.

    Attributes
    ----------
    sources : dict of str to str
        For each name of the model the name in the file; their shapes agree.
    missing : list of str
        Names of the model that the file does not have.
    unexpected : list of str
        Names in the file that the model does not have.
    misshapen : list of (str, tuple, str, tuple)
        Name and shape in the model, name and shape in the file, where the shapes differ.
    """

    sources: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[tuple[str, Shape, str, Shape]]

    def describe(self, limit: int = 8) -> str:
        """Return the disagreements, a line for each kind, with at most `limit` names each."""
        lines = []
        wrong = [
            f"{target} {shape} is {stored} in the file"
            + (f" as {source}" if source != target else "")
            for target, shape, source, stored in self.misshapen
        ]
        for title, items in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("wrong shape", wrong),
        ):
            if items:
                more = f", ... and {len(items) - limit} more" if len(items) > limit else ""
                lines.append(f"{title} ({len(items)}): {', '.join(items[:limit])}{more}")
        return "\n  ".join(lines)


def _from_lucid(names: Mapping[str, Shape], shift: bool) -> Callable[[str], str]:
    """Return the change from lucid's names; `shift`: its shortcut has no pooling in front."""
    deep = any(name.startswith("stem.3.") for name in names)
    split = {match[0] for name in names if (match := re.match(_BLOCK + r"conv2\.bn0\.", name))}

    def change(name: str) -> str:
        if name.startswith("stem."):
            if deep:
                return "conv1." + name.removeprefix("stem.")
            return re.sub(r"^stem\.([01])\.", lambda m: ("conv1.", "bn1.")[int(m[1])], name)
        for pattern, replacement in _FUSED:
            name = re.sub(pattern, replacement, name)
        fused = re.match(_FUSED_CONV, name)
        if fused and not (fused[2] == "2" and fused[1] + "conv2.bn0." in split):
            name = re.sub(_FUSED_CONV, r"\1conv\2.", name)
        if shift:
            name = re.sub(_DOWNSAMPLE, lambda m: f"{m[1]}downsample.{int(m[2]) + 1}.", name)
        return name

    return change


def _spellings(entries: Mapping[str, Shape]) -> Iterator[dict[str, str]]:
    """Yield each reading of the names: new name -> name in the file."""
    prefix = common_prefix(entries)
    readings = [{name.removeprefix(prefix): name for name in entries}]
    for part in PREFIXES:
        marked = [name for name in entries if name.startswith(part)]
        if 0 < len(marked) < len(entries):
            reading = {name.removeprefix(part): name for name in entries}
            if len(reading) < len(entries):
                # the same names with and without the prefix: two sets of weights
                reading = {name.removeprefix(part): name for name in marked}
            readings.append(reading)
    for reading in readings:
        yield reading
        names = {new: entries[old] for new, old in reading.items()}
        if any(name.startswith("stem.") for name in names):
            for shift in (False, True):
                change = _from_lucid(names, shift)
                changed = {change(new): old for new, old in reading.items()}
                if len(changed) == len(reading):  # else two names became one
                    yield changed


def _rename_head(reading: dict[str, str], targets: set[str]) -> dict[str, str]:
    """Call the linear head ``fc``, unless the model itself uses the name it has."""
    if "fc.weight" not in targets or "fc.weight" in reading:
        return reading
    for head in HEADS:
        if head + "weight" in reading and head + "weight" not in targets:
            renamed = {
                "fc." + name.removeprefix(head) if name.startswith(head) else name: source
                for name, source in reading.items()
            }
            return renamed if len(renamed) == len(reading) else reading
    return reading


def map_keys(entries: Mapping[str, Shape], targets: Mapping[str, Shape]) -> KeyMap:
    """Find for each name of a model the name in a file.

    Every known spelling is tried; the one whose names and shapes agree for most of the model is
    taken, the plainer one if two do equally well. A tensor is only ever paired with a target of
    its own shape. Counters of training steps (``num_batches_tracked``) are neither missing nor
    unexpected.

    Parameters
    ----------
    entries : Mapping of str to tuple of int
        Names and shapes in the file.
    targets : Mapping of str to tuple of int
        Names and shapes of the model.

    Returns
    -------
    KeyMap
        The pairs, and what disagrees.
    """
    prefix = common_prefix(targets)
    plain = {name.removeprefix(prefix): name for name in targets}
    best: tuple[int, dict[str, str]] = (-1, {})
    for spelled in _spellings(entries):
        reading = _rename_head(spelled, set(plain))
        score = sum(
            entries[reading[name]] == targets[target]
            for name, target in plain.items()
            if name in reading
        )
        if score > best[0]:
            best = (score, reading)
        if score == len(targets):
            break
    return _report(best[1], plain, entries, targets)


def _report(
    reading: dict[str, str],
    plain: dict[str, str],
    entries: Mapping[str, Shape],
    targets: Mapping[str, Shape],
) -> KeyMap:
    result = KeyMap({}, [], [], [])
    for name, target in plain.items():
        source = reading.get(name)
        if source is None:
            if not is_counter(target):
                result.missing.append(target)
        elif entries[source] == targets[target]:
            result.sources[target] = source
        else:
            result.misshapen.append((target, targets[target], source, entries[source]))
    taken = {reading[name] for name in plain if name in reading}
    result.unexpected.extend(name for name in entries if name not in taken and not is_counter(name))
    return result
