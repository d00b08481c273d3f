# SPDX-License-Identifier: MIT
"""The recipe: every number that a training depends on, with the published ones as defaults.

The defaults are those of the model cards of ResNeSt (Zhang et al. 2020, "ResNeSt: split-attention
networks", section 5.1). The same table of options gives the fields of `Recipe`, the options of
``lucid-c train`` and the names in its configuration file.
"""

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..transforms import INTERPOLATIONS

__all__ = ["Recipe", "read_toml"]

OPTIMIZERS = ("sgd", "adamw", "lamb", "lars")
LR = {"sgd": 0.1, "adamw": 5e-4, "lamb": 2e-3, "lars": 1.0}
WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05, "lamb": 0.02, "lars": 1e-4}
WARMUP_EPOCHS = 5.0
DEEP = ("resnest_200", "resnest_269", "resnet_200", "resnet_269", "resnet_1001")
DEEP_DROP_RATE = 0.2


def _option(
    default: Any,
    help: str,
    kind: type = float,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    choices: tuple[str, ...] = (),
    many: bool = False,
    free: bool = False,
) -> Any:
    """A field. `free`: does not change the result, so it may differ when a run is resumed."""
    metadata = {"help": help, "kind": kind, "least": least, "most": most, "above": above}
    metadata |= {"choices": choices, "many": many, "free": free}
    return field(default=default, metadata=metadata)


