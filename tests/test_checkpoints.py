# SPDX-License-Identifier: MIT
"""Reading every format and layout, from files made without PyTorch."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from checkpoint_files import (
    Call,
    FakeModel,
    Global,
    Raw,
    assert_same,
    legacy_of,
    pickled,
    safetensors,
    storage,
    tensor,
    tensors_of,
    torch_legacy,
    torch_zip,
    weights,
)
from lucid_c import checkpoints
from lucid_c.checkpoints import entry as entry_module


@pytest.fixture
def write(tmp_path):
    def write(data, name="file.pth"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def files():
    """The same weights in every format."""
    w = weights()
    tree, data = tensors_of(w)
    yield "zip", torch_zip(tree, data)
    yield "zip deflated", torch_zip(tree, data, zipfile.ZIP_DEFLATED)
    yield "zip without a root folder", torch_zip(tree, data, root="")
    yield "legacy", legacy_of(w)
    yield "npz", npz(**w)
    yield "npz compressed", npz(True, **w)
    yield "npz Fortran", npz(**{name: np.asfortranarray(a) for name, a in w.items()})
    yield "npz big-endian", npz(**{name: a.astype(">f4") for name, a in w.items()})
    for protocol in (2, 3, 4, 5):
        yield f"pickle of arrays {protocol}", pickle.dumps(w, protocol)
        lucid = {"type": "OrderedDict", "format_version": 1.1, "content": OrderedDict(w)}
        yield f"lucid {protocol}", pickle.dumps(lucid, protocol)


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in files()])
@pytest.mark.parametrize("name", ["a.pth", "a.bin"])
def test_formats_are_found_by_content(write, data, name):
    path = write(data, name)
    assert_same(checkpoints.load(path), weights())
    with checkpoints.open_checkpoint(path) as checkpoint:
        assert set(checkpoint) == set(weights())
        entry = checkpoint["conv1.weight"]
        assert (entry.shape, entry.dtype) == ((4, 3, 3, 3), "float32")
        out = np.empty(entry.shape, np.float32)
        entry.read_into(out)
        np.testing.assert_array_equal(out, weights()["conv1.weight"])


def test_closed_checkpoint_cannot_be_read(write):
    with checkpoints.open_checkpoint(write(legacy_of(weights()))) as checkpoint:
        entry = checkpoint["fc.bias"]
        with pytest.raises(KeyError):
            checkpoint["nothing"]
        assert "fc.bias" in checkpoint and "nothing" not in checkpoint
    with pytest.raises(ValueError, match="closed"):
        entry.read()


# Data types.

KINDS = {
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("legacy", [False, True])
def test_number_types(write, kind, legacy):
    values = np.array([[0, 1, 2], [100, 7, 3]]).astype(KINDS[kind])
    tree, data = tensors_of({"x": values}, kind)
    blob = torch_legacy(tree, data, {"0": 6}) if legacy else torch_zip(tree, data)
    with checkpoints.open_checkpoint(write(blob)) as checkpoint:
        read = checkpoint["x"].read()
        assert read.dtype == (np.float32 if kind == "HalfStorage" else values.dtype)
        np.testing.assert_array_equal(read, values)
        out = np.empty((2, 3), np.float32)
        checkpoint["x"].read_into(out)
        np.testing.assert_array_equal(out, values)
        whole = np.empty((2, 3), np.int64)
        if values.dtype.kind == "f":
            with pytest.raises(ValueError, match="do not fit int64"):
                checkpoint["x"].read_into(whole)
        else:
            checkpoint["x"].read_into(whole)
            np.testing.assert_array_equal(whole, values)


def test_bool_bytes_become_zero_and_one(write):
    tree, data = tensors_of({"x": np.array([0, 1, 2, 255], "u1")}, "BoolStorage")
    with checkpoints.open_checkpoint(write(torch_zip(tree, data))) as checkpoint:
        read, out = checkpoint["x"].read(), np.empty(4, np.float32)
        checkpoint["x"].read_into(out)
    assert read.dtype == np.bool_ and read.view(np.uint8).tolist() == [0, 1, 1, 1]
    assert out.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("form", ["zip", "safetensors"])
def test_bfloat16_is_widened_exactly(write, form):
    bits = np.array([0x3F80, 0xBF80, 0x7F80, 0xFF80, 0x0001, 0x4049, 0x8000], "<u2")
    expected = [1.0, -1.0, np.inf, -np.inf, 2.0**-133, 3.140625, -0.0]
    if form == "zip":
        tree, data = tensors_of({"x": bits}, "BFloat16Storage")
        path = write(torch_zip(tree, data))
    else:
        row = {"dtype": "BF16", "shape": [7], "data_offsets": [0, 14]}
        path = write(safetensors({"x": row}, bits.tobytes()), "x.safetensors")
    with checkpoints.open_checkpoint(path) as checkpoint:
        assert checkpoint["x"].dtype == "bfloat16"
        read = checkpoint["x"].read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, np.array(expected, np.float32))
    assert np.signbit(read[-1])


def test_float64_is_narrowed_without_noise(write, recwarn):
    tree, data = tensors_of({"x": np.array([0.1, 1e300, np.nan])}, "DoubleStorage")
    out = np.empty(3, np.float32)
    with checkpoints.open_checkpoint(write(torch_zip(tree, data))) as checkpoint:
        checkpoint["x"].read_into(out)
    np.testing.assert_array_equal(out, np.array([0.1, np.inf, np.nan], np.float32))
    assert not recwarn.list


def test_unsupported_number_types_fail_only_when_read(write):
    header = {
        "x": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]},
        "y": {"dtype": "F32", "shape": [], "data_offsets": [3, 7]},
    }
    data = b"abc" + np.float32(5).tobytes()
    with checkpoints.open_checkpoint(write(safetensors(header, data))) as checkpoint:
        assert checkpoint["y"].read() == 5
        with pytest.raises(ValueError, match="float8_e4m3fn cannot be read"):
            checkpoint["x"].read()


# Layouts.


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_strided_tensors(write, monkeypatch, compression, chunk):
    monkeypatch.setattr(entry_module, "CHUNK_BYTES", chunk)
    base = np.arange(600, dtype=np.float32)
    place = storage("0", 600)
    layouts = {
        "whole": ((600,), (1,), 0),
        "offset": ((4, 5), (5, 1), 17),
        "transposed": ((20, 30), (1, 20), 0),
        "channels_last": ((5, 4, 3, 10), (120, 1, 40, 4), 0),
        "every third": ((10, 7), (21, 3), 5),
        "repeated": ((3, 4), (0, 1), 2),
        "overlapping": ((50, 11), (2, 1), 0),
        "scalar": ((), (), 599),
        "empty": ((0, 7), (7, 1), 600),
        "one": ((1, 1), (99, 1000), 3),
    }
    tree = {name: tensor(place, s, t, o) for name, (s, t, o) in layouts.items()}
    path = write(torch_zip(tree, {"0": base.tobytes()}, compression))
    with checkpoints.open_checkpoint(path) as checkpoint:
        for name, (shape, strides, offset) in layouts.items():
            steps = tuple(4 * s for s in strides)
            size = np.prod(shape, dtype=int)
            expected = np.ndarray(shape, np.float32, base, 4 * offset if size else 0, steps)
            out = np.full(shape, np.nan, np.float32)
            checkpoint[name].read_into(out)
            np.testing.assert_array_equal(out, expected, err_msg=name)
            np.testing.assert_array_equal(checkpoint[name].read(), expected, err_msg=name)


def test_conversion_in_many_chunks(write, monkeypatch):
    monkeypatch.setattr(entry_module, "CHUNK_BYTES", 64)
    values = np.arange(1001, dtype="<f8")
    tree, data = tensors_of({"x": values}, "DoubleStorage")
    out = np.empty(1001, np.float32)
    with checkpoints.open_checkpoint(write(torch_zip(tree, data))) as checkpoint:
        checkpoint["x"].read_into(out)
    np.testing.assert_array_equal(out, values)


def test_shared_storage_is_read_once(write):
    place = storage("0", 4)
    tree = {"a": tensor(place, (4,)), "b": tensor(place, (4,)), "c": tensor(place, (2,))}
    loaded = checkpoints.load(write(torch_zip(tree, {"0": np.arange(4, dtype="f4").tobytes()})))
    assert loaded["a"] is loaded["b"] and loaded["c"].tolist() == [0, 1]


def test_legacy_storage_views(write):
    base = np.arange(10, dtype=np.float32)
    part = storage("0", 10)
    part.parts += (("view", 4, 3),)
    tree = {"whole": tensor(storage("0", 10), (10,)), "part": tensor(part, (3,))}
    loaded = checkpoints.load(write(torch_legacy(tree, {"0": base.tobytes()}, {"0": 10})))
    assert loaded["part"].tolist() == [4, 5, 6]


def test_read_into_checks_its_argument(write):
    with checkpoints.open_checkpoint(write(legacy_of(weights()))) as checkpoint:
        entry = checkpoint["fc.weight"]
        for out, error in (
            (np.empty((5, 4)), TypeError),
            (np.empty((4, 5), np.float32), ValueError),
            (np.empty((5, 8), np.float32)[:, ::2], ValueError),
            (np.empty((4, 5), np.float32).T, ValueError),
        ):
            with pytest.raises(error):
                entry.read_into(out)
        frozen = np.zeros((5, 4), np.float32)
        frozen.flags.writeable = False
        with pytest.raises(ValueError, match="writable"):
            entry.read_into(frozen)


# Objects around the tensors.


def test_training_checkpoint(write):
    w = weights()

    def wrap(tree):
        return {
            "epoch": 90,
            "best_prec1": Call(
                Global("numpy.core.multiarray", "scalar"),
                Call(Global("numpy", "dtype"), "f8", 0, 1, state=(3, "<", None, None, None)),
                np.float64(76.25).tobytes(),
            ),
            "args": Call(Global("argparse", "Namespace"), state={"lr": 0.1}),
            "state_dict": {f"module.{name}": value for name, value in tree.items()},
            "optimizer": {"state": {0: {"momentum": None}}, "param_groups": [{"lr": 0.1}]},
            "history": [1, 2.5, None, True, (1, "a")],
            "size": Call(Global("torch", "Size"), [1, 2]),
            "names": Call(Global("__builtin__", "set"), ["a", "b"]),
            "device": Call(Global("torch", "device"), "cuda"),
        }

    path = write(legacy_of(w, wrap))
    assert_same(checkpoints.load(path), w)
    full = checkpoints.load(path, full=True)
    assert_same(full["state_dict"], {f"module.{name}": value for name, value in w.items()})
    assert (full["epoch"], full["best_prec1"]) == (90, 76.25)
    assert full["history"] == [1, 2.5, None, True, (1, "a")]
    assert full["optimizer"] == {"state": {0: {"momentum": None}}, "param_groups": [{"lr": 0.1}]}
    assert (full["size"], full["names"]) == ((1, 2), {"a", "b"})
    assert isinstance(full["args"], checkpoints.Placeholder)
    assert full["args"].name == "argparse.Namespace" and full["args"].state == {"lr": 0.1}
    assert repr(full["device"]) == "<placeholder for torch.device>"


def test_parameters_and_attributes_of_tensors(write):
    x = tensor(storage("0", 2), (2,))
    hooks = Call(Global("collections", "OrderedDict"))
    rebuild = Global("torch._utils", "_rebuild_tensor")
    tree = {
        "parameter": Call(Global("torch._utils", "_rebuild_parameter"), x, True, hooks),
        "state": Call(
            Global("torch._utils", "_rebuild_parameter_with_state"), x, True, hooks, {"a": 1}
        ),
        "type": Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            rebuild,
            Global("torch", "Tensor"),
            (storage("0", 2), 0, (2,), (1,)),
            {"note": 1},
        ),
        "v3": Call(
            Global("torch._utils", "_rebuild_tensor_v3"),
            storage("0", 8, "UntypedStorage"),
            1,
            (1,),
            (1,),
            False,
            hooks,
            Global("torch", "float32"),
        ),
        "variable": Call(Global("torch.autograd.variable", "Variable"), x, True, False, hooks),
    }
    loaded = checkpoints.load(write(torch_zip(tree, {"0": np.float32([3, 4]).tobytes()})))
    assert loaded.pop("v3").tolist() == [4]
    assert {name: a.tolist() for name, a in loaded.items()} == dict.fromkeys(loaded, [3, 4])
    assert set(loaded) == {"parameter", "state", "type", "variable"}


def test_unknown_global_matters_only_where_it_is_wanted(write):
    w = weights()
    tree, data = tensors_of(w)
    tree["odd.weight"] = Call(Global("torch._utils", "_rebuild_sparse_tensor"), 1, (1, 2))
    tree["extra"] = Call(Global("somewhere", "Thing"))
    path = write(torch_zip(tree, data))
    with checkpoints.open_checkpoint(path) as checkpoint:
        assert_same({name: e.read() for name, e in checkpoint.items()}, w)
        with pytest.raises(ValueError, match=r"odd.weight.*torch._utils._rebuild_sparse_tensor"):
            checkpoint["odd.weight"]
    with pytest.raises(ValueError, match="_rebuild_sparse_tensor"):
        checkpoints.load(path)
    shapes = {name: a.shape for name, a in w.items()}
    model = FakeModel(shapes)
    checkpoints.load_into(model, path)
    assert_same(model.values, w)
    model = FakeModel({**shapes, "odd.weight": (2,)})
    with pytest.raises(ValueError, match="_rebuild_sparse_tensor"):
        checkpoints.load_into(model, path, strict=False)
    assert model.values is None


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"epoch": 1, "model": x}])
def test_pickled_model_is_named(write, wrap):
    model = Call(Global("torchvision.models.resnet", "ResNet"), state={"training": True})
    with pytest.raises(ValueError, match=r"torchvision.models.resnet.ResNet.*state_dict\(\)"):
        checkpoints.load(write(torch_zip(wrap(model), {})))


def test_old_opcodes(write):
    text = Raw(b"(dp0\nS'a'\np1\nI5\nsS'b'\nF2.5\nsS'c'\nL7L\nsVd\nI01\ns(lp2\ng1\nag1\na0")
    assert checkpoints.load(write(pickled(text)), full=True) == {
        "a": 5,
        "b": 2.5,
        "c": 7,
        "d": True,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_survive(write, protocol):
    value = {
        "ints": [0, 1, -1, 255, 256, 65536, -(2**31), 2**63, 2**200],
        "floats": (0.5, -1e300, float("inf")),
        "text": "grün \U0001f600",
        "bytes": b"\x00\xff" * 50,
        "long": b"x" * 100_000,
        "set": {1, 2, "a"},
        "frozen": frozenset([3]),
        "nested": [[[]], {}, ((),), None, False],
        "complex": 1 + 2j,
        (1, "pair"): "key",
        "ordered": OrderedDict(a=1),
        "numbers": (np.float32(1.5), np.int64(7), np.bool_(True)),
    }
    loaded = checkpoints.load(write(pickle.dumps(value, protocol)), full=True)
    assert loaded == value and type(loaded["numbers"][1]) is np.int64


# Files that are something else.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\0" * 257 + b"ustar\0" + b"\0" * 300, "0.1.10"),
        (b"just text, and nothing else in it", "not a safetensors, torch.save or .npz"),
        (torch_zip({}, {}, root="m/", extra=[("m/constants.pkl", b"")]), "TorchScript"),
        (torch_zip({}, {}, root="m/", extra=[("n/data.pkl", b"")]), "neither"),
        (pickled({"a": 1}), "no tensors"),
        (pickled([1]), "no mapping of tensors but a list"),
    ],
)
def test_other_files(write, data, message):
    path = write(data)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "nothing.pth")
    with pytest.raises(OSError):
        checkpoints.load(tmp_path)


def test_resolve():
    assert checkpoints.resolve("a/b.pth") == "a/b.pth"
    with pytest.raises(ValueError, match="download"):
        checkpoints.resolve("https://example.org/a.pth")
    with pytest.raises(ValueError, match="hf-hub:owner/name"):
        checkpoints.resolve("hf-hub:nobody")


def test_resolve_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"lucid_c\[weights\]"):
        checkpoints.resolve("hf-hub:owner/name")


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("hf-hub:owner/name/a/b.pth", [("owner/name", "a/b.pth", None)]),
        (
            "hf-hub:owner/name@v1",
            [("owner/name", "model.safetensors", "v1"), ("owner/name", "pytorch_model.bin", "v1")],
        ),
    ],
)
def test_resolve_asks_the_hub(monkeypatch, spec, asked):
    calls = []

    class EntryNotFoundError(Exception):
        pass

    def download(repo, name, revision):
        calls.append((repo, name, revision))
        if name == "model.safetensors":
            raise EntryNotFoundError
        return "/cache/" + name

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download
    hub.utils = types.ModuleType("huggingface_hub.utils")
    hub.utils.EntryNotFoundError = EntryNotFoundError
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", hub.utils)
    assert checkpoints.resolve(spec) == "/cache/" + asked[-1][1]
    assert calls == asked


def test_real_legacy_checkpoint(outside_data):
    path = outside_data / "checkpoints" / "resnet20-12fca82f.th"
    loaded = checkpoints.load(path)
    assert loaded["conv1.weight"].shape == (16, 3, 3, 3)
    assert loaded["linear.weight"].shape == (10, 64)
    assert loaded["bn1.running_var"].min() > 0
    assert all(np.isfinite(array).all() for array in loaded.values())
    full = checkpoints.load(path, full=True)
    assert list(full) == ["best_prec1", "state_dict"] and 91 < full["best_prec1"] < 92
