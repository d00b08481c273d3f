# SPDX-License-Identifier: MIT
"""What is printed: tables, JSON, amounts with units, progress bars."""

import contextlib
import json
import math
import sys


def table(header, rows, align):
    """Text in columns, one line per row.

    Parameters
    ----------
    header : sequence of str
        The columns' titles.
    rows : iterable of sequences of str
        The cells.
    align : str
        One character per column: ``"<"`` for text, ``">"`` for numbers.

    Returns
    -------
    str
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if side == "<" else cell.rjust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ).rstrip()
        for line in lines
    )


def facts(pairs):
    """Lines of a name and a text, the texts below each other."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in pairs)


def print_json(value):
    """Prints JSON; numbers that JSON does not have (NaN, infinities) become null."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size_text(count):
    """An amount of memory, in the largest binary unit of which there is at least one."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def counted(number, noun):
    """A number and its noun, in the plural where it has to be."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shape_text(shape):
    """A shape with crosses between its sizes."""
    return " x ".join(map(str, shape))


def ms(seconds):
    """Milliseconds with about four digits."""
    value = seconds * 1e3
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}"


@contextlib.contextmanager
def progress(total, unit, quiet=False):
    """A progress bar on stderr, where that is a terminal and tqdm is installed.

    Yields
    ------
    callable
        ``step(n=1)`` says that so many more are done.
    """
    bar = None
    if not quiet and total > 1 and sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=total, unit=unit, file=sys.stderr, leave=False)
    try:
        yield bar.update if bar is not None else lambda n=1: None
    finally:
        if bar is not None:
            bar.close()
