# SPDX-License-Identifier: MIT
"""The models: counts, signatures, attributes, options, custom blocks, replaced children."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

import lucid_c
import oracle
import oracle_models
import refweights
from conftest import package_env
from helpers import BAD_INPUT, assert_close, assert_same_bits, draw, reference_weights, state_arrays
from lucid_c import models, nn
from lucid_c.models import blocks

PARAMETERS = {
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
    "resnet_200": 64_669_864,
    "resnet_269": 102_069_416,
    "resnet_1001": 149_071_016,
    "wide_resnet_50": 68_883_240,
    "wide_resnet_101": 126_886_696,
    "resnext_50_32x4d": 25_028_904,
    "resnext_101_32x4d": 44_177_704,
    "resnext_101_32x8d": 88_791_336,
    "resnext_101_32x16d": 194_026_792,
    "resnext_101_32x32d": 468_530_472,
    "resnext_101_64x4d": 83_455_272,
    "resnest_14": 10_611_688,
    "resnest_26": 17_069_448,
    "resnest_50": 27_483_240,
    "resnest_101": 48_275_016,
    "resnest_200": 70_201_544,
    "resnest_269": 110_929_480,
    "resnest_50_4s2x40d": 30_417_592,
    "resnest_50_1s4x24d": 25_677_000,
}
# lucid 2.x's deep stem has no batch norm after its last convolution: 2 * 64 or 2 * 128 fewer.
LUCID2_FEWER = {
    name: 256 if name in ("resnest_101", "resnest_200", "resnest_269") else 128
    for name in PARAMETERS
    if name.startswith("resnest")
}
CARD_FLOPS = {
    "resnest_14": 3_548_594_464,
    "resnest_26": 4_678_918_720,
    "resnest_50": 6_937_106_336,
    "resnest_50_1s4x24d": 5_686_764_544,
    "resnest_50_4s2x40d": 5_657_064_720,
    "resnest_101": 17_423_183_648,
    "resnest_200": 45_954_387_872,
    "resnest_269": 100_830_307_104,
}
TINY = {"channels": (8, 12, 20, 24), "num_classes": 7}


# --- counts and names ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    model = lucid_c.create_model(name, init=False)
    assert model.num_parameters() == PARAMETERS[name]
    assert sum(int(np.prod(p.shape)) for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_in_lucids_form(name):
    model = lucid_c.create_model(name, compat="lucid2", init=False)
    assert model.num_parameters() == PARAMETERS[name] - LUCID2_FEWER.get(name, 0)


def test_timms_resnet200_is_another_graph():
    assert lucid_c.create_model("resnet200", init=False).num_parameters() == 64_673_832


@pytest.mark.parametrize(
    "alias,name",
    [
        ("resnet18", "resnet_18"),
        ("resnet50", "resnet_50"),
        ("resnext50_32x4d", "resnext_50_32x4d"),
        ("resnest14d", "resnest_14"),
        ("resnest50d", "resnest_50"),
        ("resnest50d_4s2x40d", "resnest_50_4s2x40d"),
        ("resnest50d_1s4x24d", "resnest_50_1s4x24d"),
    ],
)
def test_timms_names_are_aliases(alias, name):
    model = lucid_c.create_model(alias, num_classes=3, init=False)
    other = lucid_c.create_model(name, num_classes=3, init=False)
    assert list(model.state_dict()) == list(other.state_dict())
    assert model.num_parameters() == other.num_parameters()


def test_list_models():
    assert set(PARAMETERS) <= set(lucid_c.list_models())
    want = {name for name in PARAMETERS if name.startswith("resnext")}
    assert set(lucid_c.list_models("resnext*")) == want
    assert lucid_c.list_models("*nothing*") == []


@pytest.mark.parametrize("name,flops", CARD_FLOPS.items())
def test_info_prints_the_cards_flops_to_the_last_digit(name, flops, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lucid_c", "info", name],
        text=True,
        timeout=60,
        capture_output=True,
        env=package_env(),
        cwd=tmp_path,
        check=True,
    )
    plain = done.stdout.replace(",", "").replace("_", "")
    assert str(flops) in plain and str(PARAMETERS[name]) in plain


# --- signatures ------------------------------------------------------------------------------


def documented(obj):
    """(name, default) of what may be passed by position; and the names of keyword-only ones."""
    parameters = inspect.signature(obj).parameters.values()
    plain = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    others = {p.kind for p in parameters} - {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return plain, others


REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize(
    "name,expected",
    [
        (
            "ResNet",
            [
                ("block", REQUIRED),
                ("layers", REQUIRED),
                ("num_classes", 1000),
                ("in_channels", 3),
                ("stem_width", 64),
                ("stem_type", None),
                ("channels", (64, 128, 256, 512)),
                ("block_args", {}),
            ],
        ),
        (
            "ResNeXt",
            [
                ("block", REQUIRED),
                ("layers", REQUIRED),
                ("cardinality", REQUIRED),
                ("base_width", REQUIRED),
                ("num_classes", 1000),
            ],
        ),
        (
            "ResNeSt",
            [
                ("block", REQUIRED),
                ("layers", REQUIRED),
                ("num_classes", 1000),
                ("base_width", 64),
                ("stem_width", 32),
                ("cardinality", 1),
                ("radix", 2),
                ("avd", True),
            ],
        ),
    ],
)
def test_documented_class_signature(name, expected):
    plain, others = documented(getattr(models, name))
    assert plain == expected
    assert others <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert getattr(nn, name) is getattr(models, name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_documented_function_signature(name):
    parameters = list(inspect.signature(getattr(models, name)).parameters.values())
    assert [(p.name, p.kind.name) for p in parameters] == [
        ("num_classes", "POSITIONAL_OR_KEYWORD"),
        ("kwargs", "VAR_KEYWORD"),
    ]
    assert parameters[0].default == 1000
    assert getattr(models, name).__doc__


def test_create_model_signature():
    parameters = inspect.signature(lucid_c.create_model).parameters
    assert list(parameters)[0] == "name"
    assert {"num_classes", "in_channels", "checkpoint_path", "compat"} <= set(parameters)
    assert parameters["num_classes"].default == 1000 and parameters["in_channels"].default == 3


def test_classes():
    assert issubclass(models.ResNeSt, models.ResNet) and issubclass(models.ResNet, nn.Module)
    assert isinstance(lucid_c.create_model("resnest_14", init=False), models.ResNeSt)
    assert isinstance(lucid_c.create_model("resnext_50_32x4d", init=False), models.ResNeXt)
    assert isinstance(models.resnet_18(10, init=False), models.ResNet)
    assert blocks._ResNeStBottleneck is blocks.ResNeStBottleneck
    assert blocks.BasicBlock.expansion == 1
    for block in (blocks.Bottleneck, blocks.PreActBottleneck, blocks.ResNeStBottleneck):
        assert block.expansion == 4 and issubclass(block, nn.Module)


# --- attributes ------------------------------------------------------------------------------


def test_attributes():
    model = models.ResNeXt(blocks.Bottleneck, [1, 2, 1, 1], 4, 8, num_classes=5)
    assert model.num_classes == 5 and model.block is blocks.Bottleneck
    assert model.cardinality == 4 and model.base_width == 8
    assert [len(stage) for stage in model.layers] == [1, 2, 1, 1]
    assert model.layers[1] is model.layer2
    assert model.stem is not None
    names = [name for name, _ in model.named_children()]
    assert "stem" not in names and "layers" not in names
    assert {
        "conv1",
        "bn1",
        "maxpool",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "global_pool",
        "fc",
    } <= set(names)
    assert isinstance(model.layer1[0], blocks.Bottleneck)
    assert isinstance(model.layer1[0].conv2, nn.Conv2d) and isinstance(model.fc, nn.Linear)
    assert not model.training


def test_models_built_twice_with_one_seed_are_equal():
    lucid_c.random.seed(11)
    a = state_arrays(models.ResNet(blocks.BasicBlock, [1, 1, 1, 1], **TINY))
    lucid_c.random.seed(11)
    b = state_arrays(models.ResNet(blocks.BasicBlock, [1, 1, 1, 1], **TINY))
    lucid_c.random.seed(12)
    c = state_arrays(models.ResNet(blocks.BasicBlock, [1, 1, 1, 1], **TINY))
    for key in a:
        assert_same_bits(a[key], b[key])
    assert any(not np.array_equal(a[key], c[key]) for key in a)


def test_he_initialisation():
    """Convolutions: normal of variance 2 / (OC * KH * KW), the fan-out form of the ResNet code,
    or 2 / fan-in; norms one and zero; means zero, variances one."""
    lucid_c.random.seed(1)
    state = state_arrays(lucid_c.create_model("resnet_18"))
    for key, value in state.items():
        if value.ndim == 4 and value.size > 20000:
            oc, c, kh, kw = value.shape
            want = [np.sqrt(2 / (n * kh * kw)) for n in (oc, c)]
            assert min(abs(value.std() / w - 1) for w in want) < 0.05, key
            assert abs(value.mean()) < 5 * value.std() / np.sqrt(value.size), key
        elif key.endswith("running_var"):
            assert (value == 1).all()
        elif key.endswith(("running_mean", ".bias")) and not key.startswith("fc"):
            assert (value == 0).all()


# --- options against the oracle --------------------------------------------------------------


def check(model, size=(37, 29), in_channels=3, batch=2, **options):
    """Fills the model with reference weights and compares with the oracle's network."""
    weights = reference_weights(model)
    x = refweights.image((batch, in_channels, *size), 9, "models")
    want = oracle_models.forward(weights, x, **options)
    assert_close(model(x), want, rel=5e-6)
    return weights


