# SPDX-License-Identifier: MIT
"""The command line: one module per command, and what they share."""

from .command_line import main

__all__ = ["main"]
