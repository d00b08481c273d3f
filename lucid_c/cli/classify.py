# SPDX-License-Identifier: MIT
"""``lucid-c classify``: what is on a picture."""

import argparse
import sys

from ..models._cards import find_card
from .errors import CommandError, one_line
from .images import find_images
from .options import add_compat, add_json, add_threads, count, use_threads
from .output import print_json, progress

EXAMPLES = """\
An IMAGE is a file, a folder (searched with its subfolders) or a quoted pattern. Pictures are
resized and cropped as the model's card says; --image-size, --crop and --interpolation say
otherwise, for weights that were trained with other settings.

examples:
  lucid-c classify cat.jpg --model resnet_50 --weights resnet50.safetensors
  lucid-c classify photos/ 'more/*.png' --model resnest_50 --weights resnest50.pth --topk 3
  lucid-c classify photos/ --model resnet_18 --weights w.npz --json --keep-going > classes.json
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "classify",
        help="classify images with a model's weights from a file",
        description="Print the most probable classes of images.",
        epilog=EXAMPLES,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or pattern")
    parser.add_argument("--model", required=True, metavar="NAME", help="see lucid-c list")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help=".safetensors, .pth, .pt, .pth.tar or .npz: timm, torchvision, the ResNeSt authors, "
        "lucid, lucid_c",
    )
    parser.add_argument(
        "--topk", type=count, default=5, metavar="K", help="classes per image (default: 5)"
    )
    parser.add_argument(
        "--names", metavar="FILE", help="class names, one per line (default: ImageNet's for 1000)"
    )
    parser.add_argument(
        "--batch", type=count, default=8, metavar="N", help="images per call (default: 8)"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="go on after an image that cannot be read"
    )
    parser.add_argument("--image-size", type=count, metavar="N", help="side of the model's input")
    parser.add_argument("--crop", type=_share, metavar="F", help="crop's share of the short side")
    parser.add_argument("--interpolation", metavar="NAME", help="bilinear, bicubic, ...")
    add_threads(parser)
    add_compat(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _share(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is expected, not {text!r}") from None


def run(args):
    """Classifies and prints; returns 2 if an image was left out."""
    from lucid_c.transforms import create_transform

    find_card(args.model)  # a wrong name is the first thing to know
    found = list(find_images(args.images))
    problems = Problems(args.keep_going)
    for argument, problem in found:
        if problem:
            problems.add(argument, problem)
    paths = [path for path, problem in found if not problem]
    changes = {"image_size": args.image_size, "crop": args.crop}
    changes["interpolation"] = args.interpolation
    transform = create_transform(
        args.model, **{name: value for name, value in changes.items() if value is not None}
    )
    use_threads(args)
    model = load_model(args.model, args.weights, args.compat)
    names = read_names(args.names, model.num_classes)

    results = []
    hide_bar = not args.json and sys.stdout is not None and sys.stdout.isatty()
    with progress(len(paths), " images", quiet=hide_bar) as step:
        for path, classes in classify(model, transform, paths, args.batch, problems):
            best = top_classes(classes, args.topk, names)
            if args.json:
                results.append({"image": path, "classes": best})
            else:
                print_classes(path, best)
            step()
    if args.json:
        results += [{"image": image, "error": text} for image, text in problems.found]
        print_json({"model": args.model, "weights": args.weights, "results": results})
    return 2 if problems.found else 0


class Problems:
    """Images that cannot be read: an error, or a line on stderr if we are to go on."""

    def __init__(self, keep_going):
        self.keep_going = keep_going
        self.found = []

    def add(self, image, text):
        """Takes note of one."""
        if not self.keep_going:
            raise CommandError(text)
        print(f"lucid-c: error: {text}", file=sys.stderr)
        self.found.append((image, text))


def load_model(name, weights, compat):
    """The model with its weights, and as many classes as these have."""
    import lucid_c
    from lucid_c.checkpoints import open_checkpoint
    from lucid_c.checkpoints.keys import HEADS

    with open_checkpoint(weights) as checkpoint:
        heads = [head + "weight" for head in ("fc.", *HEADS) if head + "weight" in checkpoint]
        shape = checkpoint[heads[0]].shape if heads else ()
    classes = shape[0] if len(shape) == 2 else 1000
    return lucid_c.create_model(name, num_classes=classes, checkpoint_path=weights, compat=compat)


def read_names(path, classes):
    """The class names in a text file, or None for the usual ones."""
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        names = file.read().splitlines()
    if len(names) != classes:
        raise CommandError(f"{path!r} has {len(names)} names, but the model has {classes} classes")
    return names


def classify(model, transform, paths, batch, problems):
    """Yields (path, logits) in the order of the paths; what cannot be read goes to `problems`."""
    import numpy as np

    side = transform.image_size
    images = np.empty((min(batch, max(len(paths), 1)), 3, side, side), np.float32)
    ready = []
    for i, path in enumerate(paths):
        try:
            images[len(ready)] = transform(path)
            ready.append(path)
        except (ValueError, OSError) as error:
            problems.add(path, one_line(error))
        if ready and (len(ready) == len(images) or i == len(paths) - 1):
            logits = np.asarray(model(images[: len(ready)]))
            yield from zip(ready, logits, strict=True)
            ready = []


def top_classes(logits, topk, names):
    """The best classes as dicts of index, name and probability."""
    from lucid_c.imagenet import topk as best

    return [
        {"index": index, "name": name, "probability": probability}
        for index, name, probability in best(logits, topk, names)[0]
    ]


def print_classes(path, classes):
    """Prints one image's classes."""
    print(path)
    for row in classes:
        print(f"  {100 * row['probability']:6.2f} %  {row['index']:4d}  {row['name']}")
