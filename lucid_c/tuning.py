"""Which algorithm each convolution gets: why, and by measurement where that is asked for.

Without tuning the choice is the first of a fixed list that can do the layer and is expected to be
worth it: the same on every machine of an instruction set. `tune` measures all that can do it, and
keeps the fastest.
"""

import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._files import replacing
from ._inputs import check_model, eval_mode, example
from ._reporting import counted, shape_text, table
from .autograd import no_grad

if TYPE_CHECKING:
    from .nn import Module

__all__ = [
    "Choice",
    "Explanation",
    "Tuning",
    "clear_tuning",
    "explain",
    "load_tuning",
    "tune",
]

Layer = tuple[int, ...]

# What identifies a layer, in the order of the core.
FIELDS = (
    "in_channels",
    "out_channels",
    "kernel_height",
    "kernel_width",
    "stride_height",
    "stride_width",
    "pad_top",
    "pad_bottom",
    "pad_left",
    "pad_right",
    "dilation_height",
    "dilation_width",
    "groups",
    "height",
    "width",
    "block",
    "block_groups",
)
FORMAT = 1
REPEATS = 5

_lock = threading.RLock()
_table: dict[Layer, str] = {}  # what the core has


@dataclass(frozen=True)
class Choice:
    """A convolution and the algorithm that it gets.

    Parameters
    ----------
    layer : str
        Path of the module in the model.
    input_shape, weight_shape, output_shape : tuple of int
        Of this convolution.
    stride : tuple of int
        Height and width.
    groups : int
        Its groups.
    algorithm : str
        What it gets.
    refusals : dict of str to str
        The algorithms before that one in the list, and why each was not taken; where a measurement
        decided, all others.
    others : tuple of str
        The algorithms that could do the layer as well.
    tuned : bool
        Whether a measurement decided.
    """

    layer: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    stride: tuple[int, int]
    groups: int
    algorithm: str
    refusals: dict[str, str]
    others: tuple[str, ...]
    tuned: bool

    @property
    def reason(self) -> str:
        """The refusals in one line."""
        return "; ".join(f"{name}: {why}" for name, why in self.refusals.items())


class Explanation(tuple[Choice, ...]):
    """What `explain` returns: a tuple of `Choice`; ``print`` shows it as a table."""

    def __str__(self) -> str:
        rows = [
            (
                row.layer,
                shape_text(row.input_shape),
                shape_text(row.weight_shape),
                shape_text(row.stride),
                str(row.groups),
                row.algorithm + (" (tuned)" if row.tuned else ""),
                row.reason,
            )
            for row in self
        ]
        header = ("layer", "input", "weight", "stride", "groups", "algorithm", "not taken")
        return table(header, rows, "<<<<><<")

    __repr__ = __str__


def _rows(model: "Module", x: Any) -> list[dict[str, Any]]:
    with eval_mode(check_model(model)):
        return _core.algorithms(model, x)


def explain(model: "Module", x: ArrayLike | Sequence[int]) -> Explanation:
    """Say for every convolution which algorithm it gets, and why not one before it in the list.

    Nothing is run, unless a forward in Python reads the numbers of a tensor.

    Parameters
    ----------
    model : lucid_c.nn.Module
        The model, which is looked at in eval mode.
    x : array_like or tuple of int
        Its input, or a shape.

    Returns
    -------
    Explanation
        A tuple of `Choice`, one per convolution in order; ``print`` shows a table.
    """
    choices = []
    for row in _rows(model, example(x)):
        names = [name for name, _, _, _ in row["candidates"]]
        chosen = next(name for name, _, _, taken in row["candidates"] if taken)
        key = dict(zip(FIELDS, row["key"], strict=True))
        tuned = _table.get(row["key"]) == chosen
        asked = row["candidates"] if tuned else row["candidates"][: names.index(chosen)]
        refusals = {
            name: refuses or (not tuned and avoids) or "measured, and slower"
            for name, refuses, avoids, taken in asked
            if not taken
        }
        could = [name for name, refuses, _, _ in row["candidates"] if refuses is None]
        choices.append(
            Choice(
                layer=row["scope"],
                input_shape=row["in_shape"],
                weight_shape=row["weight_shape"],
                output_shape=row["out_shape"],
                stride=(key["stride_height"], key["stride_width"]),
                groups=key["groups"],
                algorithm=chosen,
                refusals=refusals,
                others=tuple(name for name in could if name != chosen),
                tuned=tuned,
            )
        )
    return Explanation(choices)


