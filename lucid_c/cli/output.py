# SPDX-License-Identifier: MIT
"""What is printed: tables, JSON, amounts with units, progress bars."""

import contextlib
import json
import sys

from .._reporting import counted, facts, ms, plain, shape_text, size_text, table

__all__ = [
    "counted",
    "facts",
    "ms",
    "print_json",
    "progress",
    "shape_text",
    "size_text",
    "table",
]


def print_json(value):
    """Prints JSON; numbers that JSON does not have (NaN, infinities) become null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


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
