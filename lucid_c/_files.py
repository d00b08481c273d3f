"""Files that appear whole or not at all."""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: str, beginning: str) -> None:
    pattern = re.compile(re.escape(beginning) + r"[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > 3600:
                os.unlink(entry.path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give the name of a temporary file that takes the place of ``path`` at the end.

    It is an empty file in the same folder, to be filled under that name; it is brought to disk
    and then put in place. An error leaves an older file of that name as it was, and nothing else
    behind. What a killed process left behind is removed by a later call, an hour after its last
    change at the earliest.
    """
    path = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(path)
    beginning = f".{name[:100]}."
    _remove_leftovers(folder, beginning)
    temporary = os.path.join(folder, f"{beginning}{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        os.chmod(temporary, mode)  # some libraries make theirs readable for its owner only
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    if os.name == "posix":
        _sync(folder)
