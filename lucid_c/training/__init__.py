# SPDX-License-Identifier: MIT
"""Training: a recipe, a loop that can be stopped and resumed to the same bits, validation.

>>> from lucid_c.data import ArrayDataset
>>> from lucid_c.training import Recipe, Trainer
>>> recipe = Recipe(epochs=20, batch_size=32, lr=0.05)
>>> trainer = Trainer(model, train, val, recipe, folder="run")  # doctest: +SKIP
>>> trainer.fit()  # doctest: +SKIP

``lucid-c train`` is the same thing for folders of pictures.
"""

from .building import build_model, freeze, load_weights
from .evaluate import evaluate
from .recipe import Recipe, read_toml
from .sources import ImageSource, open_source
from .trainer import NonFiniteLoss, Trainer, TrainingInterrupted

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
