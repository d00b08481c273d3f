# SPDX-License-Identifier: MIT
"""``lucid-c validate``: the accuracy of a model on folders of pictures."""

import os
import time

from ..models._cards import find_card
from .errors import CommandError
from .options import (
    add_compat,
    add_data_format,
    add_json,
    add_threads,
    count,
    use_threads,
)
from .output import print_json, progress

EXAMPLES = """\
DIR has a folder of pictures for every class (or tar files, --format tar), or a folder val with
these. The classes are the folders in the order of their names, as in training.

examples:
  lucid-c validate imagenet/ --model resnest_50 --weights resnest50.pth
  lucid-c validate flowers/val --model resnest_50 --weights runs/flowers/best.safetensors --json
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "validate",
        help="measure the accuracy of a model on folders of pictures",
        description="Measure loss, top-1 and top-5 accuracy of a model on folders of pictures.",
        epilog=EXAMPLES,
    )
    parser.add_argument("data", metavar="DIR", help="folder with class folders, or with val/")
    parser.add_argument("--model", required=True, metavar="NAME", help="see lucid-c list")
    parser.add_argument("--weights", required=True, metavar="FILE", help="as for classify")
    parser.add_argument(
        "--use-ema", action="store_true", help="averaged weights of a training checkpoint"
    )
    parser.add_argument(
        "--batch", type=count, default=32, metavar="N", help="images per call (default: 32)"
    )
    parser.add_argument(
        "--workers", type=count, default=2, metavar="N", help="workers that read (default: 2)"
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )
    parser.add_argument("--image-size", type=count, metavar="N", help="side of the model's input")
    parser.add_argument("--crop", type=float, metavar="F", help="crop's share of the short side")
    parser.add_argument("--interpolation", metavar="NAME", help="bilinear, bicubic, ...")
    add_data_format(parser)
    add_threads(parser)
    add_compat(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args):
    """Validates and prints."""
    from lucid_c.data import DataLoader
    from lucid_c.training import evaluate, load_weights, open_source
    from lucid_c.transforms import create_transform

    find_card(args.model)  # a wrong name is the first thing to know
    folder = os.path.join(args.data, "val")
    source = open_source(folder if os.path.isdir(folder) else args.data, args.format or "folder")
    names = ("image_size", "crop", "interpolation")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    transform = create_transform(args.model, **changes)
    use_threads(args)
    model = load_weights(args.model, args.weights, use_ema=args.use_ema, compat=args.compat)
    if source.classes is not None and source.num_classes != model.num_classes:
        raise CommandError(
            f"{args.data!r} has {source.num_classes} classes, but the model has {model.num_classes}"
        )
    loader = DataLoader(
        source.dataset,
        args.batch,
        transform=transform,
        workers=args.workers,
        on_error="skip" if args.skip_unreadable else "raise",
    )
    start = time.monotonic()
    with progress(len(source.dataset), " images", quiet=args.json) as step:
        figures = evaluate(model, loader, step)
    rate = figures["images"] / max(time.monotonic() - start, 1e-9)
    if args.json:
        report = {"model": args.model, "weights": args.weights, "skipped": len(loader.skipped)}
        print_json(report | figures | {"images_per_second": rate})
        return 0
    print(
        f"{figures['images']} images: loss {figures['loss']:.4f}, top-1 "
        f"{100 * figures['top1']:.2f} %, top-5 {100 * figures['top5']:.2f} %, {rate:.1f} images/s"
    )
    return 0
