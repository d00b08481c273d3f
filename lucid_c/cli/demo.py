# SPDX-License-Identifier: MIT
"""``lucid-c demo``: one model from nothing to an answer."""

import sys
import time
from collections import Counter

from ..models._cards import find_card
from .options import add_threads, use_threads
from .output import counted, facts, ms, shape_text, size_text, table
from .pictures import landscape
from .timing import measure

MODEL = "resnest_50"
RUNS = 5
EXAMPLES = """\
examples:
  lucid-c demo
  lucid-c demo --threads 1
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="build a model and run it on a picture, without any file",
        description=f"Build {MODEL} with random weights and run it on a picture that is drawn "
        "here. Needs no files and nothing but NumPy.",
        epilog=EXAMPLES,
    )
    add_threads(parser)
    parser.set_defaults(run=run)


def run(args):
    """Builds, runs, prints."""
    import lucid_c

    use_threads(args)
    print(facts(machine()), end="\n\n", flush=True)

    start = time.perf_counter()
    lucid_c.random.seed(0)
    model = lucid_c.create_model(MODEL)
    built = time.perf_counter() - start
    parameters = counted(model.num_parameters(), "parameter")
    lines, best = first_runs(model)
    print(facts([("model", f"{MODEL}, {parameters}; built in {ms(built)} ms"), *lines]))
    print(
        f"\nThe weights are random, so the class with the largest logit, {best}, means nothing.\n"
        "For real answers load a checkpoint: lucid-c classify --help"
    )


def machine():
    """The versions, the CPU, the kernels and threads, as names and texts."""
    import numpy as np

    import lucid_c

    config = lucid_c.config()
    threads = counted(config["num_threads"], "thread")
    python = sys.version.split()[0]
    return [
        ("lucid_c", f"{lucid_c.__version__}, Python {python}, NumPy {np.__version__}"),
        ("cpu", config["cpu"]),
        ("kernels", f"{config['isa']}, {threads} ({config['threads_rule']})"),
    ]


def first_runs(model):
    """Runs the model on a picture; returns what there is to say, and the best class."""
    import numpy as np

    from lucid_c import _core

    card = find_card(MODEL)
    pixels = landscape(card.image_size, card.image_size)
    x = (pixels / 255 - card.mean) / card.std
    x = np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)
    start = time.perf_counter()
    logits = np.asarray(model(x))
    first = time.perf_counter() - start
    times = measure(lambda: model(x), RUNS, 0)
    profile = _core.profile(model, x)[1]
    span = f"{logits.min():.3g} to {logits.max():.3g}"
    lines = [
        ("picture", f"{shape_text(pixels.shape)}, drawn with NumPy"),
        ("input", f"{shape_text(x.shape)} {x.dtype}"),
        ("output", f"{shape_text(logits.shape)} {logits.dtype}, logits from {span}"),
        ("first call", f"{ms(first)} ms, planning and packing of the weights included"),
        ("next calls", f"{times_text(times)}"),
        *step_lines(profile["rows"]),
        *memory_lines(model, profile),
    ]
    return lines, int(logits.argmax())


def times_text(times):
    """The times of several calls."""
    span = f"{ms(times.fastest)} to {ms(times.slowest)}"
    return f"{ms(times.median)} ms, the median of {times.runs} ({span})"


def step_lines(rows):
    """What ran in one call: the steps of each operation and algorithm, and their time."""
    steps, seconds = Counter(), Counter()
    for row in rows:
        op, algorithm = row["op"], row["algorithm"] or ""
        told = op.rpartition("_")[2] in algorithm  # avg_pool2d needs no pool2d before it
        kind = algorithm if told else f"{op} {algorithm}".rstrip()
        steps[kind] += 1
        seconds[kind] += row["seconds"]
    lines = [
        (str(steps[kind]), f"x {kind}", f"{ms(spent)} ms") for kind, spent in seconds.most_common()
    ]
    text = table(("", "", ""), lines, "><>").splitlines()[1:]
    return [("" if i else "one call", line) for i, line in enumerate(text)]


def memory_lines(model, profile):
    """Where the memory goes."""
    from lucid_c import _core

    parts = [
        f"parameters {size_text(4 * model.num_parameters())}",
        f"packed weights {size_text(profile['constant_bytes'])}",
        f"intermediate values {size_text(profile['arena_bytes'])}",
    ]
    peak = f"{size_text(_core.memory_stats()['peak'])} in the core"
    return [("memory", ", ".join(parts)), ("at most", peak + whole_process())]


def whole_process():
    """The most memory that the process has had, as a text to append; empty where unknown."""
    try:
        import resource
    except ImportError:
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", {size_text(peak)} in the whole process"