# --- the table of this process, and its files


def _set(entries: dict[Layer, str]) -> None:
    """Replace the table, here and in the core."""
    _core.set_tuning(list(entries.items()))
    _table.clear()
    _table.update(entries)


def clear_tuning() -> None:
    """Forget all measurements of this process; files stay. Every layer gets its usual algorithm."""
    with _lock:
        _set({})


def _machine() -> dict[str, str]:
    from . import __version__

    config = _core.config()
    return {"version": __version__, "cpu": config["cpu"], "isa": config["isa"]}


def _default_path() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = "-".join(_machine()[key] for key in ("version", "isa", "cpu"))
    name = re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-")
    return os.path.join(cache, "lucid_c", f"tune-{name}.json")


def _check_layer(row: Any) -> tuple[Layer, str]:
    if not isinstance(row, dict) or not isinstance(row.get("algorithm"), str):
        raise ValueError("a layer without an algorithm")
    key = tuple(row["layer"][field] for field in FIELDS)
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 40 for n in key):
        raise ValueError("a layer with a size that is no number")
    return key, row["algorithm"]


def _read(path: str) -> tuple[list[dict[str, Any]], dict[Layer, str]]:
    """All machines of a file, and the layers of this one; ValueError if it is damaged."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        machines = [each for each in content["machines"] if each["layers"] is not None]
        mine = {}
        for each in machines:
            if {key: each[key] for key in _machine()} == _machine():
                mine.update(_check_layer(row) for row in each["layers"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a tuning file ({type(error).__name__}: {error})") from error
    return machines, mine


def _read_or_warn(path: str) -> tuple[list[dict[str, Any]], dict[Layer, str]]:
    try:
        return _read(path)
    except ValueError as error:
        warnings.warn(f"{path!r} is ignored: {error}", RuntimeWarning, stacklevel=4)
        return [], {}


def load_tuning(path: str | os.PathLike[str]) -> int:
    """Use what `tune` measured before, in this process or in another.

    Bits of results may change, as with `tune`.

    Parameters
    ----------
    path : str or os.PathLike
        A file that `tune` has written. Of what it holds, the measurements of this version of
        lucid_c, this CPU and this instruction set are used. A damaged file is ignored, with a
        warning.

    Returns
    -------
    int
        How many layers have been loaded.

    Raises
    ------
    OSError
        If there is no such file.
    """
    _, mine = _read_or_warn(os.fspath(path))
    with _lock:
        return _load(os.fspath(path), mine)


def _load(path: str, mine: dict[Layer, str]) -> int:
    try:
        _set({**_table, **mine})
    except ValueError as error:  # an algorithm that is not there
        warnings.warn(f"{path!r} is ignored: {error}", RuntimeWarning, stacklevel=4)
        return 0
    return len(mine)


def _write(path: str, machines: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Add rows to this machine's part of a file."""
    here = _machine()
    others = [each for each in machines if {key: each[key] for key in here} != here]
    known = [row for each in machines if each not in others for row in each["layers"]]
    fresh = [row["layer"] for row in rows]
    mine = {**here, "layers": [row for row in known if row["layer"] not in fresh] + rows}
    content = {"format": FORMAT, "machines": [*others, mine]}
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


# --- measuring


