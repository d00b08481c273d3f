# SPDX-License-Identifier: MIT
"""Whatever is wrong with the input: a Python exception with names and numbers, never a crash, and
the model stays as it was."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
from conftest import package_env
from helpers import BAD_INPUT, assert_same_bits, draw, reference_weights, state_arrays
from lucid_c import models, nn, ops
from lucid_c.models.blocks import BasicBlock, Bottleneck, ResNeStBottleneck


@pytest.fixture(scope="module")
def model():
    m = models.ResNet(Bottleneck, [1, 1, 1, 1], 7, channels=(8, 8, 12, 12))
    reference_weights(m)
    return m


@pytest.fixture
def unharmed(model):
    """After the test the model holds the same values and gives the same bits."""
    x = draw("x", (2, 3, 33, 31))
    before, want = state_arrays(model), np.array(model(x))
    yield model
    after = state_arrays(model)
    assert after.keys() == before.keys()
    for key in before:
        assert_same_bits(after[key], before[key])
    assert_same_bits(model(x), want)


def raises(function, *args, names=(), kind=BAD_INPUT, **kwargs):
    """Calls, expects an exception of ``kind`` whose message holds each of ``names``."""
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text, "an exception without a message"
    for name in names:
        assert str(name) in text, f"{name!r} is not in the message: {text}"
    return text


def zeros(*shape):
    return np.zeros(shape, np.float32)


# --- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (3, 32), (1, 1, 3, 32, 32)], ids=str)
def test_wrong_rank(unharmed, shape):
    raises(unharmed, np.zeros(shape, np.float32), names=[4])


@pytest.mark.parametrize("channels", [1, 2, 4, 64])
def test_wrong_channel_count(unharmed, channels):
    raises(unharmed, np.zeros((1, channels, 32, 32), np.float32), names=[channels, 3])


def test_channels_last_by_mistake(unharmed):
    raises(unharmed, np.zeros((1, 32, 32, 3), np.float32), names=[32, 3])


@pytest.mark.parametrize(
    "shape", [(1, 3, 0, 32), (1, 3, 32, 0), (1, 0, 32, 32), (2, 3, 0, 0)], ids=str
)
def test_zero_size(unharmed, shape):
    raises(unharmed, np.zeros(shape, np.float32), names=[0])


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (0, 3, 224, 224)], ids=str)
def test_an_empty_batch_gives_an_empty_result(unharmed, shape):
    y = unharmed(np.zeros(shape, np.float32))
    assert y.shape == (0, 7) and y.dtype == np.float32


def test_too_small_an_image():
    m = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(4))
    m(np.zeros((1, 3, 8, 8), np.float32))
    raises(m, np.zeros((1, 3, 4, 9), np.float32), names=[4, 5])
    raises(m, np.zeros((1, 3, 7, 8), np.float32), names=[3, 4])
    assert m(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 4, 1, 1)


@pytest.mark.parametrize(
    "call,names",
    [
        ("F.conv2d(zeros(1, 3, 2, 9), zeros(4, 3, 3, 3))", [2, 3]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), dilation=5)", [9]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 2, 3, 3))", [3, 2]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3))", []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), np.zeros(5))", [5, 4]),
        ("F.conv2d(zeros(1, 4, 9, 9), zeros(4, 4, 3, 3), groups=3)", [3, 4]),
        ("F.conv2d(zeros(1, 4, 9, 9), zeros(5, 2, 3, 3), groups=2)", [5, 2]),
        ("F.conv2d(zeros(9, 9), zeros(4, 3, 3, 3))", [2]),
        ("F.conv2d(zeros(1, 1, 3, 9, 9), zeros(4, 3, 3, 3))", []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), stride=0)", [0]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), stride=(1, -2))", [-2]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), padding=-1)", [-1]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), dilation=0)", [0]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), groups=0)", [0]),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), groups=-1)", [-1]),
        ('F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), padding="full")', ["full"]),
        ('F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), padding="same", stride=2)', []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), stride=(1, 2, 3))", []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), stride=1.5)", []),
        ('F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), stride="2")', []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), padding=1 << 62)", []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), stride=1 << 70)", []),
        ("F.conv2d(None, zeros(4, 3, 3, 3))", []),
        ("F.conv2d(zeros(1, 3, 9, 9), None)", []),
        ("F.conv2d(zeros(1, 3, 9, 9))", []),
        ("F.conv2d(zeros(1, 3, 9, 9), zeros(4, 3, 3, 3), colour=1)", ["colour"]),
        ("F.max_pool2d(zeros(1, 3, 2, 2), 3)", [3, 2]),
        ("F.max_pool2d(zeros(1, 3, 9, 9), 3, padding=2)", [2]),
        ("F.max_pool2d(zeros(1, 3, 9, 9), 0)", [0]),
        ("F.max_pool2d(zeros(1, 3, 9, 9), 3, stride=0)", [0]),
        ("F.max_pool2d(zeros(3, 3), 2)", []),
        ("F.avg_pool2d(zeros(1, 3, 2, 2), 3)", [3, 2]),
        ("F.avg_pool2d(zeros(1, 3, 9, 9), 3, padding=2)", [2]),
        ("F.avg_pool2d(zeros(1, 3, 9, 9), 2, divisor_override=0)", []),
        ("F.adaptive_avg_pool2d(zeros(1, 3, 9, 9), -1)", [-1]),
        ("F.adaptive_avg_pool2d(zeros(9, 9), 1)", [2]),
        ("F.batch_norm(zeros(1, 3, 9, 9), np.zeros(4), np.ones(3))", [4, 3]),
        ("F.batch_norm(zeros(1, 3, 9, 9), np.zeros(3), np.ones(3), np.ones(2))", [2, 3]),
        ("F.linear(zeros(2, 5), zeros(3, 6))", [5, 6]),
        ("F.linear(zeros(2, 5), zeros(3, 5), np.zeros(4))", [4, 3]),
        ("F.softmax(zeros(2, 5), 2)", [2]),
        ("F.softmax(zeros(2, 5), -3)", [-3]),
        ("F.pad(zeros(2, 5), (1, 2, 3))", []),
        ("F.pad(zeros(2, 5), (1, 1, 1, 1, 1, 1))", []),
        ("F.pad(zeros(2, 5), (-4, -4))", []),
        ('F.pad(zeros(2, 5), (1, 1), "sideways")', ["sideways"]),
        ("F.dropout(np.zeros(3), 1.5, False)", ["1.5"]),
        ("ops.add(zeros(2, 3), zeros(2, 4))", [3, 4]),
        ("ops.matmul(zeros(2, 3), zeros(4, 5))", [3, 4]),
        ("ops.matmul(zeros(2, 3), np.float32(1))", []),
        ("ops.matmul(zeros(2, 3, 4), zeros(3, 4, 5))", [2, 3]),
        ("ops.reshape(zeros(2, 3), (4, 2))", [6]),
        ("ops.reshape(zeros(2, 3), (-1, -1))", []),
        ("ops.reshape(zeros(2, 3), (4, -1))", [4]),
        ("ops.reshape(zeros(2, 3), (-2, 3))", [-2]),
        ("ops.permute(zeros(2, 3), (0, 0))", []),
        ("ops.permute(zeros(2, 3), (0, 1, 2))", []),
        ("ops.flatten(zeros(2, 3), 1, 0)", []),
        ("ops.cat([])", []),
        ("ops.cat([zeros(2, 3), zeros(3, 4)], 0)", [3, 4]),
        ("ops.cat([zeros(2, 3), zeros(2, 3, 1)], 0)", []),
        ("ops.cat([zeros(2, 3)], 2)", [2]),
        ("ops.sum(zeros(2, 3), 5)", [5]),
        ("ops.sum(zeros(2, 3), (0, 0))", []),
        ("ops.max(zeros(0, 3), 0)", []),
        ("ops.max(zeros(0))", []),
        ("ops.argmax(zeros(2, 3), 2)", [2]),
    ],
)
def test_an_operator_refuses(call, names):
    raises(lambda: eval(call, globals()), names=names)


# --- dtypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["int64", "int32", "uint8", "bool", "complex64", "complex128", "object", "U3", "M8[s]"]
)
def test_wrong_dtype_is_named(unharmed, dtype):
    x = np.zeros((1, 3, 32, 32), dtype)
    name = str(x.dtype) if dtype != "U3" else ""
    text = raises(unharmed, x, kind=TypeError, names=[name])
    assert "float" in text, "the message says what to do"
    raises(F.relu, x, kind=TypeError, names=[name])
    raises(F.conv2d, x, np.zeros((4, 3, 3, 3), np.float32), kind=TypeError, names=[name])


def test_wrong_dtype_of_weights():
    x = np.zeros((1, 3, 8, 8), np.float32)
    raises(F.conv2d, x, np.zeros((4, 3, 3, 3), np.int32), kind=TypeError, names=["int32"])
    m = nn.Conv2d(3, 4, 3, bias=False)
    before = state_arrays(m)
    raises(
        m.load_state_dict,
        {"weight": np.zeros((4, 3, 3, 3), complex)},
        kind=BAD_INPUT,
        names=["weight"],
    )
    assert_same_bits(state_arrays(m)["weight"], before["weight"])


@pytest.mark.parametrize(
    "what", [None, "image.jpg", {}, object(), [[1.0], [1.0, 2.0]], b"bytes"], ids=str
)
def test_something_that_is_no_array(unharmed, what):
    raises(unharmed, what)


def test_no_and_too_many_arguments(unharmed):
    raises(unharmed, kind=TypeError)
    x = np.zeros((1, 3, 32, 32), np.float32)
    raises(unharmed, x, x, x, kind=TypeError)
    raises(unharmed, x, colour="red", kind=TypeError)


# --- layouts and values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,change",
    [
        ("fortran", np.asfortranarray),
        ("reversed", lambda a: np.ascontiguousarray(a[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]),
        ("channels-reversed", lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1]),
        ("read-only", lambda a: np.frombuffer(a.tobytes(), np.float32).reshape(a.shape)),
        ("every-other", lambda a: np.repeat(np.repeat(a, 2, 2), 3, 3)[:, :, ::2, ::3]),
    ],
)
def test_layouts_are_handled(unharmed, name, change):
    x = draw("layout", (2, 3, 33, 31))
    want = np.array(unharmed(x))
    given = change(x)
    assert_same_bits(unharmed(given), want)
    np.testing.assert_array_equal(given, x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_non_finite_values_stay_in_their_image(unharmed, bad):
    x = draw("nan", (3, 3, 33, 31))
    want = np.array(unharmed(x))
    x[1] = bad
    got = np.asarray(unharmed(x))
    assert_same_bits(got[[0, 2]], want[[0, 2]])
    assert not np.isfinite(got[1]).any()


# --- construction ----------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [[], [1], [1, 1, 1], [1, 1, 1, 1, 1], 3, None, "1111"], ids=str)
def test_layers_of_wrong_length(layers):
    names = [len(layers), 4] if isinstance(layers, list) else []
    raises(models.ResNet, BasicBlock, layers, names=names)


@pytest.mark.parametrize(
    "layers", [[1, 0, 1, 1], [1, -2, 1, 1], [1, 1.5, 1, 1], [1, "2", 1, 1]], ids=str
)
def test_layers_that_are_no_counts(layers):
    raises(models.ResNet, BasicBlock, layers)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_classes": -1},
        {"in_channels": 0},
        {"in_channels": -3},
        {"stem_width": 0},
        {"stem_width": -64},
        {"stem_type": "shallow"},
        {"channels": (64, 128)},
        {"channels": (64, 0, 64, 64)},
        {"channels": (64, -1, 64, 64)},
        {"num_classes": 2.5},
        {"num_classes": "ten"},
        {"block_args": {"colour": "red"}},
        {"colour": "red"},
        {"num_classes": 1 << 62},
        {"in_channels": 1 << 62},
    ],
    ids=str,
)
def test_resnet_refuses(kwargs):
    raises(models.ResNet, BasicBlock, [1, 1, 1, 1], kind=(*BAD_INPUT, MemoryError), **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"radix": -1},
        {"cardinality": 0},
        {"cardinality": 7, "base_width": 4},
        {"base_width": 0},
        {"base_width": -64},
        {"radix": "two"},
    ],
    ids=str,
)
def test_resnest_refuses(kwargs):
    raises(models.ResNeSt, ResNeStBottleneck, [1, 1, 1, 1], **kwargs)


@pytest.mark.parametrize("block", [None, "BasicBlock", 3, object, nn.Conv2d], ids=str)
def test_something_that_is_no_block(block):
    raises(models.ResNet, block, [1, 1, 1, 1], kind=(*BAD_INPUT, AttributeError))


@pytest.mark.parametrize(
    "call,names",
    [
        ("nn.Conv2d(3, 4, 0)", [0]),
        ("nn.Conv2d(3, 4, -3)", [-3]),
        ("nn.Conv2d(0, 4, 3)", [0]),
        ("nn.Conv2d(3, -4, 3)", [-4]),
        ("nn.Conv2d(3, 4, 3, stride=0)", [0]),
        ("nn.Conv2d(3, 4, 3, padding=-1)", [-1]),
        ("nn.Conv2d(3, 4, 3, groups=2)", [2, 3]),
        ("nn.Conv2d(4, 3, 3, groups=2)", [2, 3]),
        ("nn.Conv2d(3, 4, 3, groups=0)", [0]),
        ("nn.Conv2d(3, 4, 3, dilation=0)", [0]),
        ('nn.Conv2d(3, 4, 3, padding="full")', ["full"]),
        ('nn.Conv2d(3, 4, 3, 2, padding="same")', ["same"]),
        ('nn.Conv2d("3", 4, 3)', []),
        ("nn.Conv2d(3, 4, 2.5)", []),
        ("nn.Conv2d(3, 4)", []),
        ("nn.Linear(0, 3)", [0]),
        ("nn.Linear(3, -1)", [-1]),
        ("nn.BatchNorm2d(0)", [0]),
        ("nn.BatchNorm2d(-5)", [-5]),
        ("nn.Dropout(1.5)", ["1.5"]),
        ("nn.Dropout(-0.1)", ["-0.1"]),
        ('nn.Sequential().add_module("a.b", nn.ReLU())', ["a.b"]),
        ('nn.Sequential().add_module("", nn.ReLU())', []),
        ('nn.Sequential().add_module("a", 3)', []),
    ],
)
def test_a_layer_refuses(call, names):
    raises(lambda: eval(call, globals()), names=names)


@pytest.mark.parametrize(
    "name,nearest",
    [
        ("resnet_51", "resnet_50"),
        ("resnest50", "resnest"),
        ("resnext_50_32x4", "resnext_50_32x4d"),
        ("ResNet_50", "resnet_50"),
        ("wide_resnet50", "wide_resnet_50"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, nearest):
    try:
        model = lucid_c.create_model(name, num_classes=2, init=False)
    except BAD_INPUT as error:
        assert nearest in str(error) and name in str(error)
    else:  # a name close enough to be taken as an alias is as good
        assert isinstance(model, models.ResNet) and name != "resnet_51"


@pytest.mark.parametrize("name", ["", "xyz", None, 50, "resnet_50\0", "../resnet_50"], ids=repr)
def test_names_that_are_none(name):
    raises(lucid_c.create_model, name)


def test_an_unknown_compat_form():
    raises(lucid_c.create_model, "resnest_14", compat="lucid9", names=["lucid9"])


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, 1 << 40], ids=repr)
def test_thread_counts_that_are_none(count):
    before = lucid_c.get_num_threads()
    raises(lucid_c.set_num_threads, count)
    assert lucid_c.get_num_threads() == before


# --- checkpoints -----------------------------------------------------------------------------


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def zip_checkpoint(data_pkl, storages=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("archive/data.pkl", data_pkl)
        z.writestr("archive/version", "3\n")
        for name, data in storages:
            z.writestr(f"archive/data/{name}", data)
    return out.getvalue()


def hostile_files(folder):
    """name -> bytes of files that are wrong, truncated or hostile."""
    good = io.BytesIO()
    np.savez(good, **{"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    objects = io.BytesIO()
    np.savez(objects, a=np.array([Payload(folder / "npz-ran")], object))
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    huge = b'{"a":{"dtype":"F32","shape":[4000000000,4000000000],"data_offsets":[0,16]}}'
    outside = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[1000000,1000016]}}'
    overlap = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}'

    def safetensors(head, body=b"\0" * 16, size=None):
        return struct.pack("<Q", len(head) if size is None else size) + head + body

    return {
        "empty.pth": b"",
        "empty.safetensors": b"",
        "empty.npz": b"",
        "text.pth": b"not a checkpoint",
        "text.safetensors": b"not a checkpoint at all",
        "text.npz": b"not a checkpoint",
        "noise.pth": bytes(range(256)) * 8,
        "truncated.npz": good.getvalue()[:2000],
        "objects.npz": objects.getvalue(),
        "truncated.safetensors": safetensors(header)[:-5],
        "header-too-long.safetensors": safetensors(header, size=1 << 62),
        "header-no-json.safetensors": safetensors(b'{"a":'),
        "huge-shape.safetensors": safetensors(huge),
        "outside.safetensors": safetensors(outside),
        "backwards.safetensors": safetensors(overlap),
        "payload.pth": zip_checkpoint(pickle.dumps({"a": Payload(folder / "zip-ran")}, 2)),
        "payload.pkl.pth": pickle.dumps({"a": Payload(folder / "pickle-ran")}, 2),
        "no-pickle.pth": zip_checkpoint(b""),
        "cut-pickle.pth": zip_checkpoint(pickle.dumps({"a": [1] * 1000}, 2)[:40]),
        "recursion.pth": zip_checkpoint(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "memo-bomb.pth": zip_checkpoint(b"\x80\x02]r\xff\xff\xff\x7f."),
        "big-string.pth": zip_checkpoint(b"\x80\x02X\xff\xff\xff\x7fabc."),
        "truncated-zip.pth": zip_checkpoint(pickle.dumps({}, 2))[:60],
    }


@pytest.mark.parametrize("name", list(hostile_files(Path())))
def test_hostile_checkpoints(tmp_path, name):
    """Refused, or read as what is harmless in them; nothing in them runs."""
    path = tmp_path / name
    path.write_bytes(hostile_files(tmp_path)[name])
    kinds = (*BAD_INPUT, OSError, EOFError, MemoryError, pickle.UnpicklingError, zipfile.BadZipFile)
    with pytest.raises(kinds) as caught:
        lucid_c.create_model("resnet_18", num_classes=2, checkpoint_path=path)
    assert not isinstance(caught.value, (RecursionError, SystemError))
    assert name in str(caught.value) or "missing" in str(caught.value).lower()
    try:
        lucid_c.load(path)
    except kinds:
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [name], "code in the file has run"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        lucid_c.create_model("resnet_18", checkpoint_path=tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError):
        lucid_c.load(tmp_path / "absent.pth")


def test_a_mismatch_names_every_key_and_leaves_the_model_alone(tmp_path, unharmed):
    values = {k: v + 1 for k, v in state_arrays(unharmed).items()}
    values["fc.weight"] = np.zeros((3, 48), np.float32)
    del values["layer2.0.bn2.running_var"]
    values["stranger"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "other.npz", **values)
    names = ["fc.weight", "(3, 48)", "(7, 48)", "layer2.0.bn2.running_var", "stranger"]
    raises(unharmed.load, tmp_path / "other.npz", names=names)
    raises(unharmed.load_state_dict, values, names=names)


def test_an_image_that_is_no_image(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    weights = tmp_path / "w.npz"
    np.savez(weights, **state_arrays(lucid_c.create_model("resnet_18", init=False)))
    for name in ("notes.txt", "empty.jpg", "absent.png"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "lucid_c",
                "classify",
                name,
                "--model",
                "resnet_18",
                "--weights",
                str(weights),
            ],
            cwd=tmp_path,
            env=package_env(),
            text=True,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert name in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


# --- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(1 << 20, 1 << 20, 3),
        lambda: nn.Linear(1 << 24, 1 << 24),
        lambda: F.pad(np.zeros((1, 1), np.float32), (0, 1 << 45)),
        lambda: ops.add(np.zeros((1 << 22, 1), np.float32), np.zeros((1, 1 << 22), np.float32)),
        lambda: ops.matmul(np.zeros((1 << 22, 1), np.float32), np.zeros((1, 1 << 22), np.float32)),
        lambda: F.adaptive_avg_pool2d(np.zeros((1, 1, 2, 2), np.float32), 1 << 22),
        lambda: lucid_c.random.randn(1 << 30, 1 << 30),
    ],
    ids=["conv", "linear", "pad", "add", "matmul", "pool", "randn"],
)
def test_more_memory_than_there_is(make):
    with pytest.raises((MemoryError, *BAD_INPUT)) as caught:
        make()
    assert str(caught.value)
    assert F.relu([1.0]).item() == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda big: F.max_pool2d(big, 1 << 24, 1),
        lambda big: F.adaptive_avg_pool2d(big, (1, 1 << 25)),
        lambda big: big @ big,
        lambda big: F.linear(big, np.zeros((1, 1 << 25), np.float32)),
    ],
    ids=["pool", "adaptive", "matmul", "linear"],
)
def test_more_work_than_can_be_counted(work):
    """Within a forward the sizes of values cost nothing until they are computed."""

    class Large(nn.Module):
        def forward(self, x):
            return work(x.expand(1, 1, 1 << 25, 1 << 25)).sum()

    with pytest.raises((MemoryError, ValueError)) as caught:
        Large()(np.zeros((1, 1, 1, 1), np.float32))
    assert str(caught.value)


@pytest.mark.timeout(30)
def test_many_rows_of_no_pixels():
    x = np.zeros((1, 3, 2, 2), np.float32)
    assert F.adaptive_avg_pool2d(x, (2**31 - 1, 0)).shape == (1, 3, 2**31 - 1, 0)


def test_modules_nested_too_deep(run_python):
    """Built from the top; in a process of its own, since the stack is what would end."""
    run_python(
        """
        import numpy as np
        from lucid_c import models, nn

        def nested():
            top = at = nn.Sequential()
            for _ in range(200_000):
                at.append(nn.Sequential())
                at = at[0]
            return top

        class Block(nn.Module):
            expansion = 1

            def __init__(self, *args, **options):
                super().__init__()
                self.part = nested()

        for call in (lambda: nested()(np.zeros((1, 3), np.float32)),
                     lambda: models.ResNet(Block, [1, 1, 1, 1], 2)):
            try:
                call()
            except (RuntimeError, ValueError) as error:
                assert "nested more than" in str(error), error
            else:
                raise AssertionError("taken")
        """
    )


def test_out_of_memory_in_the_middle(run_python):
    """An address space too small for one call: MemoryError, and the next call works."""
    run_python(
        """
    import resource
    import numpy as np, lucid_c
    model = lucid_c.create_model("resnet_18", num_classes=5)
    small = np.ones((1, 3, 64, 64), np.float32)
    want = np.array(model(small))
    large = np.ones((1, 3, 3000, 3000), np.float32)
    kb = int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
    limit = (kb << 10) + (60 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    for _ in range(3):
        try:
            model(large)
        except MemoryError as error:
            assert str(error)
        else:
            raise SystemExit("a call within 60 MiB that needs several hundred")
        assert np.array_equal(np.asarray(model(small)), want)
    """,
        timeout=120,
    )


def test_errors_do_not_leak(model):
    def wrong():
        for call in (
            lambda: model(np.zeros((1, 4, 32, 32), np.float32)),
            lambda: model(np.zeros((1, 3, 32, 32), np.int32)),
            lambda: F.conv2d(np.zeros((1, 3, 2, 2)), np.zeros((1, 3, 3, 3))),
            lambda: nn.Conv2d(3, 4, 3, groups=2),
            lambda: model.load_state_dict({"x": np.zeros(3)}),
        ):
            with pytest.raises(BAD_INPUT):
                call()

    for _ in range(5):
        wrong()
    before = lucid_c.memory_stats()["bytes"]
    for _ in range(50):
        wrong()
    assert lucid_c.memory_stats()["bytes"] <= before + 4096


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Conv2d(3.0, 4, 3), "in_channels must be an integer, not 3.0"),
        (lambda: nn.Conv2d(3, "a", 3), "out_channels must be an integer, not 'a'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=True), "groups must be an integer, not True"),
        (lambda: nn.Linear(3.5, 2), "in_features must be an integer, not 3.5"),
        (lambda: nn.BatchNorm2d("a"), "num_features must be an integer, not 'a'"),
        (lambda: nn.BatchNorm2d(3, eps="a"), "eps must be a number, not 'a'"),
        (lambda: nn.BatchNorm2d(3, momentum="a"), "momentum must be a number, not 'a'"),
        (lambda: nn.Dropout("a"), "p must be a number, not 'a'"),
        (lambda: nn.Flatten("a"), "start_dim must be an integer, not 'a'"),
        (lambda: BasicBlock(64, 64.0), "out_channels must be an integer, not 64.0"),
        (lambda: models.ResNet(BasicBlock, [1] * 4, block_args=5), "block_args must be a mapping"),
    ],
)
def test_wrong_types_of_options_are_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_options_that_must_be_positive_are_named():
    for name in ("stride", "dilation", "groups"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            nn.Conv2d(3, 4, 3, **{name: 0})
    with pytest.raises(OverflowError, match=f"num_classes is too large: {2**70}"):
        models.ResNet(BasicBlock, [1] * 4, num_classes=2**70)


def test_a_single_image_for_a_norm_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"expected 4D input .*not shape \(3, 4, 5\)"):
        nn.BatchNorm2d(3)(draw("x", (3, 4, 5)))


def test_layers_may_be_an_array():
    model = models.ResNet(BasicBlock, np.array([1, 1, 2, 1]), 3, channels=np.array([8] * 4))
    assert len(model.layer3) == 2
