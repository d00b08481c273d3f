# SPDX-License-Identifier: MIT
"""Spellings of names, the weights in a training checkpoint, and loading into a model."""

import json
import random

import numpy as np
import pytest

from checkpoint_files import (
    FakeModel,
    assert_same,
    legacy_of,
    tensors_of,
    torch_zip,
    weights,
)
from lucid_c import checkpoints
from lucid_c.checkpoints import map_keys


def shapes_of(rows):
    return {row[0]: tuple(row[-1]) for row in rows}


def assert_fits(sources, targets, pairs):
    """All of `targets` is found, as `pairs` (target -> source) say, in any order of the file."""
    names = list(sources)
    random.Random(1).shuffle(names)
    result = map_keys({name: sources[name] for name in names}, targets)
    assert result.sources == pairs
    assert (result.missing, result.unexpected, result.misshapen) == ([], [], [])
    assert result.describe() == ""


# Each spelling, on whole models.


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "resnest14d"])
def test_timm_names_are_ours(reference_dir, name):
    rows = json.loads((reference_dir / f"{name}.json").read_text())["state_dict"]
    shapes = shapes_of(rows)
    targets = {k: v for k, v in shapes.items() if not k.endswith("num_batches_tracked")}
    assert len(targets) < len(shapes)
    assert_fits(shapes, targets, {k: k for k in targets})
    prefixed = {f"module._orig_mod.{k}": v for k, v in shapes.items()}
    assert_fits(prefixed, targets, {k: f"module._orig_mod.{k}" for k in targets})


