# SPDX-License-Identifier: MIT
"""What stands for an object that a file names and that is not built."""

from __future__ import annotations

from typing import Any


class Placeholder:
    """A global of the file that was not built, or the result of calling one.

    Attributes
    ----------
    name : str
        Full name in the file, such as ``"argparse.Namespace"``.
    args : tuple or None
        Arguments of the call; None for the global itself.
    state : object
        State the file wanted to give to the object; None if there is none.
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple | None = None, state: Any = None) -> None:
        self.name = name
        self.args = args
        self.state = state

    def __repr__(self) -> str:
        return f"<placeholder for {self.name}>"
