# SPDX-License-Identifier: MIT
"""Members of a zip archive as blobs: bounded, and never trusted beyond what the file holds."""

from __future__ import annotations

import struct
import tempfile
import zipfile
import zlib

from .entry import CHUNK_BYTES, Blob, SharedFile

# Weights barely compress; an archive that claims more than this is a decompression bomb.
MAX_RATIO = 100
SLACK_BYTES = 64 << 20
SPOOL_BYTES = 8 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)


class InflatedBlob:
    """A compressed member, decompressed to a temporary file when first read."""

    def __init__(self, archive: ZipArchive, info: zipfile.ZipInfo) -> None:
        self.archive = archive
        self.info = info
        self.nbytes = info.file_size

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill `view` from byte `offset` of the member."""
        spool = self.archive.inflated(self.info)
        spool.seek(offset)
        data = spool.read(len(view))
        if len(data) != len(view):
            raise ValueError("the archive member ends before the tensor does")
        view[:] = data


class ZipArchive:
    """The members of a zip file.

    Only the central directory is read here. Member names are looked up and never used as
    paths. Two members of one name, members that overlap, encryption, and compression other
    than deflate are errors, and so is a total size that only a decompression bomb has.

    Parameters
    ----------
    file : SharedFile
        The open file.
    """

    def __init__(self, file: SharedFile) -> None:
        self.file = file
        self._spools: dict[str, tempfile.SpooledTemporaryFile] = {}
        try:
            self._zip = zipfile.ZipFile(file.handle)
        except _ZIP_ERRORS as error:
            raise ValueError(f"broken or truncated zip archive ({error!s:.200})") from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.orig_filename in self.members:
                raise ValueError(
                    f"two members of the archive are named {info.orig_filename!r:.100}"
                )
            self.members[info.orig_filename] = info
        self._check_sizes()

    def _check_sizes(self) -> None:
        end = 0
        for info in sorted(self.members.values(), key=lambda info: info.header_offset):
            name = info.orig_filename
            if info.flag_bits & 1:
                raise ValueError(f"member {name!r:.100} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"member {name!r:.100} uses an unsupported compression")
            if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
                raise ValueError(f"member {name!r:.100} has contradictory sizes")
            if info.header_offset < end:
                raise ValueError(f"member {name!r:.100} overlaps another member")
            end = info.header_offset + _LOCAL_HEADER.size + info.compress_size
            if end > self.file.size:
                raise ValueError(f"member {name!r:.100} lies outside the file")
        self.payload = sum(info.file_size for info in self.members.values())
        if self.payload > MAX_RATIO * self.file.size + SLACK_BYTES:
            raise ValueError(
                f"the archive has {self.file.size} bytes and claims to hold {self.payload}"
            )

    def blob(self, name: str) -> Blob | InflatedBlob:
        """Return the bytes of the member `name`; `ValueError` if there is none."""
        info = self.members.get(name)
        if info is None:
            raise ValueError(f"the archive has no member {name!r:.100}")
        if info.compress_type != zipfile.ZIP_STORED:
            return InflatedBlob(self, info)
        header = self.file.read_at(info.header_offset, _LOCAL_HEADER.size)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if magic != b"PK\x03\x04" or start + info.file_size > self.file.size:
            raise ValueError(f"member {name!r:.100} lies outside the file")
        return Blob(self.file, start, info.file_size)

    def head(self, name: str, limit: int) -> bytes:
        """Return the first bytes of the member `name`, at most `limit` of them."""
        blob = self.blob(name)
        if isinstance(blob, Blob):
            return self.file.read_at(blob.start, min(limit, blob.nbytes))
        try:
            with self.file.lock, self._zip.open(blob.info) as member:
                return member.read(limit)
        except _ZIP_ERRORS as error:
            raise ValueError(f"broken archive member {name!r:.100} ({error!s:.200})") from None

    def inflated(self, info: zipfile.ZipInfo) -> tempfile.SpooledTemporaryFile:
        """Decompress a member once, in memory if it is small and else on disk."""
        name = info.orig_filename
        with self.file.lock:
            if name in self._spools:
                return self._spools[name]
            spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - see close()
            try:
                with self._zip.open(info) as member:
                    while part := member.read(CHUNK_BYTES):
                        spool.write(part)
            except BaseException as error:
                spool.close()
                if isinstance(error, _ZIP_ERRORS):
                    message = f"broken archive member {name!r:.100} ({error!s:.200})"
                    raise ValueError(message) from None
                raise
            self._spools[name] = spool
            return spool

    def close(self) -> None:
        """Remove what was decompressed (the file itself belongs to the caller)."""
        for spool in self._spools.values():
            spool.close()
        self._zip.close()