@pytest.mark.isa
@pytest.mark.parametrize(
    "name,block,kwargs,options",
    [
        ("basic", "BasicBlock", {}, {}),
        ("bottleneck", "Bottleneck", {}, {}),
        ("pre-activation", "PreActBottleneck", {}, {}),
        ("final-norm", "PreActBottleneck", {"final_norm": True}, {}),
        ("five-channels-in", "BasicBlock", {"in_channels": 5}, {}),
        ("one-channel-in", "Bottleneck", {"in_channels": 1}, {}),
        ("narrow-stem", "BasicBlock", {"stem_width": 13}, {}),
        ("deep-stem", "BasicBlock", {"stem_type": "deep", "stem_width": 9}, {}),
        (
            "deep-stem-bottleneck",
            "Bottleneck",
            {"stem_type": "deep", "stem_width": 16, "in_channels": 4},
            {},
        ),
        (
            "groups",
            "Bottleneck",
            {"block_args": {"cardinality": 4, "base_width": 32}},
            {"cardinality": 4},
        ),
        ("wide", "Bottleneck", {"block_args": {"base_width": 128}}, {}),
    ],
    ids=lambda v: v if isinstance(v, str) and "-" in v else "",
)
def test_resnet_options(name, block, kwargs, options):
    model = models.ResNet(getattr(blocks, block), [1, 2, 1, 1], **{**TINY, **kwargs})
    weights = check(model, in_channels=kwargs.get("in_channels", 3), **options)
    assert weights["fc.weight"].shape[0] == 7
    assert ("norm.weight" in weights) == kwargs.get("final_norm", False)
    assert ("conv1.6.weight" in weights) == (kwargs.get("stem_type") == "deep")


