# SPDX-License-Identifier: MIT
"""Pictures to train on: folders of classes, or tar files."""

import glob
import os
from typing import Any, NamedTuple

from ..data import ImageFolder, TarShards

__all__ = ["ImageSource", "open_source"]

FORMATS = ("folder", "tar")


class ImageSource(NamedTuple):
    """A dataset and its classes.

    Attributes
    ----------
    dataset : Dataset
        Pictures and class indices.
    classes : list of str or None
        Names of the classes; None if the data has numbers only.
    num_classes : int
        How many classes there are; the largest number plus 1 if they have no names.
    """

    dataset: Any
    classes: list[str] | None
    num_classes: int

    def must_fit(self, other: "ImageSource", names: tuple[str, str]) -> None:
        """Raise ValueError unless the other source has the same classes."""
        if self.classes is None or other.classes is None or self.classes == other.classes:
            return
        for one, two, where, there in (
            (self.classes, other.classes, *names),
            (other.classes, self.classes, *reversed(names)),
        ):
            if more := sorted(set(one) - set(two)):
                shown = ", ".join(map(repr, more[:5])) + (", ..." if len(more) > 5 else "")
                raise ValueError(f"{where} has classes that {there} has not: {shown}")


def open_source(folder: str | os.PathLike[str], kind: str = "folder") -> ImageSource:
    """Find the pictures below a folder.

    Parameters
    ----------
    folder : str or path
        With a folder of pictures for each class, or with tar files.
    kind : {"folder", "tar"}
        Which of both; see `lucid_c.data.ImageFolder` and `lucid_c.data.TarShards`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        If there is no such folder, or no pictures in it.
    """
    folder = os.fspath(folder)
    if kind not in FORMATS:
        raise ValueError(f"the format must be {' or '.join(FORMATS)}, not {kind!r}")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder!r}")
    if kind == "folder":
        dataset = ImageFolder(folder)
    else:
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), "*.tar")))
        if not paths:
            raise FileNotFoundError(f"there are no tar files in {folder!r}")
        dataset = TarShards(paths)
    classes = dataset.classes
    count = int(max(dataset.targets)) + 1 if classes is None else len(classes)
    return ImageSource(dataset, classes, count)
