# SPDX-License-Identifier: MIT
"""``lucid-c train``: a model on folders of pictures."""

import argparse
import dataclasses
import os
import sys

from ..models._cards import find_card
from .errors import CommandError
from .options import add_data_format

EXAMPLES = """\
DIR has two folders, train and val, each with a folder of pictures for every class (or with tar
files, --format tar). The defaults are the published recipe of ResNeSt; every option below can also
stand in the file of --config, as in: batch-size = 32. The command line wins over that file.

--output gets last.safetensors (the whole state, written after every epoch and every few minutes),
best.safetensors (weights for lucid-c classify), log.csv, event files for TensorBoard, classes.txt
and, with --plot, curves.png. Ctrl-C saves and stops; --resume goes on to the same bits.

examples:
  lucid-c train flowers/ --model resnest_50 --epochs 90 --output runs/flowers
  lucid-c train flowers/ --output runs/flowers --resume
  lucid-c train flowers/ --model resnet_18 --weights resnet18.pth --freeze layer1 --lr 0.01
  lucid-c train flowers/ --config recipe.toml --batch-size 32 --accumulate 2
"""


def add_commands(commands):
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train or fine-tune a model on folders of pictures",
        description="Train or fine-tune a model on folders of pictures.",
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,  # so that only what is given is there
    )
    parser.add_argument("data", metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--output", metavar="DIR", help="for all results (default: runs/MODEL)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that is in --output"
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with options")
    add_data_format(parser)
    add_recipe(parser)
    parser.set_defaults(run=run)


def add_recipe(parser):
    """Adds an option for every field of the recipe."""
    from lucid_c.training.recipe import Recipe

    group = parser.add_argument_group("recipe")
    for field in dataclasses.fields(Recipe):
        data = field.metadata
        name, text = "--" + field.name.replace("_", "-"), data["help"]
        if data["kind"] is bool:
            action = argparse.BooleanOptionalAction
            default = "yes" if field.default else "no"
            group.add_argument(name, action=action, help=f"{text} (default: {default})")
            continue
        if field.default is not None and not data["many"]:
            text += f" (default: {field.default})"
        elif data["many"] and field.default:
            text += f"; may be repeated (default: {' '.join(map(str, field.default))})"
        group.add_argument(
            name,
            type=number_type(data["kind"]),
            action="append" if data["many"] else "store",
            metavar="NAME" if data["kind"] is str else "N",
            help=text.replace("%", "%%"),
        )


def number_type(kind):
    """What argparse calls for a text; ranges are the recipe's to check."""

    def convert(text):
        try:
            return kind(text)
        except ValueError:
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{what} is expected, not {text!r}") from None

    return convert


def run(args):
    """Trains; returns 130 if it was stopped by a signal."""
    from lucid_c.training import TrainingInterrupted

    given = vars(args).copy()
    for name in ("command", "run"):
        given.pop(name)
    data, resume = given.pop("data"), given.pop("resume", False)
    overwrite = given.pop("overwrite", False)
    if resume and overwrite:
        raise CommandError("--resume and --overwrite exclude each other")
    config = given.pop("config", None)
    trainer = make_trainer(data, read_options(config, given), resume)
    try:
        trainer.fit(overwrite=overwrite)
    except TrainingInterrupted as stop:
        print(f"lucid-c: {stop}; the same command with --resume goes on", file=sys.stderr)
        return 130
    except FileExistsError as error:
        raise CommandError(f"{error}: --resume, --overwrite or another --output") from None
    if trainer.best is not None:
        best = trainer.best
        print(
            f"best: top-1 {100 * best['top1']:.2f} % in epoch {best['epoch'] + 1}, "
            f"{os.path.join(trainer.folder, 'best.safetensors')}"
        )
    return 0


def read_options(config, given):
    """The options of the file, and over them those of the command line."""
    from lucid_c.training import Recipe, read_toml

    if config is None:
        return given
    options, places = read_toml(config), ("output", "format")
    for name in places:
        if name in options and not isinstance(options[name], str):
            raise CommandError(f"{config}: {name} must be a text, not {options[name]!r}")
    try:
        Recipe.from_dict({k: v for k, v in options.items() if k not in places}, "the file")
    except (TypeError, ValueError) as error:
        raise CommandError(f"{config}: {error}") from None
    return options | given


def make_trainer(data, options, resume):
    """The trainer of a command, with its data and its model."""
    import lucid_c
    from lucid_c.training import Recipe, Trainer, build_model

    output, kind = options.pop("output", None), options.pop("format", "folder")
    if output is None:
        if "model" not in options:
            raise CommandError("--model NAME is needed (see lucid-c list)")
        output = os.path.join("runs", find_card(options["model"]).name)
    if resume:
        options = saved_options(output) | options
    recipe = Recipe.from_dict(options)
    if recipe.model is None:
        raise CommandError("--model NAME is needed (see lucid-c list)")
    find_card(recipe.model)  # a wrong name is the first thing to know
    train, val, classes = open_data(data, kind)
    if recipe.num_classes is not None:
        if recipe.num_classes < classes:
            raise CommandError(
                f"num_classes is {recipe.num_classes}, but {data!r} has {classes} classes"
            )
        classes = recipe.num_classes
    if recipe.threads is not None:
        lucid_c.set_num_threads(recipe.threads)
    lucid_c.random.seed(recipe.seed)
    start = dataclasses.replace(recipe, weights=None) if resume else recipe
    trainer = Trainer(
        build_model(start, classes, report),
        train.dataset,
        val.dataset,
        recipe,
        output,
        classes=train.classes,
        report=report,
    )
    if resume:
        trainer.resume()
        report(f"resumed after step {trainer.step}, {trainer.epoch} epochs done")
    return trainer


def saved_options(output):
    """The recipe of the run in a folder."""
    from lucid_c.checkpoints import load_training_state
    from lucid_c.training.trainer import LAST

    path = os.path.join(output, LAST)
    if not os.path.exists(path):
        raise CommandError(f"there is no run to resume in {output!r}")
    recipe = load_training_state(path).get("recipe")
    if not isinstance(recipe, dict):
        raise CommandError(f"{path!r} is not the state of a training run")
    return recipe


def open_data(data, kind):
    """The two sources in a folder, and how many classes they have."""
    from lucid_c.training import open_source

    if not os.path.isdir(data):
        raise CommandError(f"there is no folder {data!r}")
    places = [os.path.join(data, name) for name in ("train", "val")]
    train, val = (open_source(place, kind) for place in places)
    train.must_fit(val, (repr(places[0]), repr(places[1])))
    return train, val, max(train.num_classes, val.num_classes)


def report(text):
    """Prints a line at once, as a run takes long."""
    print(text, flush=True)
