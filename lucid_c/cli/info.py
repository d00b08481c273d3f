# SPDX-License-Identifier: MIT
"""``lucid-c info``: the layers of a model, and what they cost."""

import math

from ..models._cards import find_card
from .options import add_compat, add_json, count, size
from .output import facts, print_json, shape_text, size_text, table

EXAMPLES = """\
examples:
  lucid-c info resnet_50
  lucid-c info resnest_50 --size 288x384 --summary
  lucid-c info resnet_18 --algorithms
  lucid-c info resnext_50_32x4d --json
"""
FLOAT_BYTES = 4


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "info",
        help="show a model's layers, parameters, multiply-adds and memory",
        description="Show the layers of a model for one image: output shapes, parameters, "
        "multiply-adds and memory, and the totals. Nothing is run.",
        epilog=EXAMPLES,
    )
    parser.add_argument("model", metavar="NAME", help="a model (see lucid-c list)")
    parser.add_argument(
        "--size", type=size, metavar="HxW", help="size of the image (default: the model's own)"
    )
    parser.add_argument("--num-classes", type=count, default=1000, metavar="N", help="classes")
    parser.add_argument(
        "--algorithms",
        action="store_true",
        help="print the algorithm of every convolution, and why not another, instead",
    )
    parser.add_argument("--summary", action="store_true", help="print the totals only")
    add_compat(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args):
    """Prints the layers and totals."""
    if args.algorithms:
        print_algorithms(args)
        return
    report = describe(args.model, args.size, args.num_classes, args.compat)
    if args.summary:
        del report["layers"]
    if args.json:
        print_json(report)
        return
    if not args.summary:
        print(layer_table(report["layers"]), end="\n\n")
    print(totals(report))


def print_algorithms(args):
    """Prints the convolutions and their algorithms."""
    from dataclasses import asdict

    import lucid_c

    card = find_card(args.model)
    model = lucid_c.create_model(
        args.model, num_classes=args.num_classes, compat=args.compat, init=False
    )
    shape = (1, 3, *(args.size or (card.image_size, card.image_size)))
    choices = lucid_c.explain(model, shape)
    if args.json:
        rows = [asdict(choice) for choice in choices]
        print_json({"model": card.name, "input_shape": shape, "convolutions": rows})
    else:
        print(choices)


def describe(name, image_size=None, num_classes=1000, compat=None):
    """A model's layers and totals, as a dict; the model is built, but not run."""
    import lucid_c
    from lucid_c import _core

    card = find_card(name)
    model = lucid_c.create_model(name, num_classes=num_classes, compat=compat, init=False)
    side = card.image_size
    shape = (1, 3, *(image_size or (side, side)))
    result = _core.info(model, shape)
    card_shape = (1, 3, side, side * 1546 // 1213)
    layers = [
        {
            "name": row["scope"] or row["op"],
            "op": row["op"],
            "input_shape": row["in_shape"],
            "output_shape": row["out_shape"],
            "parameters": row["params"],
            "multiply_adds": row["macs"],
            "output_bytes": math.prod(row["out_shape"]) * FLOAT_BYTES,
        }
        for row in result["rows"]
    ]
    return {
        "model": card.name,
        "compat": compat,
        "input_shape": shape,
        "output_shape": layers[-1]["output_shape"],
        "layers": layers,
        "parameters": result["params"],
        "parameter_bytes": result["params"] * FLOAT_BYTES,
        "multiply_adds": result["macs"],
        "output_bytes": sum(layer["output_bytes"] for layer in layers),
        "largest_output_bytes": max(layer["output_bytes"] for layer in layers),
        "card": {
            "input_shape": card_shape,
            "flops": _core.info(model, card_shape)["card_flops"],
        },
    }


def layer_table(layers):
    """The layers as text."""
    rows = [
        (
            layer["name"],
            layer["op"],
            shape_text(layer["output_shape"]),
            f"{layer['parameters']:,}",
            f"{layer['multiply_adds']:,}",
            size_text(layer["output_bytes"]),
        )
        for layer in layers
    ]
    header = ("layer", "operation", "output", "parameters", "multiply-adds", "output memory")
    return table(header, rows, "<<<>>>")


def totals(report):
    """The totals as text."""
    card = report["card"]
    compat = f" (compat={report['compat']!r})" if report["compat"] else ""
    return facts(
        [
            ("model", report["model"] + compat),
            ("input", shape_text(report["input_shape"])),
            ("output", shape_text(report["output_shape"])),
            ("parameters", f"{report['parameters']:,} ({size_text(report['parameter_bytes'])})"),
            ("multiply-adds", f"{report['multiply_adds']:,}"),
            (
                "model card's FLOPs",
                f"{card['flops']:,} (its own counting, input {shape_text(card['input_shape'])})",
            ),
            (
                "output memory",
                f"{size_text(report['output_bytes'])} for all layers together, "
                f"{size_text(report['largest_output_bytes'])} for the largest",
            ),
        ]
    )
