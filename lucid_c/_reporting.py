"""How reports are written: tables, amounts with units, values for JSON."""

import math


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


def plain(value):
    """The value with what JSON does not have (NaN, infinities) as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
