# SPDX-License-Identifier: MIT
"""``lucid-c demo``: a trained model reads digits that it has never seen."""

import sys

from .options import add_threads, use_threads
from .output import counted, facts, ms, shape_text, size_text
from .pictures import save_grid, text_art
from .timing import measure

RUNS = 20
SHOWN = 5  # digits beside each other
PICTURE = "lucid-c-demo.png"
EXAMPLES = """\
examples:
  lucid-c demo
  lucid-c demo --threads 1 --picture digits.png
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="classify handwritten digits with a trained model that is in the package",
        description="Classify handwritten digits with a small trained ResNeSt. Model and digits "
        "are in the package; nothing but NumPy is needed. With Pillow a picture of the digits is "
        "written.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--picture", metavar="FILE", help=f"where the PNG picture goes (default: {PICTURE})"
    )
    add_threads(parser)
    parser.set_defaults(run=run)


def run(args):
    """Classifies, prints, draws."""
    import numpy as np

    from lucid_c import digits

    use_threads(args)
    print(facts(machine()), end="\n\n", flush=True)

    model = digits.resnest()
    images, labels = digits.held_out()
    x = digits.to_input(images)
    logits = np.asarray(model(x), np.float64)
    found = logits.argmax(1)
    wrong = found != labels
    print(facts([*model_lines(model), *result_lines(wrong), *speed_lines(model, x)]), end="\n\n")

    share = np.exp(logits - logits.max(1, keepdims=True))
    share = 100 * (share / share.sum(1, keepdims=True)).max(1)
    right = np.flatnonzero(~wrong)
    some = right[:: max(1, -(-len(right) // SHOWN))]
    print(text_art(images[some], [f"{found[i]}  {share[i]:.0f} %" for i in some]))
    missed = np.flatnonzero(wrong)[:SHOWN]
    if len(missed):
        print("\nWrong ones:\n")
        titles = [f"{labels[i]} as {found[i]}  {share[i]:.0f} %" for i in missed]
        print(text_art(images[missed], titles))
    titles = [str(f) if f == t else f"{t} as {f}" for f, t in zip(found, labels, strict=True)]
    print(f"\n{draw(args.picture, images, titles, wrong)}")


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


def model_lines(model):
    """What runs."""
    values = model.num_parameters()
    size = f"{counted(values, 'parameter')}, {size_text(4 * values)}"
    return [("model", f"a small ResNeSt, {size}, trained with lucid_c")]


def result_lines(wrong):
    """How good it is."""
    n, right = len(wrong), int((~wrong).sum())
    return [
        ("digits", f"{n} of 8x8 pixels that it was not trained on (UCI optical digits)"),
        ("accuracy", f"{100 * right / n:.2f} %, {right} of {n}"),
    ]


def speed_lines(model, x):
    """How fast it is: one image per call, and all of them in one call."""
    lines = []
    for name, batch in (("one image", x[:1]), ("all images", x)):
        times = measure(lambda batch=batch: model(batch), RUNS, 2)
        rate = f"{len(batch) / times.median:,.0f} images per second"
        lines.append((name, f"{shape_text(batch.shape)}: {ms(times.median)} ms, {rate}"))
    return lines


def draw(path, images, titles, wrong):
    """Writes the picture; returns what to say about it.

    Without a ``path`` it is an extra: what prevents it is said, and is no error.
    """
    try:
        width, height = save_grid(path or PICTURE, images, titles, wrong)
    except ImportError as error:
        problem = f"pictures need Pillow ({error}); install it with: pip install lucid_c[images]"
        if path:
            raise ImportError(problem) from error
        return f"No picture was written: {problem}"
    except OSError as error:
        if path:
            raise
        return f"No picture was written: {error}"
    return f"All digits with the answers: {path or PICTURE}, {width} x {height} pixels"
