"""Where the time of a model goes, layer by layer, and how near that is to what the machine can do.

>>> import lucid_c
>>> report = lucid_c.profile(lucid_c.create_model("resnet_50"), (1, 3, 224, 224))
>>> print(report)  # doctest: +SKIP
"""

import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._files import replacing
from ._inputs import check_model, example
from ._reporting import counted, facts, ms, plain, shape_text, size_text, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .nn import Module

__all__ = ["Profile", "ProfileRow", "profile"]


@dataclass(frozen=True)
class ProfileRow:
    """One executed step.

    Parameters
    ----------
    layer : str
        Path of the module in the model, as in the state dict; of a convolution with what is fused
        into it, the convolution's; of a step of backward, of the module whose operation it
        differentiates. Empty for a step that belongs to the model itself.
    op : str
        The operation, ``"conv2d"``.
    algorithm : str
        What ran, ``"winograd 4x4"``.
    seconds : float
        The median over the repeats.
    multiply_adds : int
        Of the sums that define the operation, whatever the algorithm; 0 where that means nothing.
    bytes : int
        What is read and written if everything is touched once: inputs, packed weights, output.
    input_shape, output_shape : tuple of int
        Of the first input, of the output.
    peak_share : float
        Two operations per multiply-add, as a share of what the processor can do with this many
        threads. Winograd's algorithm does fewer than it is counted for, and may be above 1.
    bandwidth_share : float
        The bytes per second, as a share of the memory's. Above 1 where caches hold the data.
    """

    layer: str
    op: str
    algorithm: str
    seconds: float
    multiply_adds: int
    bytes: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    peak_share: float
    bandwidth_share: float

    @property
    def gflops(self) -> float:
        """10^9 operations per second, two per multiply-add."""
        return 2e-9 * self.multiply_adds / self.seconds if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """10^9 bytes per second."""
        return 1e-9 * self.bytes / self.seconds if self.seconds else 0.0

    @property
    def name(self) -> str:
        """The layer, or the operation where there is no layer."""
        return self.layer or self.op