class Tuning(tuple[dict[str, Any], ...]):
    """What `tune` returns: one dict per layer; ``print`` shows it as a table.

    Each has ``layers`` (the paths of the modules that are such a layer), ``layer`` (sizes by
    name), ``algorithm``, ``default`` (what it gets without tuning), ``seconds`` (by algorithm;
    empty where the choice came from the file), and there is ``path``, the file.
    """

    path: str

    def __str__(self) -> str:
        lines = []
        for row in self:
            size = row["layer"]
            plane = shape_text([size[f] for f in ("in_channels", "height", "width")])
            times = ", ".join(f"{n} {1e3 * s:.3f} ms" for n, s in row["seconds"].items())
            name = row["layers"][0]
            more = len(row["layers"]) - 1
            lines.append(
                (
                    f"{name} and {counted(more, 'other')}" if more else name,
                    plane,
                    row["algorithm"],
                    row["default"],
                    times or "measured before",
                )
            )
        return table(("layer", "input", "algorithm", "without tuning", "times"), lines, "<<<<<")

    __repr__ = __str__


def _flusher() -> Callable[[], None]:
    """A function after which no weights are in a cache, as when a whole model runs."""
    config = _core.config()
    array = np.zeros(2 * max(config["l3"], config["l2"], 1 << 23) // 4, np.float32)

    def flush() -> None:
        np.add(array, 1, out=array)

    return flush


def _measure(
    key: Layer, batch: int, names: list[str], flush: Callable[[], None]
) -> dict[str, float]:
    """The shortest time of each algorithm for a layer."""
    size = dict(zip(FIELDS, key, strict=True))
    draw = np.random.default_rng(0)
    x = draw.standard_normal(
        (batch, size["in_channels"], size["height"], size["width"]), dtype=np.float32
    )
    shape = (
        size["out_channels"],
        size["in_channels"] // size["groups"],
        size["kernel_height"],
        size["kernel_width"],
    )
    w = _core.new_param(draw.standard_normal(shape, dtype=np.float32))
    rest = (x, w, key[4:6], key[6:10], key[10:12], size["groups"])
    best: dict[str, float] = {}
    for turn in range(REPEATS + 1):
        for name in names:
            flush()
            with no_grad():
                _, report = _core.profile(_core.conv2d_by, name, *rest)
            seconds = sum(row["seconds"] for row in report["rows"] if row["op"] == "conv2d")
            if turn:  # the first packs the weights
                best[name] = min(seconds, best.get(name, seconds))
    return best


def tune(
    model: "Module",
    x: ArrayLike | Sequence[int],
    *,
    cache: str | os.PathLike[str] | None = None,
) -> Tuning:
    """Measure the convolutions of a model; see `lucid_c.nn.Module.tune`."""
    x = example(x)
    path = _default_path() if cache is None else os.fspath(cache)
    with _lock:
        machines: list[dict[str, Any]] = []
        if os.path.exists(path):
            machines, mine = _read_or_warn(path)
            _load(path, mine)
        layers: dict[Layer, dict[str, Any]] = {}
        for row in _rows(model, x):
            could = {name: avoids for name, refuses, avoids, _ in row["candidates"] if not refuses}
            if len(could) > 1:
                known = {
                    "layers": [],
                    "could": list(could),
                    "default": next(name for name, avoids in could.items() if not avoids),
                    "batch": row["in_shape"][0],
                }
                layers.setdefault(row["key"], known)["layers"].append(row["scope"])
        flush = _flusher()
        fresh, result = {}, []
        for key, known in layers.items():
            seconds: dict[str, float] = {}
            if key not in _table:
                seconds = _measure(key, known["batch"], known["could"], flush)
                fresh[key] = min(seconds, key=seconds.__getitem__)
            result.append(
                {
                    "layers": known["layers"],
                    "layer": dict(zip(FIELDS, key, strict=True)),
                    "algorithm": fresh.get(key) or _table[key],
                    "default": known["default"],
                    "seconds": seconds,
                }
            )
        if fresh:
            rows = [
                {name: row[name] for name in ("layer", "algorithm", "seconds")}
                | {"batch": x_batch, "threads": _core.get_num_threads()}
                for row, x_batch in zip(result, [k["batch"] for k in layers.values()], strict=True)
                if row["seconds"]
            ]
            try:
                _write(path, machines, rows)
            except OSError as error:
                if cache is not None:
                    raise
                warnings.warn(f"the tuning was not kept: {error}", RuntimeWarning, stacklevel=3)
            _set({**_table, **fresh})
    tuning = Tuning(result)
    tuning.path = path
    return tuning
