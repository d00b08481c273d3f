# SPDX-License-Identifier: MIT
"""Types of command-line values, and options that several commands have."""

import argparse
import re

COMPAT_HELP = "lucid2: the ResNeSt graphs of lucid 2.x"


def count(text):
    """A positive integer."""
    if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a positive integer is expected, not {text!r}")
    return int(text)


def counts(text):
    """Positive integers between commas, each once: ``"1,2,8"``."""
    return list(dict.fromkeys(count(part) for part in text.split(",")))


def size(text):
    """(height, width) from ``"224"`` or ``"224x288"``."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    height, width = (int(n) for n in match.groups(match[1])) if match else (0, 0)
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"a size is HxW, as in 224x288, not {text!r}")
    return height, width


def add_threads(parser):
    """Adds ``--threads N``."""
    parser.add_argument(
        "--threads", type=count, metavar="N", help="threads to use (default: see lucid-c config)"
    )


def use_threads(args):
    """Does what ``--threads`` says."""
    if args.threads is not None:
        import lucid_c

        lucid_c.set_num_threads(args.threads)


def add_data_format(parser):
    """Adds ``--format folder|tar``."""
    parser.add_argument(
        "--format", choices=["folder", "tar"], help="class folders or tar files (default: folder)"
    )


def add_compat(parser):
    """Adds ``--compat lucid2``."""
    parser.add_argument("--compat", choices=["lucid2"], help=COMPAT_HELP)


def add_json(parser):
    """Adds ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