@pytest.mark.parametrize("name", ["lucid2_resnest_14", "lucid2_resnest_50_4s2x40d"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_lucid_resnest(reference_dir, name, prefix):
    rows = json.loads((reference_dir / f"{name}.json").read_text())["keys"]
    sources = {prefix + lucid: tuple(shape) for lucid, _, shape in rows}
    targets = {ours: tuple(shape) for _, ours, shape in rows}
    assert_fits(sources, targets, {ours: prefix + lucid for lucid, ours, _ in rows})


def test_lucid_resnest_does_not_fit_the_usual_graph(reference_dir):
    # its deep stem ends without a norm, and its split attention computes something else
    rows = json.loads((reference_dir / "lucid2_resnest_14.json").read_text())["keys"]
    usual = shapes_of(json.loads((reference_dir / "resnest14d.json").read_text())["state_dict"])
    targets = {k: v for k, v in usual.items() if not k.endswith("num_batches_tracked")}
    result = map_keys({lucid: tuple(shape) for lucid, _, shape in rows}, targets)
    missing = {"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"}
    assert set(result.missing) == missing and not result.unexpected


def test_lucid_pre_activation(reference_dir):
    rows = json.loads((reference_dir / "lucid_resnet_200.json").read_text())["state_dict"]
    sources = shapes_of(rows)
    targets, pairs = {}, {}
    for name, shape in sources.items():
        ours = name.replace("stem.0.", "conv1.").replace("stem.1.", "bn1.")
        if not name.endswith("num_batches_tracked"):
            targets[ours], pairs[ours] = shape, name
    assert "conv1.weight" in targets and "bn1.running_var" in targets
    assert_fits(sources, targets, pairs)


def lucid_bottleneck_name(ours):
    """lucid 2.x: convolution, norm and ReLU in one layer, the last pair in a Sequential."""
    part = ours.split(".")
    if part[0] in ("conv1", "bn1"):
        return ".".join([{"conv1": "stem.0", "bn1": "stem.1"}[part[0]], *part[1:]])
    if not part[0].startswith("layer") or part[2] == "downsample":
        return ours
    kind, number = part[2][:-1], part[2][-1]
    if number == "3":
        layer = {"conv": "conv3.0", "bn": "conv3.1"}[kind]
    else:
        layer = f"conv{number}.{kind}"
    return ".".join([*part[:2], layer, *part[3:]])


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("head", ["fc", "classifier", "last_linear", "head.fc"])
def test_lucid_bottlenecks_and_heads(reference_dir, name, head):
    rows = json.loads((reference_dir / f"{name}.json").read_text())["state_dict"]
    targets = {k: v for k, v in shapes_of(rows).items() if "num_batches" not in k}
    pairs = {k: lucid_bottleneck_name(k).replace("fc.", head + ".") for k in targets}
    assert pairs["layer1.0.conv2.weight"] == "layer1.0.conv2.conv.weight"
    assert pairs["layer1.0.bn3.weight"] == "layer1.0.conv3.1.weight"
    assert_fits({pairs[k]: shape for k, shape in targets.items()}, targets, pairs)


def test_lucid_3_names(reference_dir):
    rows = json.loads((reference_dir / "resnet18.json").read_text())["state_dict"]
    targets = {k: v for k, v in shapes_of(rows).items() if "num_batches" not in k}
    pairs = {}
    for k in targets:
        lucid = "stem.0." + k[6:] if k.startswith("conv1.") else k
        lucid = "stem.1." + k[4:] if k.startswith("bn1.") else lucid
        pairs[k] = lucid.replace("fc.", "classifier.")
    assert_fits({pairs[k]: shape for k, shape in targets.items()}, targets, pairs)


# Choosing.


def test_prefix_on_either_side():
    w = {name: array.shape for name, array in weights().items()}
    wrapped = {f"backbone.{name}": shape for name, shape in w.items()}
    assert_fits(wrapped, w, {name: f"backbone.{name}" for name in w})
    assert_fits(w, wrapped, {f"backbone.{name}": name for name in w})
    assert_fits(wrapped, wrapped, {name: name for name in wrapped})


def test_prefix_on_some_names():
    w = {name: array.shape for name, array in weights().items()}
    mixed = {f"model.{name}": shape for name, shape in w.items()}
    result = map_keys({**mixed, "loss.weight": (3,)}, w)
    assert result.sources == {name: f"model.{name}" for name in w}
    assert result.unexpected == ["loss.weight"] and not result.missing
    # the same names with and without the prefix are two sets of weights; one is taken whole
    result = map_keys({**mixed, **w}, w)
    assert result.sources == {name: name for name in w}
    assert set(result.unexpected) == set(mixed)


def test_head_of_the_model_itself_keeps_its_name():
    shapes = {"fc.weight": (2, 3), "head.weight": (2, 3)}
    result = map_keys({"head.weight": (2, 3)}, shapes)
    assert result.sources == {"head.weight": "head.weight"} and result.missing == ["fc.weight"]


def test_names_never_become_one():
    shapes = {"fc.bias": (2,), "head.weight": (2, 3), "head.bias": (2,)}
    result = map_keys(shapes, {"fc.weight": (2, 3), "fc.bias": (2,)})
    assert (result.sources, result.missing) == ({"fc.bias": "fc.bias"}, ["fc.weight"])
    both = {"stem.0.weight": (8, 3, 7, 7), "conv1.weight": (8, 3, 7, 7)}
    result = map_keys(both, {"conv1.weight": (8, 3, 7, 7), "bn1.weight": (8,)})
    assert result.sources == {"conv1.weight": "conv1.weight"}
    assert result.unexpected == ["stem.0.weight"]


def test_shapes_never_lie():
    result = map_keys({"a.weight": (2, 3), "b": (4,)}, {"a.weight": (3, 2), "b": (4,), "c": (1,)})
    assert result.sources == {"b": "b"}
    assert result.missing == ["c"] and result.unexpected == []
    assert result.misshapen == [("a.weight", (3, 2), "a.weight", (2, 3))]
    assert result.describe() == (
        "missing (1): c\n  wrong shape (1): a.weight (3, 2) is (2, 3) in the file"
    )


def test_counters_are_neither_missing_nor_unexpected():
    counter = {"bn.num_batches_tracked": ()}
    assert map_keys({"x": (1,), **counter}, {"x": (1,)}).unexpected == []
    assert map_keys({"x": (1,)}, {"x": (1,), **counter}).missing == []
    both = map_keys({"x": (1,), **counter}, {"x": (1,), **counter})
    assert both.sources == {"x": "x", "bn.num_batches_tracked": "bn.num_batches_tracked"}


def test_long_lists_are_shortened():
    result = map_keys({}, {f"layer{i}.weight": (1,) for i in range(100)})
    text = result.describe()
    assert "missing (100): layer0.weight" in text and "and 92 more" in text and len(text) < 400


def test_nothing_in_common():
    result = map_keys({"a": (1,)}, {"b": (1,)})
    assert (result.sources, result.missing, result.unexpected) == ({}, ["b"], ["a"])


# The weights in a training checkpoint.


@pytest.fixture
def write(tmp_path):
    def write(tree_of, *sets):
        parts = {f"{i}/{name}": a for i, w in enumerate(sets) for name, a in w.items()}
        tree, data = tensors_of(parts)
        trees = [{k[2:]: v for k, v in tree.items() if k[0] == str(i)} for i in range(len(sets))]
        path = tmp_path / "file.pth"
        path.write_bytes(torch_zip(tree_of(*trees), data))
        return path

    return write


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"state_dict": x},
        lambda x: {"model": x, "optimizer": {"state": {}}},
        lambda x: {"net": {"state_dict": x}},
        lambda x: {"state_dict_ema": x, "epoch": 3},
        lambda x: {"whatever": x, "epoch": 3},
        lambda x: {"model": {f"module.model.{k}": v for k, v in x.items()}},
        lambda x: {"state_dict": {**{f"module.{k}": v for k, v in x.items()}, "n": 3}},
    ],
)
def test_weights_are_found(write, wrap):
    assert_same(checkpoints.load(write(wrap, weights())), weights())


