# SPDX-License-Identifier: MIT
"""Figures of a training, written as they come: a CSV file, and event files for TensorBoard."""

import csv
import functools
import io
import itertools
import math
import operator
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CSVLogger", "TensorBoardLogger", "crc32c"]

_numbers = itertools.count()  # of the event files of this process


class CSVLogger:
    """Writes one line per call to a CSV file, which can be read at any time.

    Parameters
    ----------
    path : str or path
        The file; its folder is made if it is missing.
    append : bool, default False
        Whether to go on with an existing file, whose first line then gives the columns; what
        comes after its last whole line is removed. Otherwise it is replaced.

    Notes
    -----
    The columns are ``step``, ``seconds`` (since the logger was opened) and the names of the first
    call. A later call may leave some of them out. The logger is a context manager.

    Examples
    --------
    >>> with CSVLogger("run/log.csv") as log:
    ...     log.log({"loss": 6.9, "top1": 0.1}, step=1)
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = os.fspath(path)
        self.columns: list[str] | None = None
        self._start = time.monotonic()
        self._lock = threading.Lock()
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        if append and os.path.exists(self.path):
            self._file = open(self.path, "r+", encoding="utf-8", newline="")
            try:
                self._resume()
            except BaseException:
                self._file.close()
                raise
        else:
            self._file = open(self.path, "w", encoding="utf-8", newline="")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write one line and flush it.

        Parameters
        ----------
        values : mapping of str to number
            The figures; NaN and infinity are written as ``nan`` and ``inf``.
        step : int
            What the figures belong to: an epoch or a batch.

        Raises
        ------
        ValueError
            If there is a name that the first line does not have; nothing is written then.
        """
        row = {"step": operator.index(step), "seconds": f"{time.monotonic() - self._start:.3f}"}
        if taken := row.keys() & values.keys():
            raise ValueError(f"{min(taken)!r} is a column of its own, and no name for a figure")
        row |= _numbers_of(values)
        with self._lock:
            new = self.columns is None
            columns = list(row) if new else self.columns
            if wrong := [name for name in row if name not in columns]:
                raise ValueError(f"{self.path!r} has no column {wrong[0]!r}: {', '.join(columns)}")
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
            self._file.write(text.getvalue())
            self._file.flush()
            self.columns = columns

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "CSVLogger":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _resume(self):
        whole = self._file.read().rpartition("\n")[0]
        if whole:
            self.columns = next(csv.reader(io.StringIO(whole)))
            if self.columns[:2] != ["step", "seconds"]:
                raise ValueError(f"{self.path!r} is not a file of a CSVLogger")
        self._file.seek(0)
        self._file.truncate(len((whole + "\n").encode()) if whole else 0)
        self._file.seek(0, os.SEEK_END)


class TensorBoardLogger:
    """Writes scalars to an event file, which ``tensorboard --logdir folder`` shows.

    The file is a sequence of TFRecords (length, checksum, data, checksum), each with one ``Event``
    in the encoding of protocol buffers. A new logger starts a new file, which TensorBoard reads
    as a continuation.

    Parameters
    ----------
    folder : str or path
        Where the file goes; made if it is missing.

    Examples
    --------
    >>> with TensorBoardLogger("run") as log:
    ...     log.log({"loss/train": 6.9}, step=1)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        os.makedirs(folder, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        name += f".{os.getpid()}.{next(_numbers)}"
        self.path = os.path.join(os.fspath(folder), name)
        self._lock = threading.Lock()
        self._file = open(self.path, "xb")
        self._write(_field(3, b"brain.Event:2"))  # file_version

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write some scalars and flush them.

        Parameters
        ----------
        values : mapping of str to number
            The figures; ``/`` in a name makes groups. They are stored as float32.
        step : int
            What the figures belong to: an epoch or a batch; from -2**63 to 2**63 - 1.
        """
        step = operator.index(step)
        if not -(1 << 63) <= step < 1 << 63:
            raise ValueError(f"step must be an integer of 64 bits, not {step}")
        summary = b"".join(
            _field(1, _field(1, name.encode()) + b"\x15" + struct.pack("<f", _float32(value)))
            for name, value in _numbers_of(values).items()
        )
        self._write(b"\x10" + _varint(step & (1 << 64) - 1) + _field(5, summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "TensorBoardLogger":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _write(self, event):
        data = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(data))
        with self._lock:
            self._file.write(length + _masked(length) + data + _masked(data))
            self._file.flush()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, as in RFC 3720, appendix B.4."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> Sequence[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _masked(data):
    """The checksum of a TFRecord: turned and shifted, so that records may hold checksums."""
    crc = crc32c(data)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def _varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number, data):
    """A field of bytes, a string or a message."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _float32(value):
    """A value that fits into a float32; too large ones become infinite."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return math.copysign(math.inf, value)
    return value


def _numbers_of(values):
    """The figures as floats, or an error that names the one that is not."""
    row = {}
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"names must be strings, not {name!r}")
        try:
            row[name] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a number, not {value!r}") from None
    return row
