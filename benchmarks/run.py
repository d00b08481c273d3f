# SPDX-License-Identifier: MIT
"""Compares lucid_c with its peers on this machine. See README.md beside this file."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from engines import ENGINES, OURS
from machine import slug
from report import make_reports, no_errors, replace_text, row_lines
from suites import SUITES, Run
from team import ONEDNN_ISA, EngineError, Process, missing

TABLE_MODELS = [
    "resnet_18",
    "resnet_34",
    "resnet_50",
    "wide_resnet_50",
    "resnext_50_32x4d",
    "resnest_14",
    "resnest_50",
    "resnest_50_4s2x40d",
    "resnest_50_1s4x24d",
    "resnet_200",
    "resnest_200",
]
FASTEST = [OURS, "onnxruntime", "openvino"]
# What a suite takes where the command line says nothing; "most" threads is one per core.
DEFAULTS = {
    "inference": {"models": TABLE_MODELS, "batch": [1, 8], "threads": "1 and most"},
    "scaling": {
        "models": ["resnet_50", "resnest_50"],
        "batch": [1, 2, 4, 8, 16, 32, 64],
        "threads": "1 to most",
        "engines": FASTEST,
    },
    "coldstart": {"models": ["resnet_50", "resnest_50"], "batch": [1], "threads": "most"},
    "memory": {"models": ["resnet_50", "resnest_50"], "batch": [1, 8, 32], "threads": "most"},
    "training": {
        "models": ["resnet_18", "resnet_50", "resnext_50_32x4d", "resnest_50"],
        "batch": [16],
        "threads": "most",
    },
    "spinning": {"models": ["resnet_50"], "batch": [1], "threads": "most"},
}
SIZES = [(64, 64), (160, 160), (193, 257), (224, 224), (256, 256), (320, 320), (416, 416)]
COMPILE = ["resnet_18", "resnet_50", "resnest_50"]
QUICK = {"models": ["resnet_18", "resnest_14"], "batch": [1], "rounds": 3, "seconds": 2.0}


def numbers(text):
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise ValueError
    return values


def words(text):
    return [word.strip() for word in text.split(",") if word.strip()]


def image_size(text):
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) > 2 or min(sides) < 1:
        raise ValueError
    return sides[0], sides[-1]


def image_sizes(text):
    return [image_size(word) for word in text.split(",")]


def build_parser():
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Compare lucid_c with its peers. Nothing is installed; peers that are missing "
        "are named and left out.",
        epilog="run.py report DIR makes the tables and plots of a folder again from its JSON.",
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"{', '.join(SUITES)}, or all (default: inference)",
    )
    parser.add_argument("--models", type=words, help="names of models")
    parser.add_argument("--batch", type=numbers, help="batch sizes")
    parser.add_argument("--threads", type=numbers, help="thread counts")
    parser.add_argument(
        "--image-size",
        dest="size",
        type=image_size,
        metavar="S or HxW",
        help="size of the images (default: each model's own)",
    )
    parser.add_argument(
        "--sizes",
        type=image_sizes,
        default=SIZES,
        help="image sizes of the suite scaling (default: 64 to 416, and 193x257)",
    )
    parser.add_argument("--engines", type=words, help=f"some of: {', '.join(ENGINES)}")
    parser.add_argument(
        "--isa", choices=sorted(ONEDNN_ISA), help="cap the instruction set of all who obey"
    )
    parser.add_argument("--rounds", type=int, help="rounds of a row (default: 7)")
    parser.add_argument(
        "--seconds", type=float, help="time for the calls of a row, all engines (default: 8)"
    )
    parser.add_argument(
        "--compile",
        type=words,
        default=COMPILE,
        help="models for torch.compile, at the largest thread count; 'all': all, and at every "
        "thread count; 'none' (default: %(default)s)",
    )
    parser.add_argument(
        "--compile-seconds",
        type=float,
        default=240.0,
        help="torch.compile is given up after so long (default: 240)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--quick", action="store_true", help="two small models, batch 1, three short rounds"
    )
    return parser


def thread_counts(rule, most):
    counts = {"1 and most": [1, most], "1 to most": range(1, most + 1), "most": [most]}
    return sorted(set(counts[rule]))


def complete(options, suite, most):
    """The options of one suite, with its defaults for what the command line left open."""
    filled = argparse.Namespace(**vars(options))
    given = {
        "engines": list(ENGINES),
        "rounds": 7,
        "seconds": 8.0,
        **DEFAULTS[suite],
        **(QUICK if options.quick else {}),
    }
    given["threads"] = thread_counts(given["threads"], most)
    for key, value in given.items():
        if getattr(filled, key) is None:
            setattr(filled, key, value)
    if OURS in filled.engines:  # the others are compared with it
        filled.engines = [OURS, *(e for e in filled.engines if e != OURS)]
    return filled


def check(parser, options):
    """Ends the program where the command line makes no sense."""
    suites = options.suites or ["inference"]
    if suites == ["all"]:
        suites = list(SUITES)
    for suite in suites:
        if suite not in SUITES:
            parser.error(f"no suite {suite!r}; there are {', '.join(SUITES)} and all")
    for engine in options.engines or []:
        if engine not in ENGINES:
            parser.error(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be 1 or more, not {options.rounds}")
    for name in ("seconds", "compile_seconds"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0, not {value}")
    if "spinning" in suites and options.engines and OURS not in options.engines:
        parser.error(f"the suite spinning needs {OURS} among the engines")
    return suites


def run_suite(name, options, machine, folder):
    """Runs a suite and gives its document, which is also in ``folder/name.json``."""
    begun = time.monotonic()
    document = {
        "suite": name,
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": machine,
        "options": {
            key: value for key, value in vars(options).items() if key not in ("out", "suites")
        },
        "missing": missing(options.engines),
        "rows": [],
    }
    options.engines = [e for e in options.engines if e not in document["missing"]]

    def keep(rows):
        document["rows"] = rows
        document["seconds"] = round(time.monotonic() - begun, 1)
        replace_text(folder / f"{name}.json", json.dumps(document, indent=1) + "\n")

    def say(row):
        print(*row_lines(name, row), sep="\n", file=sys.stderr, flush=True)

    run = Run(options, machine, keep, say)
    try:
        SUITES[name](run)
    finally:
        run.files.close()
    return document


def main(arguments=None):
    parser = build_parser()
    words_given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(words_given)
    if options.suites[:1] == ["report"]:
        if len(options.suites) != 2 or not list(Path(options.suites[1]).glob("*.json")):
            parser.error("report takes a folder with the JSON files of a run")
        print(make_reports(Path(options.suites[1])))
        return 0
    suites = check(parser, options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with Process(isa=options.isa) as process:
            machine = process.ask("describe")
            known = process.ask("model_names")
    except EngineError as error:
        parser.exit(1, f"run.py: lucid_c cannot be used: {error}\n")
    for model in options.models or []:
        if model not in known:
            parser.error(f"no model {model!r}; there are {', '.join(known)}")
    cpu = slug(machine["cpu"]) + (f"-{options.isa}" if options.isa else "")
    folder = options.out or Path(__file__).resolve().parent / "results" / cpu
    folder.mkdir(parents=True, exist_ok=True)
    bad = False
    for name in suites:
        filled = complete(options, name, machine["usable_cores"])
        for engine, reason in missing(filled.engines).items():
            print(f"without {engine}: {reason}", file=sys.stderr)
        document = run_suite(name, filled, machine, folder)
        bad |= not no_errors(document)
    print(make_reports(folder, suites))
    print(f"in {folder}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
