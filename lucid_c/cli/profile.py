# SPDX-License-Identifier: MIT
"""``lucid-c profile``: where the time of a model goes."""

from ..models._cards import find_card
from .options import add_compat, add_json, add_threads, count, size, use_threads

EXAMPLES = """\
The weights are random (speed does not depend on them) and so is the input. A row is one executed
step under the path of its layer; batch norm, additions and ReLU are part of their convolution.
Operations are two per multiply-add of the sums that define a layer: Winograd's algorithm needs
fewer, so that it may be above 100 % of the peak. Peak and memory bandwidth are measured.

examples:
  lucid-c profile resnet_50
  lucid-c profile resnest_50 --batch 8 --threads 1 --plot profile.png
  lucid-c profile resnet_18 --image-size 288x384 --json
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "profile",
        help="show time, speed and algorithm of every layer",
        description="Measure a model layer by layer: time, multiply-adds, share of the peak and "
        "of the memory bandwidth, algorithm.",
        epilog=EXAMPLES,
    )
    parser.add_argument("model", metavar="NAME", help="a model (see lucid-c list)")
    parser.add_argument(
        "--batch", type=count, default=1, metavar="N", help="images per call (default: 1)"
    )
    parser.add_argument(
        "--image-size",
        type=size,
        metavar="HxW",
        help="size of the images (default: the model's own)",
    )
    parser.add_argument(
        "--repeats", type=count, default=10, metavar="N", help="measured calls (default: 10)"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the times and a roofline: .png, .svg or .pdf"
    )
    add_threads(parser)
    add_compat(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args):
    """Measures, draws, prints."""
    import lucid_c

    card = find_card(args.model)
    if args.plot:
        from .. import _profile_plot  # noqa: F401 - says what is missing before anything is measured
    use_threads(args)
    height, width = args.image_size or (card.image_size, card.image_size)
    model = lucid_c.create_model(args.model, compat=args.compat)
    report = lucid_c.profile(model, (args.batch, 3, height, width), repeats=args.repeats)
    if args.plot:
        report.plot(args.plot)
    print(report.to_json() if args.json else report)
