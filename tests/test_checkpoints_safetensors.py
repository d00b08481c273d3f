# SPDX-License-Identifier: MIT
"""The safetensors format: reading, refusing, and writing whole or not at all."""

import json
import os
import struct
import sys

import numpy as np
import pytest

from checkpoint_files import FakeModel, assert_same, safetensors, weights
from lucid_c import _files, checkpoints
from lucid_c.checkpoints import loading, safetensors_file


@pytest.fixture(params=["library", "own"])
def writer(request, monkeypatch):
    if request.param == "library":
        pytest.importorskip("safetensors")
    else:
        monkeypatch.setitem(sys.modules, "safetensors", None)
        monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    return request.param


ARRAYS = {
    **weights(),
    "half": np.array([1, 2.5], np.float16),
    "wide": np.array([[1e300]]),
    "count": np.array(7),
    "flags": np.array([True, False]),
    "small": np.arange(3, dtype=np.uint8),
    "empty": np.zeros((0, 3), np.float32),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "big-endian": np.arange(4, dtype=">i4"),
    "grün": np.float32(3),
}


def test_round_trip(tmp_path, writer):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, ARRAYS, {"note": "text"})
    loaded = checkpoints.load(path)
    assert_same(loaded, {name: np.asarray(array) for name, array in ARRAYS.items()})
    assert loaded["half"].dtype == np.float32 and loaded["wide"].dtype == np.float64
    assert loaded["count"].shape == () and loaded["empty"].shape == (0, 3)
    with checkpoints.open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["note"] == "text" and checkpoint["half"].dtype == "float16"
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_library_reads_what_our_own_writer_wrote(tmp_path, monkeypatch):
    library = pytest.importorskip("safetensors.numpy")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, ARRAYS)
    assert_same(library.load_file(path), {name: np.asarray(a) for name, a in ARRAYS.items()})


def test_data_are_aligned(tmp_path, writer):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, ARRAYS)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt", "producer": "lucid_c"}
    assert length % 8 == 0 and set(header) == set(ARRAYS)
    for name, description in header.items():
        assert description["data_offsets"][0] % np.asarray(ARRAYS[name]).itemsize == 0


def test_names_of_our_own_files_stay(tmp_path, writer):
    for prefix in ("model.", "ema."):
        arrays = {f"{prefix}{name}": array for name, array in weights().items()}
        arrays["head.weight"] = np.ones(3)
        checkpoints.save(tmp_path / "a.safetensors", arrays)
        assert_same(checkpoints.load(tmp_path / "a.safetensors"), arrays)
    checkpoints.save(tmp_path / "a.safetensors", {})
    assert checkpoints.load(tmp_path / "a.safetensors") == {}


def test_foreign_prefix_goes(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file({f"model.{k}": v for k, v in weights().items()}, tmp_path / "a.safetensors")
    assert_same(checkpoints.load(tmp_path / "a.safetensors"), weights())


@pytest.mark.parametrize(
    "tensors",
    [{"x": np.array([1j])}, {"x": np.array(["a"])}, {"x": np.array([None])}, {"x": [1, "a"]}],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path, tensors, writer):
    with pytest.raises(TypeError, match="'x'"):
        checkpoints.save(tmp_path / "a.safetensors", tensors)
    for bad in ({"__metadata__": np.zeros(1)}, {1: np.zeros(1)}):
        with pytest.raises(ValueError, match="name"):
            checkpoints.save(tmp_path / "a.safetensors", bad)
    with pytest.raises(TypeError, match="metadata"):
        checkpoints.save(tmp_path / "a.safetensors", {}, {"epoch": 1})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["_sync", "write"])
