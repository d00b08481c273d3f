# SPDX-License-Identifier: MIT
"""``lucid-c bench``: latency and throughput of a model."""

from ..models._cards import find_card
from .options import add_compat, add_json, count, counts, size
from .output import ms, print_json, progress, shape_text, table
from .timing import measure

EXAMPLES = """\
The weights are random (speed does not depend on them) and so are the images. A row is one batch
size and thread count: the median time of a call, the fastest and the slowest call, images per
second and 10^9 floating-point operations per second (two per multiply-add), both from the median.

examples:
  lucid-c bench resnet_18
  lucid-c bench resnest_50 --batch 1,4,16 --threads 1,2 --runs 20
  lucid-c bench resnet_50 --size 320x320 --json
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure a model's speed over batch sizes and thread counts",
        description="Measure latency and throughput over batch sizes and thread counts.",
        epilog=EXAMPLES,
    )
    parser.add_argument("model", metavar="NAME", help="a model (see lucid-c list)")
    parser.add_argument(
        "--batch", type=counts, default=[1, 8], metavar="N,...", help="batch sizes (default: 1,8)"
    )
    parser.add_argument(
        "--threads",
        type=counts,
        metavar="N,...",
        help="thread counts (default: 1 and what lucid-c config shows)",
    )
    parser.add_argument(
        "--size", type=size, metavar="HxW", help="size of the images (default: the model's own)"
    )
    parser.add_argument(
        "--runs", type=count, default=10, metavar="N", help="timed calls each (default: 10)"
    )
    parser.add_argument(
        "--warmup", type=count, default=2, metavar="N", help="untimed calls before (default: 2)"
    )
    add_compat(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args):
    """Measures and prints."""
    import lucid_c

    card = find_card(args.model)
    shape = (3, *(args.size or (card.image_size, card.image_size)))
    usual = lucid_c.get_num_threads()
    threads = args.threads or sorted({1, usual})
    model = lucid_c.create_model(args.model, compat=args.compat)
    try:
        results = bench(model, shape, args.batch, threads, args.runs, args.warmup)
    finally:
        lucid_c.set_num_threads(usual)
    config = lucid_c.config()
    report = {
        "model": card.name,
        "compat": args.compat,
        "input_shape": shape,
        "cpu": config["cpu"],
        "isa": config["isa"],
        "runs": args.runs,
        "warmup": args.warmup,
        "results": results,
    }
    if args.json:
        print_json(report)
    else:
        print(
            f"{card.name}, images of {shape_text(shape)}, {config['isa']} on {config['cpu']}, "
            f"{args.runs} calls each\n\n{result_table(results)}"
        )


def bench(model, image_shape, batches, threads, runs, warmup):
    """One dict of times for every batch size and thread count."""
    import numpy as np

    import lucid_c
    from lucid_c import _core

    macs = _core.info(model, (1, *image_shape))["macs"]
    draw = np.random.default_rng(0)
    results = []
    with progress(len(batches) * len(threads) * (runs + warmup), " calls") as step:
        for batch in batches:
            images = draw.standard_normal((batch, *image_shape), dtype=np.float32)
            for count in threads:
                lucid_c.set_num_threads(count)
                times = measure(lambda images=images: model(images), runs, warmup, step)
                results.append(
                    {
                        "batch": batch,
                        "threads": count,
                        "median_seconds": times.median,
                        "fastest_seconds": times.fastest,
                        "slowest_seconds": times.slowest,
                        "images_per_second": batch / times.median,
                        "gflops": 2e-9 * macs * batch / times.median,
                    }
                )
    return results


def result_table(results):
    """The results as text."""
    rows = [
        (
            str(row["batch"]),
            str(row["threads"]),
            ms(row["median_seconds"]),
            ms(row["fastest_seconds"]),
            ms(row["slowest_seconds"]),
            f"{row['images_per_second']:.1f}",
            f"{row['gflops']:.1f}",
        )
        for row in results
    ]
    header = ("batch", "threads", "median ms", "fastest ms", "slowest ms", "images/s", "GFLOP/s")
    return table(header, rows, ">" * len(header))