@dataclass(frozen=True)
class Profile:
    """What `profile` returns; ``print`` shows it as a table.

    Parameters
    ----------
    rows : tuple of ProfileRow
        The steps in order.
    model : str
        Name of the model's class.
    input_shape : tuple of int
        Shape of the input.
    threads : int
        The threads that took part.
    repeats : int
        The calls that were measured.
    call_seconds : float
        The median time of a whole call.
    peak_flops : float
        Multiplications and additions per second that these threads can do, measured.
    bandwidth : float
        Bytes per second that these threads can read from memory, measured.
    arena_bytes, arena_bound : int
        Memory planned for intermediate values, and its lower bound: the most bytes that are alive
        at once.
    packed_bytes : int
        Weights in the order in which the kernels read them.
    cpu, isa : str
        The processor and the instruction set in use.
    """

    rows: tuple[ProfileRow, ...]
    model: str
    input_shape: tuple[int, ...]
    threads: int
    repeats: int
    call_seconds: float
    peak_flops: float
    bandwidth: float
    arena_bytes: int
    arena_bound: int
    packed_bytes: int
    cpu: str
    isa: str

    @property
    def seconds(self) -> float:
        """The sum over the steps."""
        return sum(row.seconds for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """The sum over the steps."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def algorithms(self) -> dict[str, dict[str, Any]]:
        """Per algorithm, slowest first: ``steps``, ``seconds``, ``multiply_adds``, ``bytes``."""
        sums: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            zero = {"steps": 0, "seconds": 0.0, "multiply_adds": 0, "bytes": 0}
            each = sums.setdefault(row.algorithm, zero)
            each["steps"] += 1
            for key in ("seconds", "multiply_adds", "bytes"):
                each[key] += getattr(row, key)
        return dict(sorted(sums.items(), key=lambda item: -item[1]["seconds"]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, rows and sums included."""
        rows = [asdict(row) | {"gflops": row.gflops, "gbytes": row.gbytes} for row in self.rows]
        sums = {
            "seconds": self.seconds,
            "multiply_adds": self.multiply_adds,
            "algorithms": self.algorithms,
        }
        return plain({**asdict(self), "rows": rows, **sums})

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON to a file, whole or not at all."""
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(self.to_json() + "\n")

    def __str__(self) -> str:
        return "\n\n".join((self._layer_table(), self._algorithm_table(), self._facts()))

    def _cells(self, seconds: float, multiply_adds: int, count: int) -> tuple[str, ...]:
        share = seconds / self.seconds if self.seconds else 0.0
        rate = 2 * multiply_adds / seconds if seconds else 0.0
        speed = count / seconds if seconds else 0.0
        return (
            f"{1e3 * seconds:.3f}",
            f"{100 * share:.1f}",
            f"{1e-6 * multiply_adds:.1f}" if multiply_adds else "",
            f"{1e-9 * rate:.1f}" if multiply_adds else "",
            f"{100 * rate / self.peak_flops:.0f}" if multiply_adds else "",
            f"{1e-6 * count:.2f}",
            f"{100 * speed / self.bandwidth:.0f}",
        )

    def _layer_table(self) -> str:
        rows = [
            (
                row.layer,
                row.op,
                row.algorithm,
                shape_text(row.output_shape),
                *self._cells(row.seconds, row.multiply_adds, row.bytes),
            )
            for row in self.rows
        ]
        total = self._cells(self.seconds, self.multiply_adds, sum(row.bytes for row in self.rows))
        rows.append(("total", "", "", "", *total))
        return table(("layer", "operation", "algorithm", "output", *_COLUMNS), rows, "<<<<>>>>>>>")

    def _algorithm_table(self) -> str:
        rows = [
            (name, str(each["steps"]), *self._cells(*(each[k] for k in _SUMMED)))
            for name, each in self.algorithms.items()
        ]
        return table(("algorithm", "steps", *_COLUMNS), rows, "<>>>>>>>>")

    def _facts(self) -> str:
        threads = counted(self.threads, "thread")
        return facts(
            [
                ("model", f"{self.model}, input {shape_text(self.input_shape)}"),
                ("machine", f"{self.cpu}, {self.isa}, {threads}"),
                ("one call", f"{ms(self.call_seconds)} ms, the median of {self.repeats}"),
                ("peak", f"{1e-9 * self.peak_flops:.1f} GFLOP/s (measured)"),
                ("memory", f"{1e-9 * self.bandwidth:.1f} GB/s (measured)"),
                (
                    "arena",
                    f"{size_text(self.arena_bytes)} planned, {size_text(self.arena_bound)} is the "
                    "least possible",
                ),
                ("packed weights", size_text(self.packed_bytes)),
            ]
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw the time per layer, coloured by algorithm, and a roofline plot.

        Needs Matplotlib (``pip install lucid_c[plots]``).

        Parameters
        ----------
        path : str or os.PathLike, optional
            A file to write, whole or not at all; its ending says the format (``.png``, ``.svg``,
            ``.pdf``).

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ._profile_plot import draw

        figure = draw(self)
        if path is not None:
            kind = os.path.splitext(os.fspath(path))[1][1:].lower() or "png"
            known = figure.canvas.get_supported_filetypes()
            if kind not in known:
                raise ValueError(f"cannot draw a {kind!r} file; known: {', '.join(sorted(known))}")
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind)
        return figure


_COLUMNS = ("ms", "% of time", "M mult-adds", "GFLOP/s", "% of peak", "MB", "% of memory")
_SUMMED = ("seconds", "multiply_adds", "bytes")


def profile(
    model: "Module", x: ArrayLike | Sequence[int], repeats: int = 10, warmup: int = 2
) -> Profile:
    """Measure where the time of a model goes.

    Parameters
    ----------
    model : lucid_c.nn.Module
        The model, or any module that takes one input.
    x : array_like or tuple of int
        Its input, or a shape, which stands for random numbers.
    repeats : int, optional
        How many calls are measured; the times are medians over them. Default 10.
    warmup : int, optional
        How many calls go before them. Default 2; the first call plans and packs the weights.

    Returns
    -------
    Profile
        One row per executed step, sums, and what the machine can do, which is measured on first
        use for each number of threads (about 50 ms).

    Raises
    ------
    RuntimeError
        If two calls consist of different steps (a forward in Python that decides at random).
    """
    check_model(model)
    for name, value, least in (("repeats", repeats, 1), ("warmup", warmup, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    x = example(x)
    for _ in range(warmup):
        model(x)
    seconds, calls = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        _, each = _core.profile(model, x)
        seconds.append(time.perf_counter() - start)
        calls.append(each)
    kinds = {tuple((row["scope"], row["op"]) for row in each["rows"]) for each in calls}
    if len(kinds) > 1:
        raise RuntimeError("the calls of this model consist of different steps")
    last = calls[-1]
    peak, bandwidth, _ = _core.roofline(max(1, last["threads"]))
    rows = []
    for i, row in enumerate(last["rows"]):
        spent = statistics.median(each["rows"][i]["seconds"] for each in calls)
        rows.append(
            ProfileRow(
                layer=row["scope"],
                op=row["op"],
                algorithm=row["algorithm"],
                seconds=spent,
                multiply_adds=row["macs"],
                bytes=row["bytes"],
                input_shape=row["in_shape"],
                output_shape=row["out_shape"],
                peak_share=2 * row["macs"] / spent / peak if spent else 0.0,
                bandwidth_share=row["bytes"] / spent / bandwidth if spent else 0.0,
            )
        )
    config = _core.config()
    return Profile(
        rows=tuple(rows),
        model=type(model).__name__,
        input_shape=np.shape(x),
        threads=last["threads"],
        repeats=repeats,
        call_seconds=statistics.median(seconds),
        peak_flops=peak,
        bandwidth=bandwidth,
        arena_bytes=last["arena_bytes"],
        arena_bound=last["arena_bound"],
        packed_bytes=last["constant_bytes"],
        cpu=config["cpu"],
        isa=config["isa"],
    )