def test_failure_keeps_the_old_file(tmp_path, monkeypatch, where):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, {"x": np.zeros(3)})
    before = path.read_bytes()
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)

    def fail(name, *args):
        with open(name, "ab") as file:
            file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(_files if where == "_sync" else safetensors_file, where, fail)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(path, {"x": np.ones(3)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]


def test_saving_over_a_file_and_through_a_link(tmp_path, writer):
    real = tmp_path / "real.safetensors"
    link = tmp_path / "link.safetensors"
    checkpoints.save(real, {"x": np.zeros(3)})
    link.symlink_to(real)
    checkpoints.save(link, {"x": np.ones(3)})
    assert link.is_symlink() and checkpoints.load(real)["x"].tolist() == [1, 1, 1]
    umask = os.umask(0)
    os.umask(umask)
    assert real.stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(FileNotFoundError):
        checkpoints.save(tmp_path / "no" / "folder", {"x": np.ones(3)})


# Broken headers.


def row(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BROKEN = {
    "length beyond the file": struct.pack("<Q", 1000) + b"{}",
    "length of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "length beyond the limit": struct.pack("<Q", 100_000_001) + b"{}",
    "short": b"\x02\0\0",
    "not JSON": safetensors(b"{nonsense}"),
    "not text": safetensors(b"{\xff\xfe}"),
    "not an object": safetensors(b"[1, 2]"),
    "deep": safetensors(b'{"a":' + b"[" * 200_000),
    "huge number": safetensors(b'{"a":' + b"9" * 100_000 + b"}"),
    "same name twice": safetensors(
        b'{"x":5,"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"
    ),
    "metadata not text": safetensors({"__metadata__": {"a": 1}}),
    "metadata a list": safetensors({"__metadata__": []}),
    "description not an object": safetensors({"x": 5}),
    "unknown type": safetensors({"x": row(0, 4, [1], "F99")}, b"1234"),
    "type a list": safetensors({"x": row(0, 4, [1], [])}, b"1234"),
    "negative size": safetensors({"x": row(0, 4, [-1])}, b"1234"),
    "size of a float": safetensors({"x": row(0, 4, [1.0])}, b"1234"),
    "size of a bool": safetensors({"x": row(0, 4, [True])}, b"1234"),
    "giant size": safetensors({"x": row(0, 4, [1 << 62, 4])}, b"1234"),
    "sizes that overflow": safetensors({"x": row(0, 4, [1 << 33, 1 << 31])}, b"1234"),
    "many axes": safetensors({"x": row(0, 4, [1] * 100)}, b"1234"),
    "three offsets": safetensors(
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, b"1234"
    ),
    "offsets backwards": safetensors({"x": row(4, 0, [1])}, b"1234"),
    "offsets beyond": safetensors({"x": row(0, 8, [2])}, b"1234"),
    "shape of another length": safetensors({"x": row(0, 4, [2])}, b"1234"),
    "overlap": safetensors({"x": row(0, 8, [2]), "y": row(4, 12, [2])}, b"123456789012"),
    "gap": safetensors({"x": row(0, 4, [1]), "y": row(8, 12, [1])}, b"123456789012"),
    "bytes left over": safetensors({"x": row(0, 4, [1])}, b"12345678"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(BROKEN[name])
    with pytest.raises(ValueError, match="a.safetensors"):
        checkpoints.load(path, full=True)


def test_truncation_everywhere(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, weights())
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError):
            checkpoints.load(path)


def many(tmp_path):
    """A file of many tensors, for reading on several threads, and a model that takes them."""
    rng = np.random.default_rng(4)
    arrays = {f"layer{k}.weight": rng.random((40, 25), np.float32) for k in range(64)}
    checkpoints.save(tmp_path / "many.safetensors", arrays)
    return arrays, FakeModel({name: array.shape for name, array in arrays.items()})


@pytest.mark.parametrize("count", [1, 2, 7])
def test_reading_on_several_threads(tmp_path, monkeypatch, count):
    monkeypatch.setattr(loading, "get_num_threads", lambda: count)
    arrays, model = many(tmp_path)
    checkpoints.load_into(model, tmp_path / "many.safetensors")
    assert_same(model.values, arrays)


def test_an_error_on_any_thread_leaves_the_model(tmp_path, monkeypatch):
    """The file is cut after its header was read."""
    monkeypatch.setattr(loading, "get_num_threads", lambda: 4)
    _, model = many(tmp_path)
    path = tmp_path / "many.safetensors"
    whole = loading._check

    def cut(*args):
        whole(*args)
        os.truncate(path, path.stat().st_size * 3 // 4)

    monkeypatch.setattr(loading, "_check", cut)
    with pytest.raises(ValueError, match=r"'layer\d+\.weight': the file ends before"):
        checkpoints.load_into(model, path)
    assert model.values is None


def test_no_more_threads_to_be_had(tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(loading, "get_num_threads", lambda: 4)
    monkeypatch.setattr(loading.Thread, "start", refuse)
    arrays, model = many(tmp_path)
    checkpoints.load_into(model, tmp_path / "many.safetensors")
    assert_same(model.values, arrays)