_count = {"kind": int, "least": 1}
_share = {"least": 0.0, "most": 1.0}
_any = {"least": 0.0}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Every argument is by keyword and has a default; ``lucid-c train --help`` lists them with a line
    each. ``None`` leaves the choice to the model or to another option. Numbers are checked.

    Attributes
    ----------
    model, num_classes, weights, compat, image_size, crop, interpolation : optional
        What `build_model` builds, and how pictures are prepared; by default the model's card.
    epochs, batch_size, accumulate : int
        Length; images per forward; forwards per step of the optimizer.
    optimizer, lr, lr_batch, momentum, nesterov, weight_decay, clip_norm, clip_value : optional
        The step. ``lr`` is for ``lr_batch`` images per step and scaled to ``batch_size *
        accumulate``; it is taken as it is if ``lr_batch`` is 0.
    schedule, warmup_epochs, min_lr, lr_steps, lr_gamma : optional
        The learning rate over time.
    label_smoothing, mixup, cutmix, auto_augment, color_jitter, lighting, flip, erasing, crop_scale
        Targets and pictures.
    drop_rate, drop_block_rate, drop_path_rate, zero_last_gamma : optional
        The model in training; `DropBlock2d` layers grow from 0 to ``drop_block_rate``, epoch by
        epoch.
    freeze : tuple of str
        Modules that keep their weights; their batch norms use their running statistics.
    ema, ema_warmup
        Moving average of the weights, which is then what is validated and kept as best.
    seed, stop_on_nan, skip_unreadable, val_batch, threads, workers, worker_kind, prefetch
        The run.
    save_minutes, log_every, tensorboard, plot, recompute
        Checkpoints, logs, memory.

    Raises
    ------
    TypeError, ValueError
        If an option is of the wrong kind or out of range; the message names it.
    """

    # The model
    model: str | None = _option(None, "name of the model, see lucid-c list", str)
    num_classes: int | None = _option(None, "outputs (default: the classes found)", **_count)
    weights: str | None = _option(None, "checkpoint to start from", str)
    compat: str | None = _option(
        None, "lucid2: the ResNeSt graphs of lucid 2.x", str, choices=("lucid2",)
    )
    freeze: tuple[str, ...] = _option(
        (), "module that is not trained, such as layer1; may be repeated", str, many=True
    )
    image_size: int | None = _option(None, "side of the images (default: the model's)", **_count)
    crop: float | None = _option(
        None, "validation: crop's share of the short side (default: the model's)", above=0.0
    )
    interpolation: str | None = _option(
        None, "filter for resizing (default: the model's)", str, choices=INTERPOLATIONS
    )
    # Length and step
    epochs: int = _option(270, "how often all images are seen", **_count)
    batch_size: int = _option(64, "images per forward", **_count)
    accumulate: int = _option(1, "forwards per step of the optimizer", **_count)
    optimizer: str = _option("sgd", "sgd, adamw, lamb or lars", str, choices=OPTIMIZERS)
    lr: float | None = _option(
        None, "highest learning rate (default: 0.1 for sgd, 5e-4, 2e-3, 1 for the others)", **_any
    )
    lr_batch: int = _option(256, "images per step that lr is meant for; 0: any", int, least=0)
    momentum: float = _option(0.9, "of sgd and lars", least=0.0, most=1.0)
    nesterov: bool = _option(False, "Nesterov momentum, with sgd", bool)
    weight_decay: float | None = _option(
        None, "not of biases and batch norm (default: 1e-4; adamw 0.05, lamb 0.02)", **_any
    )
    clip_norm: float | None = _option(None, "largest norm of all gradients together", above=0.0)
    clip_value: float | None = _option(None, "largest magnitude in a gradient", above=0.0)
    # The learning rate over time
    schedule: str = _option(
        "cosine", "cosine, step or constant", str, choices=("cosine", "step", "constant")
    )
    warmup_epochs: float | None = _option(
        None, "linear rise in the beginning (default: 5, at most a tenth of the epochs)", **_any
    )
    min_lr: float = _option(0.0, "lowest learning rate of cosine", **_any)
    lr_steps: tuple[int, ...] = _option(
        (30, 60, 80), "epochs after which step multiplies the rate", int, least=1, many=True
    )
    lr_gamma: float = _option(0.1, "factor of step", **_any)
    # Targets and pictures
    label_smoothing: float = _option(0.1, "share of a target that all classes have", **_share)
    mixup: float = _option(0.2, "strength of mixup; 0: none", **_any)
    cutmix: float = _option(0.0, "strength of CutMix; with mixup one of both per batch", **_any)
    auto_augment: str = _option(
        "imagenet", "imagenet, rand or none", str, choices=("imagenet", "rand", "none")
    )
    color_jitter: float = _option(0.4, "of brightness, contrast, saturation", **_share)
    lighting: float = _option(0.1, "noise of colours", **_any)
    flip: float = _option(0.5, "probability of the mirror image", **_share)
    erasing: float = _option(0.0, "probability of an erased rectangle", **_share)
    crop_scale: float = _option(0.08, "smallest share of the area in random crops", **_share)
    # The model in training
    drop_rate: float | None = _option(
        None,
        "dropout before the classifier (default: 0.2 with 200 layers or more, else 0)",
        **_share,
    )
    drop_block_rate: float = _option(
        0.1, "DropBlock in the last two stages, growing from 0 over the epochs", **_share
    )
    drop_path_rate: float = _option(0.0, "stochastic depth, of the last block", **_share)
    zero_last_gamma: bool = _option(True, "start every block as its shortcut", bool)
    ema: float | None = _option(None, "decay of a moving average of the weights", **_share)
    ema_warmup: bool = _option(False, "smaller decay in the beginning", bool)
    # The run
    seed: int = _option(0, "of weights, order, augmentation and dropout", int, least=0)
    stop_on_nan: bool = _option(False, "stop when the loss is not finite", bool)
    skip_unreadable: bool = _option(False, "leave out images that cannot be read", bool)
    val_batch: int | None = _option(
        None, "images per forward in validation (default: batch_size)", **_count, free=True
    )
    threads: int | None = _option(
        None, "threads (default: see lucid-c config)", **_count, free=True
    )
    workers: int = _option(2, "workers that prepare batches", int, least=0, free=True)
    worker_kind: str = _option(
        "thread", "thread or process", str, choices=("thread", "process"), free=True
    )
    prefetch: int = _option(2, "batches prepared ahead", **_count, free=True)
    save_minutes: float = _option(10.0, "minutes between two checkpoints", above=0.0, free=True)
    log_every: int = _option(50, "steps between two lines in TensorBoard", **_count, free=True)
    tensorboard: bool = _option(True, "write event files for TensorBoard", bool, free=True)
    plot: bool = _option(
        False, "draw the curves after each epoch (needs Matplotlib)", bool, free=True
    )
    recompute: bool = _option(False, "less memory, more time", bool, free=True)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            object.__setattr__(self, each.name, _checked(each, getattr(self, each.name)))
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer 'sgd' and a momentum")
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be less than epochs, {self.epochs}, not {self.warmup_epochs}"
            )
        if self.seed >= 1 << 64:
            raise ValueError(f"seed must be less than 2**64, not {self.seed}")

    @classmethod
    def from_dict(cls, options: Mapping[str, Any], where: str = "the recipe") -> Self:
        """Return a recipe from names and values; an unknown name is a ValueError."""
        known = [each.name for each in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{where} has an unknown option {name!r}{hint}")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """Return all options by name; tuples become lists."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def differences(self, other: "Recipe") -> list[str]:
        """Return the names of the options that differ and change the result."""
        return [
            each.name
            for each in dataclasses.fields(self)
            if not each.metadata["free"] and getattr(self, each.name) != getattr(other, each.name)
        ]

    # --- what depends on several options

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, for this batch size."""
        lr = LR[self.optimizer] if self.lr is None else self.lr
        return lr * self.batch_size * self.accumulate / self.lr_batch if self.lr_batch else lr

    @property
    def decay(self) -> float:
        """The weight decay of what decays."""
        given = self.weight_decay
        return WEIGHT_DECAY[self.optimizer] if given is None else given

    @property
    def warmup(self) -> float:
        """The epochs of the linear rise."""
        given = self.warmup_epochs
        return min(WARMUP_EPOCHS, self.epochs / 10) if given is None else given

    def dropout_of(self, name: str) -> float:
        """Return the dropout before the classifier of a model."""
        if self.drop_rate is not None:
            return self.drop_rate
        return DEEP_DROP_RATE if name in DEEP else 0.0

    def drop_block_at(self, epoch: int) -> float:
        """Return the rate of DropBlock in an epoch: linear, 0 in the first one."""
        return self.drop_block_rate * epoch / max(self.epochs - 1, 1)


def _checked(option: dataclasses.Field, value: Any) -> Any:
    """Return the value of an option in its own type, or raise."""
    data, name = option.metadata, option.name
    if value is None and option.default is None:
        return None
    if data["many"]:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise TypeError(f"{name} must be a list, not {value!r}")
        return tuple(_one(name, data, each) for each in value)
    return _one(name, data, value)


def _one(name: str, data: Mapping[str, Any], value: Any) -> Any:
    kind = data["kind"]
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind is float and not isinstance(value, (bool, str)) and hasattr(value, "__float__"):
        value = float(value)
    elif kind is int and not isinstance(value, (bool, str)) and hasattr(value, "__index__"):
        value = value.__index__()
    elif not isinstance(value, kind) or kind in (int, float):
        what = {float: "a number", int: "an integer", bool: "true or false", str: "a text"}[kind]
        raise TypeError(f"{name} must be {what}, not {value!r}")
    if data["choices"] and value not in data["choices"]:
        raise ValueError(f"{name} must be {' or '.join(data['choices'])}, not {value!r}")
    if kind in (int, float):
        least, most, above = data["least"], data["most"], data["above"]
        if not (least <= value <= most and value > above and math.isfinite(value)):
            raise ValueError(f"{name} must be {_range(least, most, above)}, not {value}")
    return value


def _range(least: float, most: float, above: float) -> str:
    if above > -math.inf:
        return f"above {above:g}"
    return f"from {least:g} to {most:g}" if most < math.inf else f"at least {least:g}"


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options in a TOML file, with ``_`` for ``-`` in their names.

    Raises
    ------
    ValueError
        If it is not TOML, or has tables.
    OSError
        If it cannot be read.
    """
    import tomllib

    with open(path, "rb") as file:
        try:
            options = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
    for name, value in options.items():
        if isinstance(value, dict):
            raise ValueError(f"{os.fspath(path)}: options stand alone, not in a table [{name}]")
    return {name.replace("-", "_"): value for name, value in options.items()}
