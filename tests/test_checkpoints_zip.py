# SPDX-License-Identifier: MIT
"""Archives that are broken or lie: ``.npz`` files and the zip form of PyTorch's files."""

import io
import os
import re
import struct
import zipfile

import numpy as np
import pytest

from checkpoint_files import (
    pickled,
    refuse,
    storage,
    tensor,
    tensors_of,
    torch_zip,
    weights,
)
from lucid_c import checkpoints

PLACE = storage("0", 4)
ZEROS = {"0": np.zeros(4, np.float32).tobytes()}


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "file.pth"
        path.write_bytes(data)
        return path

    return write


def test_npz_of_objects_is_not_built(write):
    class Evil:
        def __reduce__(self):
            return os.abort, ()

    file = io.BytesIO()
    np.savez(file, x=np.array([Evil()], dtype=object), y=np.ones(2))
    path = write(file.getvalue())
    loaded = checkpoints.load(path, full=True)
    assert isinstance(loaded["x"], checkpoints.Placeholder) and loaded["y"].tolist() == [1, 1]
    refuse(path, "numpy.ndarray of object", full=False)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(1,)*99" + "}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + str((1,) * 60) + "}",
        "{'descr': '<f4', 'shape': (1,)}",
        "__import__('os').abort()",
        "(" * 5000,
        "{",
        "",
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_broken_npz_headers(write, header, compression):
    text = header.encode() + b"\n"
    member = b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + b"1234"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x.npy", member)
    refuse(write(file.getvalue()), "broken array 'x.npy'")


# Zip archives that lie.


def patched(data, signature, offset, value, which=0):
    """Overwrite bytes of a header that begins with `signature`."""
    start = [m.start() for m in re.finditer(re.escape(signature), data)][which] + offset
    return data[:start] + value + data[start + len(value) :]


def test_two_members_of_one_name(write, recwarn):
    data = torch_zip({}, {}, extra=[("archive/data.pkl", pickled({"a": 1}))])
    refuse(write(data), "two members")


def test_overlapping_members(write):
    data = torch_zip({"x": tensor(PLACE, (4,))}, ZEROS)
    refuse(write(patched(data, b"PK\1\2", 42, struct.pack("<I", 0), which=2)), "overlaps")


@pytest.mark.parametrize("size", [5, 20, 1 << 20, (1 << 32) - 2])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_lying_sizes_of_members(write, size, compression):
    arrays = {"x": np.random.default_rng(0).standard_normal(4).astype(np.float32)}
    tree, data = tensors_of(arrays)
    tree["x"] = tensor(storage("0", size // 4), (size // 4,))
    blob = torch_zip(tree, data, compression)
    blob = patched(blob, b"PK\1\2", 24, struct.pack("<I", size), which=2)
    refuse(write(blob), megabytes=12)


def test_zip_bomb(write):
    size = 100 << 20
    data = torch_zip({"x": tensor(storage("0", size), (size // 4,))}, {"0": bytes(size)}, 8)
    assert len(data) < 1 << 18
    refuse(write(data), "claims to hold")


def test_pickle_bomb(write):
    data = torch_zip(b"\x80\x02" + b"N" * (66 << 20), {"0": os.urandom(1 << 20)}, 8)
    refuse(write(data), "data.pkl claims to have", megabytes=1)


def test_damaged_deflate_stream(write):
    tree, data = tensors_of(weights())
    blob = bytearray(torch_zip(tree, data, zipfile.ZIP_DEFLATED))
    start = blob.index(b"archive/data/0") + 14
    blob[start : start + 40] = b"\xff" * 40
    refuse(write(bytes(blob)), "broken archive member", full=False)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(write, kind):
    refuse(write(torch_zip({}, {}, kind)), "unsupported compression")


def test_encrypted_members(write):
    data = torch_zip({}, {})
    refuse(write(patched(data, b"PK\1\2", 8, b"\x01\0")), "encrypted")


def test_big_endian_zip(write):
    data = torch_zip({}, {}).replace(b"little", b"biggie")
    refuse(write(data), "big-endian")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "regular file")
