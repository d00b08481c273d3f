# SPDX-License-Identifier: MIT
"""Datasets with random access: arrays, folders of pictures, parts of other datasets."""

import operator
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..transforms import _open_rgb
from ._seeds import SPLIT, check_seed, generator

__all__ = ["ArrayDataset", "Dataset", "ImageFolder", "Subset", "random_split"]

IMAGE_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".ppm",
    ".bmp",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)  # torchvision's


@runtime_checkable
class Dataset(Protocol):
    """What a `DataLoader` reads: any object with a length and samples by index.

    A dataset may also have ``where(index)``, which returns the origin of a sample (a path) as
    text for messages. Several threads call these methods at the same time. For process workers the
    dataset must be picklable.
    """

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (image, label) of one sample.

        The image is what the loader's transform takes: a Pillow image, or an array.
        The label is a class index, or an array of class probabilities.
        """
        ...


def check_index(index: Any, length: int) -> int:
    """Return an index from 0 to length - 1; negative ones count from the end."""
    given = operator.index(index)
    index = given + length if given < 0 else given
    if not 0 <= index < length:
        raise IndexError(f"index {given} is out of range for {length} samples")
    return index


class ArrayDataset:
    """Samples that are rows of arrays.

    Parameters
    ----------
    images : array, shape (N, ...)
        One image per row, for example uint8 (N, H, W, 3), which the transforms of
        `lucid_c.data.augment` take, or float32 (N, C, H, W) without a transform. A `numpy.memmap`
        is read row by row.
    labels : array, shape (N,) or (N, K)
        Class indices (integers), or class probabilities (floats).

    Raises
    ------
    ValueError
        If the lengths differ or there is no first axis.
    TypeError
        If class indices are not integers.
    """

    def __init__(self, images: Any, labels: Any) -> None:
        self.images = images if isinstance(images, np.ndarray) else np.asarray(images)
        self.labels = np.asarray(labels)
        if self.images.ndim == 0 or self.labels.ndim not in (1, 2):
            raise ValueError(
                "images must have a first axis and labels the shape (N,) or (N, K), not "
                f"{self.images.shape} and {self.labels.shape}"
            )
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images, but {len(self.labels)} labels")
        if self.labels.dtype.kind not in ("iu" if self.labels.ndim == 1 else "f"):
            raise TypeError(
                "labels must be integers of shape (N,) or floats of shape (N, K), not "
                f"{self.labels.dtype} of shape {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        index = check_index(index, len(self))
        label = self.labels[index]
        return self.images[index], int(label) if self.labels.ndim == 1 else label


class ImageFolder:
    """Pictures in one folder per class, ``root/class/.../name.jpg``, ordered as in torchvision.

    The classes are the folders in ``root``, sorted by name; the pictures of a class are those
    anywhere below its folder, links followed, sorted by folder and name.

    Parameters
    ----------
    root : str or path
        The folder.
    extensions : sequence of str, optional
        Endings of the files to take, upper or lower case.
    allow_empty : bool, default False
        Whether a class may have no pictures.

    Attributes
    ----------
    classes : list of str
        Names of the classes, by class index.
    class_to_idx : dict
        Class index by name.
    samples : list of (str, int)
        Path and class index of each sample.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist, has no class folders, or a class has no pictures.
    NotADirectoryError
        If it is not a folder.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        allow_empty: bool = False,
    ) -> None:
        self.root = os.fspath(root)
        endings = _check_extensions(extensions)
        with os.scandir(self.root) as entries:  # raises if it is missing or no folder
            self.classes = sorted(entry.name for entry in entries if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"{self.root!r} has no class folders")
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.samples: list[tuple[str, int]] = []
        empty = []
        for index, name in enumerate(self.classes):
            before = len(self.samples)
            folder = os.path.join(self.root, name)
            self.samples += ((path, index) for path in _files_below(folder, endings))
            if len(self.samples) == before:
                empty.append(name)
        if empty and not allow_empty or not self.samples:
            shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
            raise FileNotFoundError(
                f"no pictures in {len(empty)} of the {len(self.classes)} class folders of "
                f"{self.root!r} ({shown}); taken are {', '.join(endings)}"
            )

    @property
    def targets(self) -> list[int]:
        """The class index of each sample."""
        return [label for _, label in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return (Pillow image of mode RGB, class index); EXIF orientation is ignored.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it is not an image or is damaged.
        ImportError
            If Pillow is not installed.
        """
        path, label = self.samples[check_index(index, len(self))]
        return _open_rgb(path), label

    def where(self, index: int) -> str:
        """Return the path of a sample."""
        return self.samples[check_index(index, len(self))][0]


class Subset:
    """Some samples of another dataset.

    Parameters
    ----------
    dataset : Dataset
        The other dataset.
    indices : sequence of int
        Which samples, in this order.
    """

    def __init__(self, dataset: Dataset, indices: Any) -> None:
        indices = np.asarray(indices)
        if indices.ndim != 1 or indices.size and indices.dtype.kind not in "iu":
            raise TypeError(
                f"indices must be a sequence of integers, not {indices.dtype} of shape "
                f"{indices.shape}"
            )
        length = len(dataset)
        wrong = indices[(indices < -length) | (indices >= length)]
        if wrong.size:
            raise IndexError(f"index {wrong[0]} is out of range for {length} samples")
        self.dataset = dataset
        indices = indices.astype(np.int64)
        self.indices = np.where(indices < 0, indices + length, indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.dataset[int(self.indices[check_index(index, len(self))])]

    def where(self, index: int) -> str:
        """Return the origin of a sample, as the other dataset has it."""
        return where(self.dataset, int(self.indices[check_index(index, len(self))]))


def random_split(dataset: Dataset, lengths: Sequence[float], seed: int = 0) -> list[Subset]:
    """Split a dataset at random into parts that have no sample in common.

    Parameters
    ----------
    dataset : Dataset
        What to split.
    lengths : sequence of int or float
        The parts' lengths, which add up to the dataset's; or shares that add up to 1, of which
        each part gets its share rounded down, and the first parts one sample more each until
        all are given out (as in PyTorch).
    seed : int, default 0
        Decides which samples go where.

    Returns
    -------
    list of Subset
    """
    total, lengths = len(dataset), list(lengths)
    if not lengths or not all(length >= 0 for length in lengths):
        raise ValueError(f"lengths must be one or more numbers of at least 0, not {lengths}")
    if all(hasattr(length, "__index__") for length in lengths):
        counts = [operator.index(length) for length in lengths]
        if sum(counts) != total:
            raise ValueError(f"lengths {counts} add up to {sum(counts)}, not to {total} samples")
    else:
        if abs(sum(lengths) - 1) > 1e-6:
            raise ValueError(f"shares {lengths} add up to {sum(lengths)}, not to 1")
        counts = [int(total * share) for share in lengths]
        for i in range(total - sum(counts)):
            counts[i % len(counts)] += 1
    order = generator(check_seed(seed), SPLIT).permutation(total)
    ends = np.cumsum(counts)
    return [Subset(dataset, order[end - n : end]) for n, end in zip(counts, ends, strict=True)]


def where(dataset: Any, index: int) -> str:
    """Return the origin of a sample as text, or "" if the dataset does not tell."""
    method = getattr(dataset, "where", None)
    return str(method(index)) if callable(method) else ""


def _check_extensions(extensions):
    if isinstance(extensions, str) or not all(isinstance(e, str) and e for e in extensions):
        raise TypeError(f"extensions must be a sequence of strings, not {extensions!r}")
    if not (endings := tuple(e.lower() for e in extensions)):
        raise ValueError("extensions is empty")
    return endings


def _files_below(folder, endings):
    """Paths below a folder in torchvision's order; a folder that links lead back to once only."""
    found, seen = [], set()

    def raise_it(error):
        raise error

    for path, folders, names in os.walk(folder, followlinks=True, onerror=raise_it):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found.append((path, names))
    return [
        os.path.join(path, name)
        for path, names in sorted(found)
        for name in sorted(names)
        if name.lower().endswith(endings)
    ]
