# SPDX-License-Identifier: MIT
"""ONNX files against ONNX Runtime: models, every op, custom modules, what cannot be written."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import lucid_c
from helpers import assert_close, draw, fill, reference_weights
from lucid_c import _core, nn, onnx_export
from lucid_c.cli import main
from lucid_c.models import ResNeSt, ResNet, ResNeXt
from lucid_c.models.blocks import Bottleneck, PreActBottleneck, _ResNeStBottleneck
from lucid_c.nn import functional as F

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

BOUND = 5e-6  # of the largest logit
SIDE = 64


def load(path):
    """A checked file, as a function of an array."""
    onnx.checker.check_model(str(path), full_check=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    run = SimpleNamespace(input=x, output=y)
    run.call = lambda data: session.run(None, {x.name: data})[0]
    return run


def preact(**options):
    return ResNet(PreActBottleneck, [2, 1, 1, 1], **options)


def nested(**given):
    return lambda **options: ResNeSt(_ResNeStBottleneck, [1, 1, 1, 1], **given, **options)


def variant(name, **more):
    return lambda **options: lucid_c.create_model(name, **more, **options)


FAMILIES = {
    "resnet_18": variant("resnet_18"),
    "pre-activation": preact,
    "resnext_32x4d": lambda **options: ResNeXt(Bottleneck, [1, 1, 1, 1], 32, 4, **options),
    "resnest_14": variant("resnest_14"),
    "resnest_4s2x40d": nested(radix=4, cardinality=2, base_width=40, avd_first=True),
    "resnest_1s4x24d": nested(radix=1, cardinality=4, base_width=24, avd_first=True),
    "lucid2_resnest_14": variant("resnest_14", compat="lucid2"),
}


@pytest.mark.family
@pytest.mark.parametrize("name", FAMILIES)
def test_one_model_of_every_family(name, tmp_path):
    model = FAMILIES[name](num_classes=12, init=False)
    reference_weights(model)
    model.export_onnx(tmp_path / "m.onnx", input_shape=(1, 3, SIDE, SIDE))
    theirs = load(tmp_path / "m.onnx")
    for batch in (1, 3):
        x = draw(f"{name}{batch}", (batch, 3, SIDE, SIDE))
        assert_close(theirs.call(x), model(x), BOUND)
    assert theirs.input.shape == ["batch", 3, SIDE, SIDE]
    assert theirs.output.shape == ["batch", 12]
    written = {each.name for each in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert set(model.state_dict()) <= written
    assert os.listdir(tmp_path) == ["m.onnx"]


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


RNG = np.random.default_rng(3)
W = RNG.standard_normal((6, 4, 3, 2)).astype(np.float32)
GROUPED = RNG.standard_normal((6, 2, 3, 3)).astype(np.float32)
MATRIX = RNG.standard_normal((5, 6)).astype(np.float32)
VECTOR = RNG.standard_normal(6).astype(np.float32)
MEAN, VAR = RNG.standard_normal(4).astype(np.float32), np.full(4, 0.7, np.float32)

SHAPE = (2, 4, 5, 6)
OPS = {
    "conv2d": lambda x: F.conv2d(x, W, VECTOR, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "conv2d grouped": lambda x: F.conv2d(x, GROUPED, padding="same", groups=2),
    "linear": lambda x: F.linear(x, MATRIX, VECTOR[:5]),
    "linear without bias": lambda x: F.linear(x, MATRIX),
    "linear on a matrix": lambda x: F.linear(x[:, 0, 0], MATRIX, VECTOR[:5]),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "matmul with a vector": lambda x: x @ VECTOR,
    "batch_norm": lambda x: F.batch_norm(x, MEAN, VAR, MEAN, VAR, eps=1e-3),
    "batch_norm without affine": lambda x: F.batch_norm(x, MEAN, VAR),
    "batch_norm of a matrix": lambda x: F.batch_norm(x[:, :, 0, 0], MEAN, VAR, VAR, MEAN),
    "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(),
    "exp, log, sqrt": lambda x: (x.exp() + 1).log().sqrt(),
    "neg, abs, tanh": lambda x: -x.abs() + x.tanh(),
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp below": lambda x: x.clamp(min=-0.3),
    "clamp above": lambda x: x.clamp(max=0.3),
    "clamp the wrong way round": lambda x: x.clamp(0.4, -0.3),
    "arithmetic": lambda x: (2 * x - x[:, :1]) / (x.abs() + 1) * x,
    "pow": lambda x: (x.abs() + 0.1) ** 2.5,
    "maximum and minimum": lambda x: lucid_c.ops.maximum(x, lucid_c.ops.minimum(x * 2, 0.1)),
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "softmax of a number": lambda x: F.softmax(x.sum(), 0),
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool dilated": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "max_pool ceil": lambda x: F.max_pool2d(x, (2, 3), 3, 1, ceil_mode=True),
    "max_pool of zeros": lambda x: _core.pool2d("max", x, 3, 2, 1, 1, False, False, 0) - 1,
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool inside": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool ceil": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
    "avg_pool ceil, padded": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool wide ceil": lambda x: F.avg_pool2d(x, 2, 3, 1, ceil_mode=True),
    "avg_pool inside ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, True, count_include_pad=False),
    "avg_pool by a number": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    "adaptive_avg one": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_avg even": lambda x: F.adaptive_avg_pool2d(x, (5, 3)),
    "adaptive_avg uneven": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "adaptive_avg larger": lambda x: F.adaptive_avg_pool2d(x, (7, 7)),
    "adaptive_max one": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive_max even": lambda x: F.adaptive_max_pool2d(x, (1, 2)),
    "adaptive_max uneven": lambda x: F.adaptive_max_pool2d(x, (2, 4)),
    "sum": lambda x: x.sum((1, 3)),
    "sum over images": lambda x: x.sum(0),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "mean of all": lambda x: x.mean(),
    "max and min": lambda x: _core.reduce("max", x, 1, True) - _core.reduce("min", x, (2, 3), True),
    "argmax": lambda x: x.argmax(1),
    "argmax kept": lambda x: x.argmax(-1, keepdim=True),
    "argmax of all": lambda x: x.argmax(),
    "flatten": lambda x: x.flatten(1),
    "flatten all": lambda x: x.reshape(-1) * 2,
    "images into channels": lambda x: x.reshape(1, -1, 5, 6),
    "pairs of channels": lambda x: x.reshape(2 * x.shape[0], 2, 5, 6),
    "two sizes with the batch": lambda x: (
        x[:, None].expand(-1, x.shape[0], -1, -1, -1).reshape(x.shape[0], 2 * x.shape[0], 2, 5, 6)
    ),
    "one image more": lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 0, 1)),
    "permute": lambda x: x.permute(3, 0, 2, 1),
    "cat": lambda x: lucid_c.ops.cat([x, x * 2, x[:, :1]], 1),
    "cat of images": lambda x: lucid_c.ops.cat([x, x], 0),
    "a long cat": lambda x: lucid_c.ops.cat([x] * 20, 2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=1.5),
    "pad that crops": lambda x: F.pad(x, (-1, 2, 1, -2)),
    "slice": lambda x: x[:, 1:3, ::2, 4:1:-1],
    "slice to the start": lambda x: x[:, :, ::-1, 2::-2],
    "all but the first image": lambda x: lucid_c.ops.cat([x, x], 0)[1:],
    "the last image": lambda x: x[-1:],
    "images backwards": lambda x: x[::-1],
    "all of it": lambda x: x[:] * 1,
    "expand": lambda x: x[:, :1].expand(-1, 4, -1, -1),
    "expand with the batch": lambda x: x.mean(0, keepdim=True).expand(x.shape[0], -1, -1, -1),
    "expand twice the batch": lambda x: x.mean(0, keepdim=True).expand(2 * x.shape[0], 4, 5, 6),
    "expand a new axis": lambda x: x.expand(3, *x.shape),
    "the input itself": lambda x: x,
    "dead code": lambda x: (x.exp().sum(), x + 1)[1],
}


@pytest.mark.ops
@pytest.mark.parametrize("name", OPS)
def test_every_op(name, tmp_path):
    model = Apply(OPS[name])
    model.export_onnx(tmp_path / "op.onnx", input_shape=SHAPE)
    theirs = load(tmp_path / "op.onnx")
    for batch in (2, 1, 5):
        x = draw(f"{name}{batch}", (batch, *SHAPE[1:]))
        assert_close(theirs.call(x), model(x), 1e-5, dtype=None)


def test_no_op_is_left_out(tmp_path):
    """All that the recorder knows has a writer, and the list above meets each of them."""
    model = lucid_c.create_model("resnest_14", num_classes=3)
    met = {node[0] for node in _core.record(model, (1, 3, 64, 64))["nodes"]}
    for function in OPS.values():
        met |= {node[0] for node in _core.record(Apply(function), SHAPE)["nodes"]}
    assert met == set(onnx_export.WRITERS)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_other_opsets(opset, tmp_path):
    model = nested()(num_classes=5, channels=(16, 16, 32, 32), stem_width=8)
    model.layer4 = nn.Sequential(
        *model.layer4, Apply(lambda x: x - _core.reduce("max", x, (2, 3), True))
    )
    reference_weights(model)
    model.export_onnx(tmp_path / "m.onnx", input_shape=(2, 3, SIDE, SIDE), opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset
    x = draw("x", (3, 3, SIDE, SIDE))
    assert_close(load(tmp_path / "m.onnx").call(x), model(x), BOUND)


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down = nn.Conv2d(channels, 8, 1)
        self.up = nn.Conv2d(8, channels, 1)
        self.scale = nn.Parameter(np.ones((1, channels, 1, 1), np.float32))
        self.register_buffer("hidden", np.full((1,), 0.25, np.float32), persistent=False)

    def forward(self, x):
        s = F.adaptive_avg_pool2d(x, 1)
        return x * F.sigmoid(self.up(F.relu(self.down(s)))) * self.scale + self.hidden


def test_a_custom_block(tmp_path):
    model = lucid_c.create_model("resnet_18", num_classes=5)
    reference_weights(model)
    gate = Gate(512)
    fill(gate, "gate")
    model.layer4 = nn.Sequential(*model.layer4, gate)
    model.export_onnx(tmp_path / "m.onnx", input_shape=(1, 3, SIDE, SIDE))
    x = draw("x", (3, 3, SIDE, SIDE))
    assert_close(load(tmp_path / "m.onnx").call(x), model(x), BOUND)
    names = {each.name for each in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"layer4.2.down.weight", "layer4.2.scale"} <= names
    nodes = {each.name for each in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "/layer4/2/down/Conv" in nodes


def test_shared_parameters_are_written_once(tmp_path):
    layer = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    fill(model, "shared")
    assert len(model.state_dict()) == 4
    model.export_onnx(tmp_path / "m.onnx", input_shape=(1, 4, 7, 7))
    names = [each.name for each in onnx.load(tmp_path / "m.onnx").graph.initializer]
    assert sorted(names) == ["0.bias", "0.weight"]
    x = draw("x", (2, 4, 7, 7))
    assert_close(load(tmp_path / "m.onnx").call(x), model(x), BOUND)


def test_names_of_parameters_win(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = nn.Parameter(np.full((3,), 2.0, np.float32))
            self.output = nn.Parameter(np.full((3,), 3.0, np.float32))

        def forward(self, x):
            return x * self.input + self.output

    Odd().export_onnx(tmp_path / "m.onnx", input_shape=(1, 3))
    theirs = load(tmp_path / "m.onnx")
    np.testing.assert_allclose(theirs.call(np.ones((2, 3), np.float32)), np.full((2, 3), 5.0))


def test_a_fixed_batch(tmp_path):
    model = lucid_c.create_model("resnet_18", num_classes=3)
    model.export_onnx(tmp_path / "m.onnx", input_shape=(2, 3, 32, 32), dynamic_batch=False)
    theirs = load(tmp_path / "m.onnx")
    assert theirs.input.shape == [2, 3, 32, 32] and theirs.output.shape == [2, 3]
    x = draw("x", (2, 3, 32, 32))
    assert_close(theirs.call(x), model(x), BOUND)


def test_the_default_size_is_the_models_own(tmp_path):
    model = lucid_c.create_model("resnest_14", num_classes=3, in_channels=1)
    model.export_onnx(tmp_path / "m.onnx")
    shape = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape
    assert [d.dim_value or d.dim_param for d in shape.dim] == ["batch", 1, 224, 224]
    with pytest.raises(ValueError, match="input_shape="):
        nn.Conv2d(3, 4, 3).export_onnx(tmp_path / "n.onnx")


def test_training_mode_is_left_alone(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].train()
    model[2].train()
    model.export_onnx(tmp_path / "m.onnx", input_shape=(1, 3, 8, 8))
    assert [module.training for module in model] == [False, True, True]
    model.eval()
    x = draw("x", (2, 3, 8, 8))
    assert_close(load(tmp_path / "m.onnx").call(x), model(x), BOUND)


def test_weights_in_a_file_of_their_own(tmp_path, monkeypatch):
    model = preact(num_classes=4, channels=(16, 16, 32, 32))
    x = draw("x", (2, 3, 32, 32))
    for each in range(2):  # the second over the first
        reference_weights(model, each + 1)
        model.export_onnx(tmp_path / "m.onnx", input_shape=(1, 3, 32, 32), external_data=True)
        assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
        assert (tmp_path / "m.onnx").stat().st_size < 200_000
        assert (tmp_path / "m.onnx.data").stat().st_size > 0.9 * 4 * model.num_parameters()
        assert_close(load(tmp_path / "m.onnx").call(x), model(x), BOUND)
    monkeypatch.setattr(onnx_export, "LARGEST_MODEL", 100_000)
    model.export_onnx(tmp_path / "n.onnx", input_shape=(1, 3, 32, 32))
    assert (tmp_path / "n.onnx.data").exists()
    with pytest.raises(ValueError, match="external_data=True"):
        model.export_onnx(tmp_path / "o.onnx", input_shape=(1, 3, 32, 32), external_data=False)
    assert not (tmp_path / "o.onnx").exists()


def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    model = nn.Conv2d(3, 4, 3)
    path = tmp_path / "m.onnx"
    model.export_onnx(path, input_shape=(1, 3, 8, 8))
    before = path.read_bytes()

    def fail(proto, name, **options):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(onnx, "save_model", fail)
    for external in (False, True):
        with pytest.raises(OSError, match="no space"):
            model.export_onnx(path, input_shape=(1, 3, 8, 8), external_data=external)
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.onnx"]


BAD_FORWARDS = {
    "reads the numbers": lambda x: x * float(np.asarray(x).max()),
    "for another number of images": lambda x: x if x.shape[0] == 2 else x.exp(),
    "an array that depends on the batch": lambda x: x + np.ones((x.shape[0], 1, 1, 1), np.float32),
    "depends on the batch size": lambda x: x[: x.shape[0] // 2 + 1],
    "slice of module 'inner'": lambda x: x[x.shape[0] // 2 :],
    "a size depends on the batch": lambda x: x[:1].expand(x.shape[0] + 1, 4, 5, 6),
    "pad of module 'inner'": lambda x: F.pad(x, (x.shape[0], 0)).sum(3),
}


@pytest.mark.parametrize("text", BAD_FORWARDS)
def test_what_cannot_be_written(text, tmp_path):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Apply(BAD_FORWARDS[text])

        def forward(self, x):
            return self.inner(x) * 1

    with pytest.raises(ValueError, match=text):
        Outer().export_onnx(tmp_path / "m.onnx", input_shape=SHAPE)
    assert os.listdir(tmp_path) == []
    assert Outer()(np.zeros(SHAPE)).shape[0] <= 3  # the model still works


def test_an_op_that_is_not_known(tmp_path, monkeypatch):
    monkeypatch.delitem(onnx_export.WRITERS, "unary")
    with pytest.raises(ValueError, match="unary of module 'relu' cannot be written as ONNX"):
        lucid_c.create_model("resnet_18").export_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "options,error,text",
    [
        ({"input_shape": (1, 3, 0, 8)}, ValueError, "input_shape"),
        ({"input_shape": "8x8"}, TypeError, "input_shape"),
        ({"input_shape": (1, 4, 8, 8)}, ValueError, "channels"),
        ({"input_shape": (1, 3, 8, 8), "opset": 12}, ValueError, "opset must be 13"),
        ({"input_shape": (1, 3, 8, 8), "opset": 1000}, ValueError, "opset"),
        ({"input_shape": (1, 3, 8, 8), "opset": 17.0}, TypeError, "opset"),
    ],
)
def test_wrong_arguments(options, error, text, tmp_path):
    with pytest.raises(error, match=text):
        nn.Conv2d(3, 4, 3).export_onnx(tmp_path / "m.onnx", **options)
    assert os.listdir(tmp_path) == []


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"lucid_c\[onnx\]"):
        nn.Conv2d(3, 4, 3).export_onnx(tmp_path / "m.onnx", input_shape=(1, 3, 8, 8))


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = lucid_c.create_model("resnet_18", num_classes=7)
    reference_weights(model)
    model.save("w.safetensors")
    arguments = ["export", "resnet_18", "m.onnx", "--weights", "w.safetensors"]
    assert main([*arguments, "--image-size", "32x48"]) == 0
    assert "m.onnx" in capsys.readouterr().out
    theirs = load(tmp_path / "m.onnx")
    assert theirs.input.shape == ["batch", 3, 32, 48]
    x = draw("x", (2, 3, 32, 48))
    assert_close(theirs.call(x), model(x), BOUND)
    assert main(["export", "resnet_18", "n.onnx", "--image-size", "32", "--batch", "4"]) == 0
    assert load(tmp_path / "n.onnx").input.shape == [4, 3, 32, 32]
    assert main(["export", "resnet_18", "x.onnx", "--opset", "3"]) == 2
    assert "opset" in capsys.readouterr().err
