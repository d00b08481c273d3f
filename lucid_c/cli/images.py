# SPDX-License-Identifier: MIT
"""Which pictures the arguments mean."""

import glob
import os

SUFFIXES = (
    ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp .avif .jp2"
).split()


def find_images(arguments):
    """The image files that the arguments name, in the arguments' order.

    Parameters
    ----------
    arguments : iterable of str
        Files; folders, which are searched with their subfolders; patterns such as ``"*.jpg"``.

    Yields
    ------
    (str, str or None)
        A path and None, or an argument and what is wrong with it. No file comes twice.
    """
    seen = set()
    for argument in arguments:
        paths, problem = _expand(argument)
        if problem:
            yield argument, problem
        for path in paths:
            if path not in seen:
                seen.add(path)
                yield path, None


def _expand(argument):
    if os.path.isdir(argument):
        paths = list(_in_folder(argument))
        return paths, None if paths else f"no images in folder {argument!r}"
    if os.path.lexists(argument):
        return [argument], None
    if not glob.has_magic(argument):
        return [], f"no such file: {argument!r}"
    matches = sorted(glob.glob(argument, recursive=True))
    paths = [
        path
        for match in matches
        for path in (_in_folder(match) if os.path.isdir(match) else [match])
    ]
    return paths, None if paths else f"no file fits {argument!r}"


def _in_folder(folder):
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(tuple(SUFFIXES)) and not name.startswith("."):
                yield os.path.join(here, name)
