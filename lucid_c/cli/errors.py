# SPDX-License-Identifier: MIT
"""Errors of the command line, and any error as one line of text."""

import os


class CommandError(Exception):
    """The command cannot do what was asked; the message says why."""


def one_line(error):
    """The message of an error without line breaks; of an `OSError`, without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.strerror}: {os.fspath(error.filename)!r}"
    else:
        text = str(error) or ("out of memory" if isinstance(error, MemoryError) else repr(error))
    return " ".join(text.split())