@pytest.mark.isa
@pytest.mark.parametrize(
    "kwargs,options",
    [
        ({}, {}),
        ({"radix": 1}, {"radix": 1}),
        ({"radix": 3, "cardinality": 2, "base_width": 48}, {"radix": 3, "cardinality": 2}),
        (
            {"radix": 4, "cardinality": 2, "base_width": 64, "avd_first": True},
            {"radix": 4, "cardinality": 2, "avd_first": True},
        ),
        ({"avd": False}, {"avd": False}),
        ({"stem_width": 11}, {}),
        # widths at which the rounding of the attention width shows
        ({"channels": (16, 24, 76, 100)}, {}),
        ({"channels": (16, 24, 76, 143), "radix": 1}, {"radix": 1}),
        ({"cardinality": 4, "base_width": 32, "radix": 1}, {"cardinality": 4, "radix": 1}),
    ],
    ids=str,
)
def test_resnest_options(kwargs, options):
    kwargs = {"channels": (16, 24, 32, 40), **kwargs}
    model = models.ResNeSt(blocks.ResNeStBottleneck, [1, 1, 1, 1], 7, **kwargs)
    weights = check(model, size=(41, 35), **options)
    for stage in range(1, 5):
        width = weights[f"layer{stage}.0.conv1.weight"].shape[0]
        assert weights[f"layer{stage}.0.conv2.fc1.weight"].shape[0] == oracle.attention_width(
            width, kwargs.get("radix", 2)
        )


