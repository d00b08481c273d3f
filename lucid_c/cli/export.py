# SPDX-License-Identifier: MIT
"""``lucid-c export``: a model as an ONNX file."""

from ..models._cards import find_card
from .classify import load_model
from .options import add_compat, count, size

EXAMPLES = """\
The file has one input and one output, and takes any number of images unless --batch fixes it; the
height and width are fixed. Without --weights the weights are random.

examples:
  lucid-c export resnet_50 resnet50.onnx --weights resnet50.safetensors
  lucid-c export resnest_50 resnest50.onnx --weights resnest50.pth --image-size 288x384 --opset 18
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a model as an ONNX file",
        description="Write a model as an ONNX file.",
        epilog=EXAMPLES,
    )
    parser.add_argument("model", metavar="NAME", help="a model (see lucid-c list)")
    parser.add_argument("file", metavar="FILE", help="the file to write, such as model.onnx")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint (default: random weights)")
    parser.add_argument(
        "--image-size",
        type=size,
        metavar="HxW",
        help="size of the images (default: the model's own)",
    )
    parser.add_argument(
        "--batch", type=count, metavar="N", help="fix the number of images (default: any)"
    )
    parser.add_argument(
        "--opset",
        type=count,
        default=17,
        metavar="N",
        help="version of the operators (default: 17)",
    )
    parser.add_argument(
        "--external-data",
        action="store_true",
        default=None,
        help="put the weights into a second file (default: from 2 GiB on)",
    )
    add_compat(parser)
    parser.set_defaults(run=run)


def run(args):
    """Builds, loads, writes."""
    import lucid_c

    card = find_card(args.model)
    if args.weights is None:
        model = lucid_c.create_model(args.model, compat=args.compat)
    else:
        model = load_model(args.model, args.weights, args.compat)
    height, width = args.image_size or (card.image_size, card.image_size)
    model.export_onnx(
        args.file,
        input_shape=(args.batch or 1, 3, height, width),
        dynamic_batch=args.batch is None,
        opset=args.opset,
        external_data=args.external_data,
    )
    print(f"{card.name} written to {args.file}")
