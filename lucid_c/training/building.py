# SPDX-License-Identifier: MIT
"""What a run is put together from: the model, its optimizer, its schedule, the batches."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import nn
from ..checkpoints import open_checkpoint
from ..checkpoints.keys import HEADS
from ..data import stack
from ..data.augment import train_transform
from ..data.mixing import cutmix, mixup
from ..models import create_model
from ..models._cards import find_card
from ..optim import LAMB, LARS, SGD, AdamW, Optimizer, param_groups_weight_decay
from ..optim.lr_scheduler import (
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
    cosine_with_warmup,
)
from ..transforms import create_transform
from .recipe import Recipe

__all__ = ["build_model", "freeze", "load_weights"]

WARMUP_START = 0.01  # of the highest learning rate


def build_model(
    recipe: Recipe, num_classes: int, report: Callable[[str], None] = lambda text: None
) -> nn.Module:
    """Return the model of a recipe, in eval mode.

    With ``recipe.weights`` they are loaded; if their classifier has another number of classes, it
    is replaced by a new one.

    Parameters
    ----------
    recipe : Recipe
        It must have a ``model``.
    num_classes : int
        Outputs of the model.
    report : callable, optional
        Called with a line of text if the classifier is replaced.
    """
    if recipe.model is None:
        raise ValueError("no model is given; lucid-c list shows their names")
    name = find_card(recipe.model).name
    options: dict[str, Any] = {
        "compat": recipe.compat,
        "drop_rate": recipe.dropout_of(name),
        "drop_block_rate": recipe.drop_block_rate,
        "drop_path_rate": recipe.drop_path_rate,
    }
    if recipe.weights is None:
        options["zero_last_gamma"] = recipe.zero_last_gamma
        model = create_model(recipe.model, num_classes, **options)
    else:
        model = load_weights(recipe.model, recipe.weights, num_classes, report, **options)
    if recipe.recompute:
        model.set_grad_checkpointing()
    return model


def load_weights(
    name: str,
    path: Any,
    num_classes: int | None = None,
    report: Callable[[str], None] = lambda text: None,
    *,
    use_ema: bool = False,
    **options: Any,
) -> nn.Module:
    """Return a model with the weights of a checkpoint, for any number of classes.

    Parameters
    ----------
    name : str
        As for `create_model`.
    path : str or path
        The checkpoint; see `lucid_c.checkpoints.open_checkpoint`.
    num_classes : int, optional
        Outputs of the model. If the checkpoint has another number, the classifier is a new one.
        Default: as many as the checkpoint has.
    report : callable, optional
        Called with a line of text if the classifier is replaced.
    use_ema : bool, default False
        Take the averaged weights of a training checkpoint.
    **options
        As for `create_model`.
    """
    from ..checkpoints import load_into

    with open_checkpoint(path, use_ema) as checkpoint:
        heads = [head + "weight" for head in ("fc.", *HEADS) if head + "weight" in checkpoint]
        shape = checkpoint[heads[0]].shape if heads else ()
    classes = shape[0] if len(shape) == 2 else num_classes or 1000
    model = create_model(name, classes, init=False, **options)
    load_into(model, path, use_ema=use_ema)
    if num_classes is not None and classes != num_classes:
        model.fc = nn.Linear(model.fc.in_features, num_classes)
        model.num_classes = num_classes
        report(
            f"the classifier of {path!s} has {classes} classes; a new one with {num_classes} takes "
            "its place"
        )
    return model


def freeze(model: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """Make the parameters of some modules untrainable.

    Parameters
    ----------
    model : Module
        The whole model.
    prefixes : sequence of str
        Dotted names of modules or parameters, such as ``"layer1"``.

    Returns
    -------
    list of Module
        The modules whose parameters all are frozen, which should stay in eval mode.

    Raises
    ------
    ValueError
        If a name fits no parameter, or nothing is left to train; nothing is changed then.
    """
    names = dict(model.named_parameters())
    chosen = {}
    for prefix in prefixes:
        found = {n: p for n, p in names.items() if n == prefix or n.startswith(prefix + ".")}
        if not found:
            raise ValueError(
                f"freeze: the model has no parameters under {prefix!r}; it has "
                + ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            )
        chosen |= found
    if len(chosen) == len(names):
        raise ValueError("freeze: no parameter is left to train")
    for param in chosen.values():
        param.requires_grad = False
    return [
        module
        for name, module in model.named_modules()
        if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
    ]


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the optimizer of a recipe; biases and batch norm do not decay."""
    groups = param_groups_weight_decay(model, recipe.decay)
    lr = recipe.peak_lr
    if recipe.optimizer == "sgd":
        return SGD(groups, lr, recipe.momentum, nesterov=recipe.nesterov)
    if recipe.optimizer == "lars":
        return LARS(groups, lr, recipe.momentum)
    return AdamW(groups, lr) if recipe.optimizer == "adamw" else LAMB(groups, lr)


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps_per_epoch: int) -> LRScheduler:
    """Return the schedule of a recipe, which counts steps of the optimizer."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(math.ceil(recipe.warmup * steps_per_epoch), total - 1)
    if recipe.schedule == "cosine":
        return cosine_with_warmup(optimizer, total, warmup, WARMUP_START, recipe.min_lr)
    epochs = recipe.lr_steps if recipe.schedule == "step" else ()
    marks = [max(epoch * steps_per_epoch - warmup, 0) for epoch in epochs]
    main = MultiStepLR(optimizer, marks, recipe.lr_gamma)
    if not warmup:
        return main
    rise = LinearLR(optimizer, WARMUP_START, total_iters=warmup)
    return SequentialLR(optimizer, [rise, main], [warmup])


class Mix:
    """Makes a batch of samples: stacked, and mixed with `mixup` or `cutmix`."""

    def __init__(self, num_classes: int, mixup_alpha: float, cutmix_alpha: float) -> None:
        self.num_classes = num_classes
        self.mixup, self.cutmix = mixup_alpha, cutmix_alpha

    def __call__(self, samples: list, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return images, and class probabilities (N, K)."""
        images, labels = stack(samples)
        cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        mix, alpha = (cutmix, self.cutmix) if cut else (mixup, self.mixup)
        return mix(images, labels, alpha, self.num_classes, rng)


def make_transforms(model: Any, recipe: Recipe) -> tuple[Callable, Callable]:
    """Return the transforms for training and for validation."""
    given = {name: getattr(recipe, name) for name in ("image_size", "interpolation")}
    train = train_transform(
        model,
        **given,
        scale=(recipe.crop_scale, 1.0),
        auto_augment=None if recipe.auto_augment == "none" else recipe.auto_augment,
        flip=recipe.flip,
        color_jitter=recipe.color_jitter,
        lighting=recipe.lighting,
        erasing=recipe.erasing,
    )
    given["crop"] = recipe.crop
    changes = {name: value for name, value in given.items() if value is not None}
    return train, create_transform(model, **changes)