def test_resnext_equals_resnet_with_block_args():
    a = models.ResNeXt(blocks.Bottleneck, [1, 1, 1, 1], 4, 8, 7)
    b = models.ResNet(
        blocks.Bottleneck, [1, 1, 1, 1], 7, block_args={"cardinality": 4, "base_width": 8}
    )
    weights = reference_weights(a)
    b.load_state_dict(weights)
    x = refweights.image((1, 3, 33, 47), 2, "models")
    assert_same_bits(a(x), np.asarray(b(x)))
    assert a.layer2[0].conv2.groups == 4


def test_lucid2_form_against_the_oracle():
    model = lucid_c.create_model("resnest_14", num_classes=9, compat="lucid2", init=False)
    check(model, size=(45, 38), batch=1, lucid2=True)


def test_block_args_default_is_not_shared():
    a = models.ResNet(blocks.Bottleneck, [1, 1, 1, 1], **TINY)
    b = models.ResNet(blocks.Bottleneck, [1, 1, 1, 1], **TINY)
    assert state_arrays(a).keys() == state_arrays(b).keys()
    assert inspect.signature(models.ResNet).parameters["block_args"].default == {}


def test_what_a_model_takes():
    model = models.ResNet(blocks.BasicBlock, [1, 1, 1, 1], **TINY)
    reference_weights(model)
    x = refweights.image((2, 3, 40, 36), 2, "takes")
    want = np.array(model(lucid_c.Tensor(x)))
    assert_same_bits(model(x), want)
    assert_same_bits(model(x.astype(np.float64)), want)
    assert_same_bits(model(np.asfortranarray(x)), want)
    assert_same_bits(model(x[:, ::-1][:, ::-1]), want)
    assert_same_bits(model(x.tolist()), want)
    assert isinstance(model(x), lucid_c.Tensor) and model(x).shape == (2, 7)


# --- blocks on their own ---------------------------------------------------------------------


def test_blocks_are_modules():
    block = blocks.Bottleneck(16, 4)
    weights = reference_weights(block)
    x = draw("block", (2, 16, 9, 7))
    prefixed = {f"b.{k}": v for k, v in weights.items()}
    assert_close(block(x), oracle_models.bottleneck(prefixed, x.astype(np.float64), "b.", 1))
    assert "downsample" not in "".join(weights)