@pytest.mark.parametrize("ema_key", ["state_dict_ema", "model_ema", "ema"])
@pytest.mark.parametrize("depth", [0, 1])
def test_averaged_weights_only_when_asked_for(write, ema_key, depth):
    def wrap(plain, ema):
        return {ema_key: {"module": ema} if depth else ema, "state_dict": plain}

    path = write(wrap, weights(0), weights(1))
    assert_same(checkpoints.load(path), weights(0))
    assert_same(checkpoints.load(path, use_ema=True), weights(1))
    model = FakeModel({name: array.shape for name, array in weights().items()})
    assert checkpoints.load_into(model, path, use_ema=True) == ([], [])
    assert_same(model.values, weights(1))


def test_averaged_weights_in_a_flat_file(write):
    def wrap(plain, ema):
        return {**plain, **{f"model_ema.{name}": value for name, value in ema.items()}}

    path = write(wrap, weights(0), weights(1))
    assert_same(checkpoints.load(path), weights(0))
    assert_same(checkpoints.load(path, use_ema=True), weights(1))


def test_no_averaged_weights(write):
    with pytest.raises(ValueError, match="no averaged .* 'state_dict', 'epoch'"):
        checkpoints.load(write(lambda x: {"state_dict": x, "epoch": 1}, weights()), use_ema=True)


def test_two_sets_are_ambiguous(write):
    path = write(lambda a, b: {"generator": a, "critic": b}, weights(0), weights(1))
    with pytest.raises(ValueError, match="several sets of tensors.*'generator', 'critic'"):
        checkpoints.load(path)


# Into a model.


def test_load_into(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(legacy_of(weights(), lambda tree: {"state_dict": tree}))
    model = FakeModel({name: array.shape for name, array in weights().items()})
    result = checkpoints.load_into(model, path)
    assert result == ([], []) and result.missing_keys == [] and result.unexpected_keys == []
    assert_same(model.values, weights())


def test_load_into_that_does_not_fit(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(legacy_of(weights()))
    shapes = {name: array.shape for name, array in weights().items()}
    del shapes["bn1.bias"]
    shapes["extra.weight"] = (2, 2)
    model = FakeModel(shapes)
    with pytest.raises(ValueError) as caught:
        checkpoints.load_into(model, path)
    for part in (str(path), "missing (1): extra.weight", "unexpected (1): bn1.bias"):
        assert part in str(caught.value)
    assert model.values is None

    result = checkpoints.load_into(model, path, strict=False)
    assert result == (["extra.weight"], ["bn1.bias"])
    assert set(model.values) == set(shapes) - {"extra.weight"}

    del shapes["extra.weight"]
    with pytest.raises(ValueError, match="unexpected .1.: bn1.bias"):
        checkpoints.load_into(FakeModel(shapes), path)

    model = FakeModel({**shapes, "fc.weight": (10, 4)})
    with pytest.raises(ValueError, match=r"fc.weight \(10, 4\) is \(5, 4\) in the file"):
        checkpoints.load_into(model, path, strict=False)
    assert model.values is None


def test_error_midway_leaves_the_model(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    path.write_bytes(legacy_of(weights()))
    model = FakeModel({name: array.shape for name, array in weights().items()})
    real, calls = np.empty, []

    def empty(shape, dtype):
        calls.append(shape)
        if len(calls) == 3:
            raise MemoryError
        return real(shape, dtype)

    monkeypatch.setattr("lucid_c.checkpoints.loading.np.empty", empty)
    with pytest.raises(MemoryError):
        checkpoints.load_into(model, path)
    assert model.values is None and len(calls) == 3


def test_complex_weights_are_named_before_anything_is_read(tmp_path):
    tree, data = tensors_of({"x": np.array([1j], "<c8")}, "ComplexFloatStorage")
    path = tmp_path / "a.pth"
    path.write_bytes(torch_zip(tree, data))
    with pytest.raises(ValueError, match="'x'.*complex64"):
        checkpoints.load_into(FakeModel({"x": (1,)}), path)


def test_real_checkpoint_into_a_model(outside_data):
    path = outside_data / "checkpoints" / "resnet20-12fca82f.th"
    loaded = checkpoints.load(path)
    model = FakeModel({name: array.shape for name, array in loaded.items()})
    assert checkpoints.load_into(model, path) == ([], [])
    assert_same(model.values, loaded)
