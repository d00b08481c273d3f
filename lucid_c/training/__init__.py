# SPDX-License-Identifier: MIT
"""Training: a recipe, a loop that can be stopped and resumed to the same bits, validation.

>>> from lucid_c.data import ArrayDataset
>>> from lucid_c.training import Recipe, Trainer
>>> recipe = Recipe(epochs=20, batch_size=32, lr=0.05)
>>> trainer = Trainer(model, train, val, recipe, folder="run")  # doctest: +SKIP
>>> trainer.fit()  # doctest: +SKIP

``lucid-c train`` is the same thing for folders of pictures.
"""

from typing import TYPE_CHECKING, Any

from .recipe import Recipe, read_toml

if TYPE_CHECKING:
    from .building import build_model, freeze, load_weights
    from .sources import ImageSource, open_source
    from .trainer import NonFiniteLoss, Trainer, TrainingInterrupted
    from .validation import evaluate

__all__ = [
    "ImageSource",
    "NonFiniteLoss",
    "Recipe",
    "Trainer",
    "TrainingInterrupted",
    "build_model",
    "evaluate",
    "freeze",
    "load_weights",
    "open_source",
    "read_toml",
]

_LATE = {
    "evaluate": "validation",
    "ImageSource": "sources",
    "NonFiniteLoss": "trainer",
    "Trainer": "trainer",
    "TrainingInterrupted": "trainer",
    "build_model": "building",
    "freeze": "building",
    "load_weights": "building",
    "open_source": "sources",
}


def __getattr__(name: str) -> Any:
    """Import on first use what the table of options does not need."""
    from importlib import import_module

    if name in _LATE:
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
