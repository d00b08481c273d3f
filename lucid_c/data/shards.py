# SPDX-License-Identifier: MIT
"""Pictures in tar files, read at random without unpacking."""

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..transforms import _decode, _pillow
from .datasets import IMAGE_EXTENSIONS, _check_extensions, check_index

__all__ = ["TarShards"]

LONGEST_LABEL = 64  # bytes of a .cls member


class TarShards:
    """Pictures in one or many tar files, with random access.

    The files are read through once, member by member, to find where each picture is; a picture is
    then read straight from there. Nothing stays open, so any number of shards, threads and
    processes will do. Two conventions are known:

    * WebDataset: pairs ``key.jpg`` and ``key.cls`` in the same file, where ``key`` is the path up
      to the first dot of the file name and ``key.cls`` has the class index as text.
    * Class folders: without any ``.cls`` member, the class is the name of the folder that the
      picture is in, or for a picture in no folder the name of the tar file without ``.tar`` (as in
      the files of ImageNet's training set). Classes are sorted by name.

    Parameters
    ----------
    paths : str, path, or sequence of them
        Uncompressed tar files. Samples come in the order of the files and of their members.
    extensions : sequence of str, optional
        Endings of the members that are pictures, upper or lower case; others are left out.

    Attributes
    ----------
    classes : list of str or None
        Names of the classes, by class index; None for WebDataset shards.
    class_to_idx : dict or None
        Class index by name.
    targets : ndarray
        int64, shape (N,): the class index of each sample.

    Raises
    ------
    FileNotFoundError
        If a file is missing, or there are no pictures in the files.
    ValueError
        If a file is not an uncompressed tar file, is cut off, or a picture or a label has no
        partner.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
    ) -> None:
        one = isinstance(paths, (str, os.PathLike))
        self.paths = [os.fspath(path) for path in ([paths] if one else paths)]
        endings = _check_extensions(extensions)
        shards = [_Shard(path, endings) for path in self.paths]
        paired = any(shard.numbers for shard in shards)
        names, places, labels = [], [], []
        for number, shard in enumerate(shards):
            for picture in shard.paired(endings) if paired else shard.pictures:
                names.append(picture.name)
                places.append((number, picture.offset, picture.size))
                labels.append(picture.label)
        if not names:
            raise FileNotFoundError(
                f"no pictures in {', '.join(map(repr, self.paths[:5])) or 'no files'}"
                f"{', ...' if len(self.paths) > 5 else ''}; taken are {', '.join(endings)}"
            )
        self.classes = None if paired else sorted(set(labels))
        self.class_to_idx = self.classes and {name: i for i, name in enumerate(self.classes)}
        if self.class_to_idx:
            labels = [self.class_to_idx[name] for name in labels]
        self.targets = np.array(labels, np.int64)
        self._names = names
        self._places = np.array(places, np.int64)  # (N, 3): shard, offset, bytes

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return (Pillow image of mode RGB, class index); EXIF orientation is ignored.

        Raises
        ------
        OSError
            If the tar file cannot be read.
        ValueError
            If the member is not an image or is damaged.
        ImportError
            If Pillow is not installed.
        """
        index = check_index(index, len(self))
        shard, offset, count = map(int, self._places[index])
        with open(self.paths[shard], "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(count)
        if len(data) != count:
            raise ValueError(f"{self.where(index)}: the tar file has become shorter")
        image = _decode(_pillow(), io.BytesIO(data), repr(self.where(index)))
        return image, int(self.targets[index])

    def where(self, index: int) -> str:
        """Return the tar file and the member of a sample, ``shard.tar/folder/name.jpg``."""
        index = check_index(index, len(self))
        return f"{self.paths[self._places[index, 0]]}/{self._names[index]}"


class _Picture(NamedTuple):
    name: str
    offset: int
    size: int
    label: Any  # name of the folder, or class index


class _Shard:
    """The pictures and the .cls members of one tar file."""

    def __init__(self, path, endings):
        self.path = path
        self.pictures = []
        self.numbers = {}  # class index by key
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"{path!r} is not a regular file")
        try:
            # ":" takes no compression, in which there is no random access.
            with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # which would otherwise grow with the file
                    self._add(tar, member, endings)
                file.seek(tar.offset)
                if any(file.read(tarfile.BLOCKSIZE)):  # to tarfile this is an end like any other
                    raise ValueError(f"{path!r} is damaged at byte {tar.offset}")
        except tarfile.TarError as error:
            raise ValueError(
                f"{path!r} is not an uncompressed tar file, or is damaged: {error}"
            ) from error

    def _add(self, tar, member, endings):
        name = member.name
        base = PurePosixPath(name).name
        if not member.isreg() or base.startswith("."):
            return
        if member.issparse():
            raise ValueError(f"{self.path}/{name} is stored as a sparse file")
        key, extension = _split(name)
        if extension == ".cls":
            if key in self.numbers:
                raise ValueError(f"{self.path}/{name} is there twice")
            self.numbers[key] = self._number(tar, member)
        elif name.lower().endswith(endings):
            stem = os.path.basename(self.path).removesuffix(".tar")
            folder = PurePosixPath(name).parent.name or stem
            self.pictures.append(_Picture(name, member.offset_data, member.size, folder))

    def _number(self, tar, member):
        text = tar.extractfile(member).read(LONGEST_LABEL)
        try:
            number = int(text)
        except ValueError:
            number = -1
        if not 0 <= number < 1 << 63:
            raise ValueError(f"{self.path}/{member.name} should have a class index, not {text!r}")
        return number

    def paired(self, endings):
        """The pictures with the class indices of their .cls members."""
        found = {}
        for picture in self.pictures:
            key, extension = _split(picture.name)
            if extension not in endings:  # key.mask.png is no picture of its own
                continue
            if key in found:
                raise ValueError(f"{self.path} has two pictures for {key!r}")
            if key not in self.numbers:
                raise ValueError(f"{self.path}/{picture.name} has no {key}.cls")
            found[key] = picture._replace(label=self.numbers[key])
        if lone := self.numbers.keys() - found.keys():
            raise ValueError(f"{self.path}/{min(lone)}.cls has no picture")
        return found.values()


def _split(name):
    """The key and the extension (lower case) of a member: the file name is cut at its first dot."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return folder + slash + stem, (dot + extension).lower()