def test_a_block_takes_its_shortcut_as_a_module():
    shortcut = nn.Sequential(nn.Conv2d(16, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
    block = blocks.BasicBlock(16, 8, 2, shortcut)
    weights = reference_weights(block)
    x = draw("block", (2, 16, 9, 7))
    prefixed = {f"b.{k}": v for k, v in weights.items()}
    assert_close(block(x), oracle_models.basic(prefixed, x.astype(np.float64), "b.", 2))
    assert "downsample.1.running_var" in weights


class PythonBlock(nn.Module):
    """The basic block again, in Python."""

    expansion = 1

    def __init__(self, in_channels, out_channels, stride=1, downsample=None, slope=0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = downsample
        self.slope = slope

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.slope:
            y = y * self.slope
        y += identity
        return self.relu(y)


@pytest.mark.isa
def test_a_python_block_gives_the_numbers_of_the_c_block():
    ours = models.ResNet(blocks.BasicBlock, [1, 2, 1, 1], **TINY)
    theirs = models.ResNet(PythonBlock, [1, 2, 1, 1], **TINY)
    weights = reference_weights(ours)
    assert list(theirs.state_dict()) == list(weights)
    theirs.load_state_dict(weights)
    x = refweights.image((2, 3, 51, 37), 2, "python")
    want = oracle_models.forward(weights, x)
    assert_close(ours(x), want, rel=5e-6)
    assert_close(theirs(x), want, rel=5e-6)
    assert theirs.block is PythonBlock


def test_block_args_reach_a_python_block():
    model = models.ResNet(PythonBlock, [1, 1, 1, 1], block_args={"slope": 0.5}, **TINY)
    assert all(stage[0].slope == 0.5 for stage in model.layers)
    weights = reference_weights(model)
    for key in weights:
        if key.endswith(("bn2.weight", "bn2.bias")):
            weights[key] = weights[key] * np.float32(0.5)
    x = refweights.image((1, 3, 35, 33), 2, "python")
    assert_close(model(x), oracle_models.forward(weights, x), rel=5e-6)


def test_a_python_block_with_expansion():
    class Wide(PythonBlock):
        expansion = 2

        def __init__(self, in_channels, out_channels, stride=1, downsample=None):
            super().__init__(in_channels, out_channels * 2, stride, downsample)

    model = models.ResNet(Wide, [1, 1, 1, 1], **TINY)
    weights = check(model)
    assert weights["fc.weight"].shape == (7, 48)
    assert weights["layer1.0.downsample.0.weight"].shape == (16, 64, 1, 1)


# --- children replaced by assignment ---------------------------------------------------------


@pytest.fixture
def small():
    model = models.ResNet(blocks.Bottleneck, [1, 1, 1, 1], **TINY)
    return model, reference_weights(model), refweights.image((2, 3, 43, 39), 2, "replace")


def features(weights, x):
    stages = {}
    oracle_models.forward(weights, x, stages)
    return stages


def test_a_new_head(small):
    model, weights, x = small
    model(x)  # a plan of the old graph exists
    model.fc = nn.Linear(96, 3)
    weights = reference_weights(model)
    assert weights["fc.weight"].shape == (3, 96)
    assert_close(model(x), oracle_models.forward(weights, x), rel=5e-6)


def test_no_head(small):
    model, weights, x = small
    model.fc = nn.Identity()
    want = features(weights, x)["global_pool"]
    assert_close(np.asarray(model(x)).reshape(2, -1), want.reshape(2, -1), rel=5e-6)
    assert "fc.weight" not in model.state_dict()


def test_no_max_pool(small):
    model, weights, x = small
    model.maxpool = nn.Identity()
    y = oracle.relu(
        oracle.norm(oracle.conv2d(x, weights["conv1.weight"], None, 2, 3), weights, "bn1.")
    )
    for s in range(1, 5):
        y = oracle_models.bottleneck(weights, y, f"layer{s}.0.", 1 if s == 1 else 2)
    want = oracle.linear(y.mean(axis=(2, 3)), weights["fc.weight"], weights["fc.bias"])
    assert_close(model(x), want, rel=5e-6)


def test_another_stem(small):
    model, _, _ = small
    model.conv1 = nn.Conv2d(2, 64, 3, padding=1, bias=True)
    weights = reference_weights(model)
    x = refweights.image((1, 2, 21, 19), 2, "replace")
    y = oracle.conv2d(x, weights["conv1.weight"], weights["conv1.bias"], 1, 1)
    y = oracle.max_pool2d(oracle.relu(oracle.norm(y, weights, "bn1.")), 3, 2, 1)
    for s in range(1, 5):
        y = oracle_models.bottleneck(weights, y, f"layer{s}.0.", 1 if s == 1 else 2)
    want = oracle.linear(y.mean(axis=(2, 3)), weights["fc.weight"], weights["fc.bias"])
    assert_close(model(x), want, rel=5e-6)


class Scale(nn.Module):
    """A child written in Python: three times its input."""

    def forward(self, x):
        return x * 3


def test_a_child_of_a_block_becomes_python(small):
    model, weights, x = small
    model.layer2[0].bn2 = Scale()
    state = dict(weights)
    c = state["layer2.0.bn2.weight"].shape[0]
    state["layer2.0.bn2.weight"] = np.full(c, 3 * np.sqrt(1 + 1e-5))
    state["layer2.0.bn2.bias"] = state["layer2.0.bn2.running_mean"] = np.zeros(c)
    state["layer2.0.bn2.running_var"] = np.ones(c)
    assert_close(model(x), oracle_models.forward(state, x), rel=5e-6)
    assert "layer2.0.bn2.weight" not in model.state_dict()


def test_a_block_becomes_another_block(small):
    model, _, x = small
    model.layer1[0] = PythonBlock(
        64, 32, 1, nn.Sequential(nn.Conv2d(64, 32, 1, bias=False), nn.BatchNorm2d(32))
    )
    weights = reference_weights(model)
    y = oracle_models.stem(weights, x.astype(np.float64))
    y = oracle_models.basic(weights, y, "layer1.0.", 1)
    for s in range(2, 5):
        y = oracle_models.bottleneck(weights, y, f"layer{s}.0.", 2)
    want = oracle.linear(y.mean(axis=(2, 3)), weights["fc.weight"], weights["fc.bias"])
    assert_close(model(x), want, rel=5e-6)


def test_a_stage_becomes_a_sequence(small):
    model, weights, x = small
    model.layer4 = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(80, 96, 1))
    weights = reference_weights(model)
    y = oracle_models.stem(weights, x.astype(np.float64))
    for s in range(1, 4):
        y = oracle_models.bottleneck(weights, y, f"layer{s}.0.", 1 if s == 1 else 2)
    y = oracle.avg_pool2d(y, 2, ceil_mode=True)
    y = oracle.conv2d(y, weights["layer4.1.weight"], weights["layer4.1.bias"])
    want = oracle.linear(y.mean(axis=(2, 3)), weights["fc.weight"], weights["fc.bias"])
    assert_close(model(x), want, rel=5e-6)


def test_replacing_a_child_by_a_number_is_refused(small):
    model, weights, x = small
    want = np.array(model(x))
    with pytest.raises(BAD_INPUT):
        model.fc = 3
    assert_same_bits(model(x), want)


def test_drop_rate_does_nothing_in_eval():
    model = models.ResNet(blocks.BasicBlock, [1, 1, 1, 1], drop_rate=0.5, **TINY)
    check(model)


def test_saving_and_loading(tmp_path, small):
    pytest.importorskip("safetensors")
    model, weights, x = small
    want = np.array(model(x))
    model.save(tmp_path / "small.safetensors")
    other = models.ResNet(blocks.Bottleneck, [1, 1, 1, 1], **TINY)
    other.load(tmp_path / "small.safetensors")
    assert_same_bits(other(x), want)
    plain = lucid_c.load(tmp_path / "small.safetensors")
    assert set(plain) == set(weights)
    for key in weights:
        assert_same_bits(np.asarray(plain[key]), weights[key])


def test_create_model_reads_a_checkpoint(tmp_path):
    pytest.importorskip("safetensors")
    model = lucid_c.create_model("resnet_18", num_classes=4, init=False)
    reference_weights(model)
    model.save(tmp_path / "w.safetensors")
    other = lucid_c.create_model(
        "resnet_18", num_classes=4, checkpoint_path=tmp_path / "w.safetensors"
    )
    x = refweights.image((1, 3, 48, 40), 2, "checkpoint")
    assert_same_bits(other(x), np.asarray(model(x)))


@pytest.mark.parametrize("wrap", ["module.", "model."])
def test_create_model_reads_npz_with_prefixes(tmp_path, wrap):
    model = lucid_c.create_model("resnet_18", num_classes=4, init=False)
    weights = reference_weights(model)
    extra = {"bn1.num_batches_tracked": np.zeros((), np.int64)}
    np.savez(tmp_path / "w.npz", **{wrap + k: v for k, v in {**weights, **extra}.items()})
    other = lucid_c.create_model("resnet_18", num_classes=4, checkpoint_path=tmp_path / "w.npz")
    x = refweights.image((1, 3, 48, 40), 2, "checkpoint")
    assert_same_bits(other(x), np.asarray(model(x)))


@pytest.mark.isa
def test_fast_and_direct_convolution_agree(run_python, tmp_path):
    """LUCID_C_CONV=direct gives other bits, since some layers of the default are Winograd's, and
    the same numbers."""
    code = """
        import sys
        import numpy as np
        import lucid_c

        model = lucid_c.create_model("resnet_18")
        x = np.random.default_rng(1).standard_normal((2, 3, 161, 130), np.float32)
        np.save(sys.argv[1], np.asarray(model(x)))
    """
    logits = {}
    for mode in (None, "direct", "anything else"):
        path = tmp_path / "logits.npy"
        run_python(code, env={"LUCID_C_CONV": mode}, args=[path], timeout=300)
        logits[mode] = np.load(path)
    direct, default = logits["direct"], logits[None]
    assert np.isfinite(default).all()
    assert not np.array_equal(default, direct)
    assert np.abs(default - direct).max() <= 5e-6 * np.abs(direct).max()
    np.testing.assert_array_equal(logits["anything else"], default)
