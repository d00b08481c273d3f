# SPDX-License-Identifier: MIT
"""The ``lucid-c`` command: which commands there are, and how each ends.

Exit status: 0 done, 1 a mistake in lucid_c itself, 2 an error that the caller can mend, 130 Ctrl-C,
141 the reader of a pipe has gone. An error is one line on stderr; LUCID_C_DEBUG=1 shows where it
came from.
"""

import argparse
import contextlib
import os
import sys
import warnings

from . import bench, classify, demo, export, info, listing, profile, train, validate
from .errors import CommandError, one_line

COMMANDS = (classify, train, validate, info, listing, bench, profile, export, demo)

# What the package raises for bad input, missing files and packages, and lack of memory.
EXPECTED = (CommandError, ValueError, OSError, ImportError, MemoryError, RuntimeError)

DESCRIPTION = "ResNet, ResNeXt and ResNeSt on CPUs."
EXAMPLES = """\
examples:
  lucid-c demo
  lucid-c list resnest
  lucid-c info resnet_50
  lucid-c classify cat.jpg --model resnet_50 --weights resnet50.safetensors
  lucid-c train flowers/ --model resnest_50 --output runs/flowers
  lucid-c bench resnet_18 --batch 1,8 --threads 1,2

lucid-c COMMAND --help tells more about a command, with examples.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors, and takes no abbreviated options."""

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        """Raise `CommandError` where argparse would print its usage and exit."""
        raise CommandError(f"{message} (see '{self.prog} --help')")


def build_parser():
    """The parser of the whole command line; ``run`` in its result is the command's function."""
    from lucid_c import __version__

    parser = Parser(prog="lucid-c", description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"lucid_c {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for module in COMMANDS:
        module.add_commands(commands)
    return parser


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status.
    """
    # A file name may hold what the terminal's encoding does not have.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("lucid-c: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141
    except Exception as error:
        return _report(error)


def _run(argv):
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version
        return stop.code or 0
    if args.command is None:
        raise CommandError("no command given; try 'lucid-c demo' or 'lucid-c --help'")
    return args.run(args) or 0


def _show_warning(message, *details):
    print(f"lucid-c: warning: {one_line(message)}", file=sys.stderr)


def _report(error):
    if os.environ.get("LUCID_C_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    if isinstance(error, EXPECTED):
        print(f"lucid-c: error: {one_line(error)}", file=sys.stderr)
        return 2
    text = f"{type(error).__name__}: {one_line(error)}"
    print(f"lucid-c: error: internal: {text}; LUCID_C_DEBUG=1 shows where", file=sys.stderr)
    return 1


def _drop_output():
    """Lets the interpreter flush what is left of stdout into nothing when it exits."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
