# SPDX-License-Identifier: MIT
"""Sequential reading of a pickle, never beyond the bytes that are there."""

from __future__ import annotations

from .entry import Blob, SharedFile

MAX_LINE = 1024
BLOCK_BYTES = 1 << 16


class FileStream:
    """Sequential reading of a byte range of a file, in blocks."""

    def __init__(self, file: SharedFile, start: int, end: int) -> None:
        self._file = file
        self._end = end
        self._block = b""
        self._block_start = start
        self._index = 0

    @property
    def position(self) -> int:
        """Position of the next byte, in the file."""
        return self._block_start + self._index

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes; `ValueError` if there are not so many."""
        stop = self._index + count
        if count < 0 or stop > len(self._block):
            start = self.position
            if not 0 <= count <= self._end - start:
                raise ValueError("the pickle is truncated")
            self._block = self._file.read_at(start, min(max(count, BLOCK_BYTES), self._end - start))
            self._block_start = start
            self._index, stop = 0, count
            if stop > len(self._block):
                raise ValueError("the pickle is truncated")
        data = self._block[self._index : stop]
        self._index = stop
        return data

    def line(self) -> bytes:
        """Return the bytes up to the next newline, which is dropped."""
        line = bytearray()
        while (byte := self.take(1)) != b"\n":
            line += byte
            if len(line) > MAX_LINE:
                raise ValueError("a line of the pickle is too long")
        return bytes(line)

    def take_bytes(self, count: int) -> bytes | Blob:
        """Return a bytes value; a long one stays in the file and is a `Blob`."""
        if count <= BLOCK_BYTES:
            return self.take(count)
        start = self.position
        if count > self._end - start:
            raise ValueError("the pickle is truncated")
        self._block, self._block_start, self._index = b"", start + count, 0
        return Blob(self._file, start, count)


class MemoryStream(FileStream):
    """Sequential reading of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._end = len(data)
        self._block = data
        self._block_start = 0
        self._index = 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes; `ValueError` if there are not so many."""
        if not 0 <= count <= self._end - self._index:
            raise ValueError("the pickle is truncated")
        self._index += count
        return self._block[self._index - count : self._index]

    def take_bytes(self, count: int) -> bytes | Blob:
        """Return a bytes value."""
        return self.take(count)
