# SPDX-License-Identifier: MIT
"""lucid_c.nn: layers, containers, and Module as a class to build upon."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
import oracle
from helpers import (
    BAD_INPUT,
    assert_close,
    assert_same_bits,
    draw,
    fill,
    reference_weights,
    state_arrays,
)
from lucid_c import nn
from lucid_c.models import ResNet
from lucid_c.models.blocks import BasicBlock, Bottleneck

pytestmark = pytest.mark.isa


def norm_oracle(x, s, eps=1e-5):
    return oracle.batch_norm(
        x, s["running_mean"], s["running_var"], s.get("weight"), s.get("bias"), eps
    )


# --- layers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"bias": False},
        {"stride": 2, "padding": 1},
        {"padding": (2, 0), "dilation": (1, 2)},
        {"groups": 3},
        {"padding": "same"},
        {"padding": "valid", "stride": (2, 1)},
        {"stride": 2, "padding": 1, "padding_mode": "zeros"},
    ],
    ids=str,
)
def test_conv2d(kwargs):
    m = nn.Conv2d(6, 9, (3, 2), **kwargs)
    s = fill(m, "conv")
    assert list(s) == ["weight"] + ["bias"] * kwargs.get("bias", True)
    assert s["weight"].shape == (9, 6 // kwargs.get("groups", 1), 3, 2)
    x = draw("x", (2, 6, 11, 13))
    options = {k: v for k, v in kwargs.items() if k not in ("bias", "padding_mode")}
    assert_close(m(x), oracle.conv2d(x, s["weight"], s.get("bias"), **options))
    assert_close(m(x[0]), oracle.conv2d(x[0], s["weight"], s.get("bias"), **options))


def test_conv2d_positional_arguments_in_pytorchs_order():
    m = nn.Conv2d(6, 9, 3, 2, 1, 1, 3, False)
    assert (m.in_channels, m.out_channels, m.groups) == (6, 9, 3)
    assert (m.kernel_size, m.stride, m.padding, m.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
    assert m.bias is None and m.weight.shape == (9, 2, 3, 3)


@pytest.mark.parametrize(
    "kwargs", [{}, {"eps": 0.1}, {"affine": False}, {"momentum": 0.01}, {"momentum": None}], ids=str
)
def test_batch_norm2d(kwargs):
    m = nn.BatchNorm2d(17, **kwargs)
    s = fill(m, "bn")
    names = ["weight", "bias"] if kwargs.get("affine", True) else []
    counts = ["num_batches_tracked"] if kwargs.get("momentum", 0) is None else []
    assert list(s) == [*names, "running_mean", "running_var", *counts]
    x = draw("x", (2, 17, 5, 7))
    assert_close(m(x), norm_oracle(x, s, kwargs.get("eps", 1e-5)))


def test_batch_norm2d_starts_as_the_identity():
    x = draw("x", (2, 5, 3, 3))
    assert_close(nn.BatchNorm2d(5)(x), x / np.sqrt(1 + 1e-5))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(19,), (3, 19), (2, 3, 19)])
def test_linear(shape, bias):
    m = nn.Linear(19, 23, bias)
    s = fill(m, "linear")
    x = draw("x", shape)
    assert_close(m(x), oracle.linear(x, s["weight"], s.get("bias")))
    assert m.in_features == 19 and m.out_features == 23


@pytest.mark.parametrize(
    "make,want",
    [
        (lambda: nn.ReLU(), oracle.relu),
        (lambda: nn.ReLU(inplace=True), oracle.relu),
        (lambda: nn.Sigmoid(), oracle.sigmoid),
        (lambda: nn.Softmax(1), lambda x: oracle.softmax(x, 1)),
        (lambda: nn.Softmax(dim=-1), lambda x: oracle.softmax(x, -1)),
        (lambda: nn.Identity(), oracle.f64),
        (lambda: nn.Identity(54, unused=True), oracle.f64),
        (lambda: nn.Dropout(0.5), oracle.f64),
        (lambda: nn.Dropout(p=0.1, inplace=True), oracle.f64),
        (lambda: nn.Flatten(), lambda x: oracle.flatten(x, 1)),
        (lambda: nn.Flatten(2, 3), lambda x: oracle.flatten(x, 2, 3)),
        (lambda: nn.Flatten(start_dim=0), lambda x: oracle.flatten(x)),
        (lambda: nn.MaxPool2d(3, 2, 1), lambda x: oracle.max_pool2d(x, 3, 2, 1)),
        (lambda: nn.MaxPool2d(2), lambda x: oracle.max_pool2d(x, 2)),
        (
            lambda: nn.MaxPool2d((3, 2), stride=2, padding=(1, 0), dilation=2, ceil_mode=True),
            lambda x: oracle.max_pool2d(x, (3, 2), 2, (1, 0), 2, True),
        ),
        (lambda: nn.AvgPool2d(3, 2, 1), lambda x: oracle.avg_pool2d(x, 3, 2, 1)),
        (
            lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            lambda x: oracle.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False),
        ),
        (
            lambda: nn.AvgPool2d((2, 3), (1, 2), (1, 0), False, True, 5),
            lambda x: oracle.avg_pool2d(x, (2, 3), (1, 2), (1, 0), False, True, 5),
        ),
        (lambda: nn.AdaptiveAvgPool2d(1), lambda x: oracle.adaptive_avg_pool2d(x, 1)),
        (
            lambda: nn.AdaptiveAvgPool2d((3, None)),
            lambda x: oracle.adaptive_avg_pool2d(x, (3, None)),
        ),
    ],
)
def test_layers_without_parameters(make, want):
    m = make()
    x = draw("x", (2, 17, 9, 11))
    assert_close(m(x), want(x))
    assert not list(m.parameters()) and not m.state_dict() and m.num_parameters() == 0


def test_conv_bn_relu():
    m = nn.ConvBNReLU2d(5, 17, 3, stride=2, padding=1)
    s = fill(m, "cbr")
    assert set(s) == {"conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"}
    x = draw("x", (2, 5, 9, 8))
    want = oracle.conv2d(x, s["conv.weight"], None, 2, 1)
    assert_close(m(x), oracle.relu(oracle.norm(want, s, "bn.")))
    m = nn.ConvBNReLU2d(6, 8, 3, groups=2, conv_bias=True)
    assert m.conv.bias is not None and m.conv.weight.shape == (8, 3, 3, 3)


# --- containers ------------------------------------------------------------------------------


def test_sequential():
    m = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 1))
    s = fill(m, "seq")
    assert list(s) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x = draw("x", (2, 3, 6, 7))
    y = oracle.relu(oracle.conv2d(x, s["0.weight"], s["0.bias"]))
    assert_close(m(x), oracle.conv2d(y, s["2.weight"], s["2.bias"]))
    assert len(m) == 3 and isinstance(m[1], nn.ReLU) and m[-1] is m[2]
    assert [type(c) for c in m] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert len(m[:2]) == 2 and m[:2][0] is m[0]
    m.append(nn.Flatten())
    assert m(x).shape == (2, 7 * 4 * 5)
    m[1] = nn.Identity()
    y = oracle.conv2d(oracle.conv2d(x, s["0.weight"], s["0.bias"]), s["2.weight"], s["2.bias"])
    assert_close(m(x), y.reshape(2, -1))


def test_empty_sequential_is_the_identity():
    x = draw("x", (2, 3))
    assert_same_bits(nn.Sequential()(x), x)


def test_sequential_from_a_dict():
    m = nn.Sequential({"conv": nn.Conv2d(3, 5, 1), "act": nn.ReLU()})
    assert list(m.state_dict()) == ["conv.weight", "conv.bias"] and isinstance(m.act, nn.ReLU)


def test_module_list():
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.ModuleList([nn.Linear(5, 5) for _ in range(3)])
            self.steps.append(nn.Linear(5, 2))

        def forward(self, x):
            for step in self.steps:
                x = F.relu(step(x))
            return x

    m = Tower()
    s = fill(m, "tower")
    assert list(s)[:2] == ["steps.0.weight", "steps.0.bias"] and len(m.steps) == 4
    x = draw("x", (3, 5))
    y = x
    for i in range(4):
        y = oracle.relu(oracle.linear(y, s[f"steps.{i}.weight"], s[f"steps.{i}.bias"]))
    assert_close(m(x), y)
    assert m.steps[-1] is m.steps[3] and len(list(m.steps)) == 4


# --- Module as a base class ------------------------------------------------------------------


class Net(nn.Module):
    """Something of everything: children, a parameter, a buffer, a plain attribute."""

    def __init__(self, channels=6):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.gain = nn.Parameter(np.full((channels, 1, 1), 2.0, np.float32))
        self.register_buffer(
            "offset", lucid_c.Tensor(np.full((1, channels, 1, 1), 0.5, np.float32))
        )
        self.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(channels, 4)))
        self.note = "plain"

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        x = x * self.gain + self.offset
        self.feat = x
        return self.head(F.adaptive_avg_pool2d(x, 1))


def net_oracle(s, x, stages=None):
    y = oracle.conv2d(x, s["conv.weight"], s["conv.bias"], 1, 1)
    y = oracle.relu(oracle.norm(y, s, "bn.")) * s["gain"] + s["offset"]
    if stages is not None:
        stages["feat"] = y
    return oracle.linear(y.mean(axis=(2, 3)), s["head.1.weight"], s["head.1.bias"])


@pytest.fixture
def net():
    m = Net()
    return m, fill(m, "net"), draw("x", (2, 3, 7, 9))


def test_a_python_module_computes(net):
    m, s, x = net
    stages = {}
    want = net_oracle(s, x, stages)
    assert_close(m(x), want)
    assert_close(m.feat, stages["feat"])
    assert m.note == "plain"


def test_names(net):
    m, _, _ = net
    assert [n for n, _ in m.named_parameters()] == [
        "gain",
        "conv.weight",
        "conv.bias",
        "bn.weight",
        "bn.bias",
        "head.1.weight",
        "head.1.bias",
    ]
    assert [n for n, _ in m.named_buffers()] == ["offset", "bn.running_mean", "bn.running_var"]
    assert [n for n, _ in m.named_modules()] == ["", "conv", "bn", "head", "head.0", "head.1"]
    assert [n for n, _ in m.named_children()] == ["conv", "bn", "head"]
    assert list(m.children())[2] is m.head and list(m.modules())[0] is m
    assert list(m.state_dict()) == [
        "gain",
        "offset",
        "conv.weight",
        "conv.bias",
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "head.1.weight",
        "head.1.bias",
    ]
    assert m.num_parameters() == sum(p.numel() for p in m.parameters()) == 6 + 162 + 6 + 12 + 28


def test_a_built_in_model_tells_the_same_kind_of_names():
    m = ResNet(BasicBlock, [1, 1, 1, 1], 5, channels=(8, 8, 8, 8))
    names = [n for n, _ in m.named_modules()]
    assert {"", "conv1", "layer1", "layer1.0", "layer1.0.conv1", "layer4.0.bn2", "fc"} <= set(names)
    assert len(names) == len(set(names))
    parameters = dict(m.named_parameters())
    assert parameters["layer2.0.conv1.weight"].shape == (8, 8, 3, 3)
    assert not any("running" in n for n in parameters)
    assert "layer1.0.bn1.running_var" in dict(m.named_buffers())


def test_training_flag(net):
    m, _, _ = net
    assert not m.training and not any(c.training for c in m.modules())
    assert m.train() is m and all(c.training for c in m.modules())
    m.bn.eval()
    assert not m.bn.training and m.conv.training
    assert m.eval() is m and not any(c.training for c in m.modules())
    m.train(False)
    assert not m.training


def test_registration_by_attribute(net):
    m, s, x = net
    m.extra = nn.Linear(2, 3)
    assert "extra.weight" in m.state_dict()
    m.extra = None
    assert "extra.weight" not in m.state_dict()
    del m.gain
    assert "gain" not in dict(m.named_parameters())
    with pytest.raises(AttributeError, match="gain"):
        _ = m.gain
    m.gain = nn.Parameter(np.full((6, 1, 1), 1.0, np.float32))
    s["gain"] = np.ones((6, 1, 1))
    assert_close(m(x), net_oracle(s, x))


def test_children_before_init_are_refused():
    class Wrong(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(2, 2)

    with pytest.raises((AttributeError, RuntimeError, TypeError)):
        Wrong()


def test_shared_children_are_counted_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    m = Shared()
    assert m.num_parameters() == 20 and len(list(m.parameters())) == 2
    assert list(m.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    s = fill(m.a, "shared")
    x = draw("x", (3, 4))
    y = oracle.linear(x, s["weight"], s["bias"])
    assert_close(m(x), oracle.linear(y, s["weight"], s["bias"]))


def test_apply(net):
    m, _, _ = net
    seen = []
    assert m.apply(lambda c: seen.append(type(c).__name__)) is m
    assert seen == ["Conv2d", "BatchNorm2d", "Flatten", "Linear", "Sequential", "Net"]


def test_repr(net):
    m, _, _ = net
    text = repr(m)
    for part in (
        "Net",
        "(conv): Conv2d(3, 6, kernel_size=(3, 3)",
        "(bn): BatchNorm2d(6",
        "(head): Sequential",
        "(1): Linear(in_features=6, out_features=4",
    ):
        assert part in text
    text = repr(ResNet(Bottleneck, [1, 1, 1, 1], 5))
    assert "(layer4)" in text and "(fc): Linear(in_features=2048, out_features=5" in text


def test_more_than_one_input_and_output():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, a, b, scale=1.0):
            return self.fc(a) * scale, {"sum": a + b}

    m = Two()
    s = fill(m, "two")
    a, b = draw("a", (2, 3)), draw("b", (2, 3))
    first, rest = m(lucid_c.Tensor(a), lucid_c.Tensor(b), scale=2.0)
    assert_close(first, 2 * oracle.linear(a, s["fc.weight"], s["fc.bias"]))
    assert_close(rest["sum"], oracle.add(a, b), rel=2e-7)


# --- recording -------------------------------------------------------------------------------


def test_a_value_may_be_read_within_forward():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x)
            largest = float(np.asarray(y).max())
            self.seen = (largest, y.mean().item(), y.shape)
            return y / largest if largest > 0 else y

    m = Reads()
    s = fill(m, "reads")
    x = draw("x", (3, 4))
    y = oracle.linear(x, s["fc.weight"], s["fc.bias"])
    assert y.max() > 0
    assert_close(m(x), y / y.max())
    assert m.seen[2] == (3, 4)
    np.testing.assert_allclose(m.seen[:2], [y.max(), y.mean()], rtol=1e-4)


def test_an_array_changed_within_forward_does_not_change_what_was_recorded():
    class Changes(nn.Module):
        def forward(self, x):
            a = np.ones((3,), np.float32)
            y = x + a
            a[:] = 100
            return y + a

    x = draw("x", (2, 3))
    assert_close(Changes()(x), x + np.float32(101))


def test_an_error_in_forward_is_the_users_and_leaves_no_trace(net):
    m, s, x = net

    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = m

        def forward(self, x):
            self.kept = self.inner(x)
            raise ZeroDivisionError("mine")

    bad = Fails()
    with pytest.raises(ZeroDivisionError, match="mine"):
        bad(x)
    assert_close(m(x), net_oracle(s, x))
    assert_close(F.relu(x), oracle.relu(x))


def test_shapes_are_known_within_forward():
    class Shapes(nn.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            y = F.max_pool2d(x, 2)
            assert y.shape == (n, c, h // 2, w // 2) and y.dim() == 4 and y.dtype == np.float32
            return y.view(n, -1)

    assert Shapes()(draw("x", (2, 3, 6, 8))).shape == (2, 36)


def test_results_are_not_changed_by_a_later_call(net):
    m, _, x = net
    first = m(x)
    kept = np.array(first)
    m(x + 1)
    m(x[:1])
    assert_same_bits(first, kept)


def test_models_with_equal_graphs_do_not_share_weights(net):
    a, b = Net(), Net()
    sa, sb = fill(a, "a"), fill(b, "b")
    x = net[2]
    for _ in range(2):
        assert_close(a(x), net_oracle(sa, x))
        assert_close(b(x), net_oracle(sb, x))
    b.eps = a.bn.eps
    del a
    gc.collect()
    c = Net()
    sc = fill(c, "c")
    assert_close(c(x), net_oracle(sc, x))
    assert_close(b(x), net_oracle(sb, x))


def test_equal_but_for_an_attribute():
    """Graphs that differ in one attribute only must not share a plan."""
    x = draw("x", (1, 6, 8, 8)) + np.float32(1)
    for eps in (1e-5, 0.5, 1e-5, 2.0):
        m = nn.Sequential(nn.BatchNorm2d(6, eps=eps), nn.ReLU())
        assert_close(m(x), oracle.relu(x / np.sqrt(1 + eps)))
    for include in (True, False, True):
        m = nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=include))
        assert_close(m(x), oracle.avg_pool2d(x, 3, 2, 1, count_include_pad=include))
    for stride, padding in ((1, 1), (2, 1), (1, 0), (2, 0)):
        m = nn.Sequential(nn.Conv2d(6, 4, 3, stride, padding))
        s = fill(m, "stride")
        assert_close(m(x), oracle.conv2d(x, s["0.weight"], s["0.bias"], stride, padding))


# --- state dicts -----------------------------------------------------------------------------


def test_load_state_dict_changes_what_is_computed(net):
    m, _, x = net
    m(x)
    s = fill(m, "other")
    assert_close(m(x), net_oracle(s, x))
    back = m.load_state_dict({k: lucid_c.Tensor(np.asarray(v, np.float32)) for k, v in s.items()})
    assert list(back.missing_keys) == [] and list(back.unexpected_keys) == []


@pytest.mark.parametrize("change", ["copy_", "fill_", "setitem", "iadd"])
def test_parameters_change_in_place_and_the_next_call_sees_it(net, change):
    m, s, x = net
    m(x)
    w = m.conv.weight
    if change == "copy_":
        w.copy_(2 * s["conv.weight"])
        s["conv.weight"] = 2 * s["conv.weight"]
    elif change == "fill_":
        w.fill_(0.25)
        s["conv.weight"] = np.full_like(s["conv.weight"], 0.25)
    elif change == "setitem":
        w[...] = 3 * s["conv.weight"]
        s["conv.weight"] = 3 * s["conv.weight"]
    else:
        w += 1
        s["conv.weight"] = s["conv.weight"] + 1
    assert_same_bits(np.array(m.conv.weight.numpy()), s["conv.weight"].astype(np.float32))
    assert_close(m(x), net_oracle(s, x))
    m.bn.running_mean.copy_(s["bn.running_mean"] + 1)
    s["bn.running_mean"] = s["bn.running_mean"] + 1
    assert_close(m(x), net_oracle(s, x))


def test_numpy_of_a_parameter_is_read_only(net):
    a = net[0].conv.weight.numpy()
    with pytest.raises(ValueError):
        a[:] = 0


def test_state_dict_keeps_the_values_of_its_time(net):
    m, s, _ = net
    before = m.state_dict()
    fill(m, "later")
    for key, value in before.items():
        assert_same_bits(np.asarray(value), s[key].astype(np.float32))


def test_load_state_dict_not_strict(net):
    m, s, x = net
    partial = {"gain": 3 * s["gain"], "stranger": np.zeros(3, np.float32)}
    with pytest.raises(BAD_INPUT, match="conv.weight") as caught:
        m.load_state_dict(partial)
    assert "stranger" in str(caught.value)
    assert_same_bits(np.array(m.gain.numpy()), s["gain"])
    result = m.load_state_dict(partial, strict=False)
    assert list(result.unexpected_keys) == ["stranger"]
    assert set(result.missing_keys) == set(s) - {"gain"}
    s["gain"] = 3 * s["gain"]
    assert_close(m(x), net_oracle(s, x))


@pytest.mark.parametrize("strict", [True, False])
def test_a_wrong_shape_is_named_and_nothing_is_loaded(net, strict):
    m, s, x = net
    wrong = {**{k: v + 1 for k, v in s.items()}, "bn.weight": np.zeros(7, np.float32)}
    with pytest.raises(BAD_INPUT, match="bn.weight") as caught:
        m.load_state_dict(wrong, strict=strict)
    assert "7" in str(caught.value) and "6" in str(caught.value)
    assert_close(m(x), net_oracle(s, x))
    for key, value in state_arrays(m).items():
        assert_same_bits(value, s[key].astype(np.float32))


def test_num_batches_tracked_is_tolerated(net):
    m, s, x = net
    m.load_state_dict({**s, "bn.num_batches_tracked": np.array(3, np.int64)})
    assert "bn.num_batches_tracked" not in m.state_dict()
    assert_close(m(x), net_oracle(s, x))


def test_half_precision_and_double_values_are_converted(net):
    m, s, x = net
    half = {k: v.astype(np.float16) for k, v in s.items()}
    m.load_state_dict(half)
    assert_close(m(x), net_oracle(half, x))
    m.load_state_dict({k: np.asfortranarray(v.astype(np.float64)) for k, v in s.items()})
    assert_close(m(x), net_oracle(s, x))
    assert all(np.asarray(v).dtype == np.float32 for v in m.state_dict().values())


def test_the_callers_arrays_may_change_after_loading(net):
    m, s, x = net
    given = {k: v.copy() for k, v in s.items()}
    m.load_state_dict(given)
    for value in given.values():
        value[...] = np.nan
    assert_close(m(x), net_oracle(s, x))


# --- hooks -----------------------------------------------------------------------------------


def test_forward_hooks(net):
    m, s, x = net
    seen = []

    def look(module, inputs, output):
        seen.append((module, inputs, output))

    handle = m.bn.register_forward_hook(look)
    want = net_oracle(s, x)
    assert_close(m(x), want)
    module, inputs, output = seen[0]
    assert module is m.bn and isinstance(inputs, tuple) and len(seen) == 1
    y = oracle.conv2d(x, s["conv.weight"], s["conv.bias"], 1, 1)
    assert_close(inputs[0], y)
    assert_close(output, oracle.norm(y, s, "bn."))
    handle.remove()
    m(x)
    assert len(seen) == 1


def test_a_hook_may_replace_the_output(net):
    m, s, x = net
    handle = m.head.register_forward_hook(lambda module, inputs, output: output * 2)
    assert_close(m(x), 2 * net_oracle(s, x))
    handle.remove()
    assert_close(m(x), net_oracle(s, x))


def test_hooks_within_a_built_in_model_may_read_at_once():
    m = ResNet(Bottleneck, [1, 2, 1, 1], 5, channels=(8, 12, 16, 20))
    reference_weights(m)
    x = draw("x", (2, 3, 33, 35))
    want = np.array(m(x))  # with batch norm folded into the weights, which hooks prevent
    late, soon = {}, {}
    handles = []
    for name, module in m.named_modules():
        if name:
            handles.append(
                module.register_forward_hook(
                    lambda module, inputs, output, name=name: late.update({name: output})
                )
            )
    assert_close(m(x), want, rel=3e-6)
    for handle in handles:
        handle.remove()
    for name in ("layer1.0.conv2", "layer2.1.bn3", "layer3"):
        module = dict(m.named_modules())[name]
        handles = [
            module.register_forward_hook(
                lambda module, inputs, output, name=name: soon.update({name: np.array(output)})
            )
        ]
        assert_close(m(x), want, rel=3e-6)
        handles[0].remove()
        assert_close(soon[name], late[name], rel=3e-6)
    assert {"conv1", "bn1", "maxpool", "layer1.0.conv1", "fc"} <= set(late)
    assert_same_bits(m(x), want)


def test_an_error_in_a_hook_is_raised(net):
    m, s, x = net

    def fails(module, inputs, output):
        raise KeyError("hook")

    handle = m.conv.register_forward_hook(fails)
    with pytest.raises(KeyError, match="hook"):
        m(x)
    handle.remove()
    assert_close(m(x), net_oracle(s, x))


# --- copies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("which", ["python", "built-in", "sequential"])
def test_copies_are_equal_and_independent(how, which):
    m = {
        "python": Net,
        "built-in": lambda: ResNet(BasicBlock, [1, 1, 1, 1], 5, channels=(8, 8, 16, 16)),
        "sequential": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    }[which]()
    reference = fill if which != "built-in" else lambda m, name: reference_weights(m)
    reference(m, "copy")
    x = draw("x", (2, 3, 17, 19))
    want = np.array(m(x))
    if which == "python":
        del m.feat
    m.train()
    other = copy.deepcopy(m) if how == "deepcopy" else pickle.loads(pickle.dumps(m))
    assert other.training
    other.eval()
    m.eval()
    assert type(other) is type(m) and list(other.state_dict()) == list(m.state_dict())
    assert_same_bits(other(x), want)
    other.load_state_dict({k: np.zeros_like(np.asarray(v)) for k, v in other.state_dict().items()})
    assert_same_bits(m(x), want)
    assert not np.array_equal(np.asarray(other(x)), want)
    del m
    gc.collect()
    assert np.asarray(other(x)).shape == want.shape


def test_a_dropped_module_is_freed():
    m = Net()
    m(draw("x", (2, 3, 7, 9)))
    m.loop = [m]  # a cycle through Python
    gone = weakref.ref(m)
    del m
    gc.collect()
    assert gone() is None


def test_a_parameter_dropped_while_it_is_being_read():
    """The collector may run Python code whenever an object is made."""
    net = nn.Module()

    class Dropping:
        def __del__(self):
            if hasattr(net, "weight"):
                del net.weight

    before, get, collect = gc.get_threshold(), net._get, gc.enable
    try:
        for _ in range(20):
            net.weight = nn.Parameter(np.ones(1000, np.float32))
            cycle = Dropping()
            cycle.me = cycle
            del cycle
            gc.disable()
            gc.set_threshold(1)
            collect()  # from here on, the first object that is made is the tensor
            try:
                weight = get("weight")
            except KeyError:
                continue
            finally:
                gc.set_threshold(*before)
            assert weight.numpy().sum() == 1000
            del weight
    finally:
        gc.enable()
        gc.set_threshold(*before)


def test_a_parameter_outlives_its_module():
    m = nn.Linear(300, 400)
    s = fill(m, "outlives")
    w = m.weight
    del m
    gc.collect()
    assert_same_bits(np.array(w.numpy()), s["weight"])


# --- as in PyTorch ---------------------------------------------------------------------------


def test_requires_grad_is_kept_by_the_parameter():
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2)).requires_grad_(False)
    gc.collect()
    assert not any(value.requires_grad for value in layer.parameters())
    layer[0].weight.requires_grad = True
    for copied in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        flags = {name: value.requires_grad for name, value in copied.named_parameters()}
        assert [name for name, flag in flags.items() if flag] == ["0.weight"]
    assert not any(value.requires_grad for value in nn.BatchNorm2d(2).buffers())


def test_hooks_in_front_and_with_keywords():
    layer, seen = nn.ReLU(), []
    layer.register_forward_hook(lambda module, args, output: seen.append("second"))
    layer.register_forward_hook(lambda module, args, output: seen.append("first"), prepend=True)
    layer.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(sorted(kwargs)), with_kwargs=True
    )
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {"input": -kwargs["input"]}), with_kwargs=True
    )
    x = lucid_c.tensor(draw("x", (2, 3)))
    assert_same_bits(layer(input=x), np.maximum(-x.numpy(), 0))
    assert seen == ["first", "second", ["input"]]
    handle.remove()
    assert_same_bits(layer(x), np.maximum(x.numpy(), 0))


@pytest.mark.parametrize("kind", [lambda *m: nn.Sequential(*m), lambda *m: nn.ModuleList(m)])
def test_lists_are_joined_and_emptied(kind):
    a, b, c = nn.ReLU(), nn.Sigmoid(), nn.Identity()
    both = kind(a, b) + kind(c)
    assert list(both) == [a, b, c] and type(both) is type(kind())
    both += [a]
    assert both.pop() is a and both.pop(0) is a and list(both) == [b, c]
    with pytest.raises(TypeError):
        both + 3
    with pytest.raises(IndexError, match="5 is out of range for 2"):
        both.pop(5)


def test_append_to_a_slice_replaces_nothing():
    part = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Identity())[1:]
    last = nn.Flatten()
    assert [type(module).__name__ for module in part.append(last)] == [
        "Sigmoid",
        "Identity",
        "Flatten",
    ]


def test_get_buffer():
    net = nn.Sequential(nn.BatchNorm2d(3))
    assert net.get_buffer("0.running_mean").shape == (3,)
    with pytest.raises(AttributeError, match=r"'0\.weight' is not a buffer"):
        net.get_buffer("0.weight")


def test_fixed_options_can_be_read():
    assert nn.Conv2d(1, 1, 1).padding_mode == "zeros"
    assert nn.MaxPool2d(2).return_indices is False
