# SPDX-License-Identifier: MIT
"""``lucid-c list`` and ``lucid-c config``."""

from ..models._cards import CARDS
from .errors import CommandError
from .options import add_json
from .output import print_json, table

LIST_EXAMPLES = """\
examples:
  lucid-c list
  lucid-c list resnest
  lucid-c list 'resnext_101*'
"""
CONFIG_EXAMPLES = """\
environment:
  LUCID_C_ISA          scalar, avx2 or avx512: the highest instruction set that may be used
  LUCID_C_NUM_THREADS  how many threads to use
  LUCID_C_CONV         direct: no convolution by Winograd's algorithm

examples:
  lucid-c config
  LUCID_C_ISA=avx2 LUCID_C_NUM_THREADS=1 lucid-c config
"""


def add_commands(commands):
    """Adds the two commands to the parser."""
    parser = commands.add_parser(
        "list",
        help="list the models",
        description="List the models: parameters, image size, other names of the same graph.",
        epilog=LIST_EXAMPLES,
    )
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="part of a name, or a pattern with * and ?"
    )
    add_json(parser)
    parser.set_defaults(run=run_list)

    parser = commands.add_parser(
        "config",
        help="show the CPU, kernels and threads in use",
        description="Show what this process runs with: CPU, instruction set, threads and why.",
        epilog=CONFIG_EXAMPLES,
    )
    add_json(parser)
    parser.set_defaults(run=run_config)


def run_list(args):
    """Prints the models whose names fit."""
    import lucid_c

    pattern = args.pattern or "*"
    names = lucid_c.list_models(pattern if set("*?[") & set(pattern) else f"*{pattern}*")
    if not names:
        raise CommandError(f"no model's name fits {pattern!r} (see 'lucid-c list')")
    cards = [CARDS[name] for name in names]
    if args.json:
        print_json(
            [
                {
                    "name": card.name,
                    "parameters": card.parameters,
                    "image_size": card.image_size,
                    "aliases": card.aliases,
                }
                for card in cards
            ]
        )
        return
    rows = [
        (card.name, f"{card.parameters:,}", f"{card.image_size} px", ", ".join(card.aliases))
        for card in cards
    ]
    header = ("model", "parameters", "image size", "other names")
    print(table(header, rows, "<>><"))


def run_config(args):
    """Prints the configuration of the process."""
    import lucid_c

    if args.json:
        print_json(lucid_c.config())
    else:
        lucid_c.show_config()
