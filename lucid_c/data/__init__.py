# SPDX-License-Identifier: MIT
"""Training data: datasets, batches prepared ahead, augmentation, running figures.

>>> from lucid_c.data import DataLoader, ImageFolder
>>> from lucid_c.data.augment import train_transform
>>> loader = DataLoader(
...     ImageFolder("train"), 64, shuffle=True, transform=train_transform("resnest_50")
... )

Only NumPy is needed to import it; pictures need Pillow (``pip install lucid_c[images]``).
"""

from . import augment
from .datasets import ArrayDataset, Dataset, ImageFolder, Subset, random_split
from .loader import DataLoader, SkippedSampleWarning, stack
from .metrics import RunningMean, topk_accuracy
from .shards import TarShards

__all__ = [
    "ArrayDataset",
    "DataLoader",
    "Dataset",
    "ImageFolder",
    "RunningMean",
    "SkippedSampleWarning",
    "Subset",
    "TarShards",
    "augment",
    "random_split",
    "stack",
    "topk_accuracy",
]
