# SPDX-License-Identifier: MIT
"""Which algorithm a convolution gets: explaining the choice, and tuning it."""

import json
import os
import threading

import numpy as np
import pytest

import lucid_c
import oracle
from helpers import assert_close, assert_same_bits, draw, reference_weights
from lucid_c import _core, nn, tuning
from lucid_c.cli import main

SHAPE = (1, 3, 112, 112)


@pytest.fixture(autouse=True)
def untuned(monkeypatch, tmp_path):
    """Nothing outside of the test's folder, and an empty table before and after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lucid_c.clear_tuning()
    yield
    lucid_c.clear_tuning()


@pytest.fixture
def made_up(monkeypatch):
    """Measurements that prefer the last algorithm; a list of the layers that were measured."""
    measured = []

    def measure(key, batch, names, flush):
        measured.append((key, batch))
        return {name: 1.0 / (1 + i) for i, name in enumerate(names)}

    monkeypatch.setattr(tuning, "_measure", measure)
    return measured


def two_ways():
    """A layer that more than one algorithm accepts, on every instruction set."""
    return nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))


def used(model, shape):
    rows = lucid_c.profile(model, shape, repeats=1, warmup=0).rows
    names = [row.algorithm.replace(" 4x4", "") for row in rows if row.op == "conv2d"]
    return ["direct" if name.startswith("direct") else name for name in names]


# --- explaining


@pytest.mark.parametrize("name", ["resnet_18", "resnest_14"])
def test_every_convolution_is_explained(name):
    model = lucid_c.create_model(name, num_classes=4)
    rows = lucid_c.explain(model, SHAPE)
    theirs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert {row.layer for row in rows} == set(theirs) and len(rows) == len(theirs)
    for row in rows:
        layer = theirs[row.layer]
        assert row.weight_shape == layer.weight.shape
        assert row.stride == tuple(layer.stride) and row.groups == layer.groups
        assert row.algorithm not in row.refusals and row.algorithm not in row.others
        assert all(row.refusals.values()) and not row.tuned
    assert [row.algorithm for row in rows] == used(model, SHAPE)


def test_reasons():
    model = lucid_c.create_model("resnet_18", num_classes=4)
    rows = {row.layer: row for row in lucid_c.explain(model, (1, 3, 224, 224))}
    assert rows["layer1.0.conv1"].algorithm == "winograd"
    assert rows["layer1.0.conv1"].refusals == {
        "winograd 2x2": "tiles of 4x4 save more",
        "winograd late": "weights are used by many tiles",
    }
    assert {"direct", "winograd late"} < set(rows["layer1.0.conv1"].others)
    assert rows["layer4.0.conv2"].algorithm == "winograd late"
    assert rows["conv1"].refusals["winograd"] == "the kernel is not 3x3"
    assert "stride" in rows["layer2.0.conv1"].refusals["winograd"]
    text = str(lucid_c.explain(model, (1, 3, 224, 224)))
    assert len(text.splitlines()) == 1 + len(rows)
    assert "winograd: the kernel is not 3x3" in text


def test_an_array_and_a_forward_that_reads_it():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1)

        def forward(self, x):
            y = self.a(x)
            return self.b(y) if float(np.asarray(y).max()) > -1e9 else y

    (row,) = lucid_c.explain(Reads(), draw("x", (2, 3, 24, 24)))  # what came before has been run
    assert row.layer == "b" and row.input_shape == (2, 64, 24, 24)
    with pytest.raises(TypeError, match="model must be"):
        lucid_c.explain("resnet_18", SHAPE)
    with pytest.raises(ValueError, match="positive"):
        lucid_c.explain(Reads(), (1, 3, 0, 4))
    with pytest.raises(ValueError, match="channels"):
        lucid_c.explain(Reads(), (1, 4, 9, 9))


def test_the_environment_has_the_last_word(run_python, tmp_path, made_up):
    model = two_ways()
    report = model.tune((1, 64, 24, 24), cache=tmp_path / "t.json")
    best = {"winograd": 0.1, "direct": 0.2}
    data = json.loads((tmp_path / "t.json").read_text())
    data["machines"][0]["layers"][0]["algorithm"] = min(best, key=best.__getitem__)
    (tmp_path / "t.json").write_text(json.dumps(data))
    assert len(report) == 1
    code = """
        import sys, lucid_c
        from lucid_c import nn
        print(lucid_c.load_tuning(sys.argv[1]))
        row = lucid_c.explain(nn.Conv2d(64, 64, 3, padding=1), (1, 64, 24, 24))[0]
        print(row.algorithm, row.refusals.get("winograd"))
    """
    out = run_python(code, args=[tmp_path / "t.json"], env={"LUCID_C_CONV": "direct"}).stdout
    assert out == "1\ndirect LUCID_C_CONV=direct\n"
    out = run_python(code, args=[tmp_path / "t.json"], env={"LUCID_C_CONV": None}).stdout
    assert out == "1\nwinograd None\n"


def test_command(capsys):
    assert main(["info", "resnet_18", "--algorithms", "--size", "64"]) == 0
    text = capsys.readouterr().out
    assert "layer1.0.conv1" in text and "the kernel is not 3x3" in text
    assert main(["info", "resnet_18", "--algorithms", "--size", "64", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["convolutions"]
    assert len(rows) == 20 and rows[0]["refusals"]["winograd"]


# --- one convolution by a given algorithm


@pytest.mark.parametrize("groups", [1, 2])
def test_both_algorithms_compute_the_layer(groups):
    x, w = draw("x", (2, 64, 19, 17)), draw("w", (64, 64 // groups, 3, 3))
    rest = ((1, 1), (1, 1, 1, 1), (1, 1), groups)
    results = {}
    for name in ("direct", "winograd"):
        y, report = _core.profile(_core.conv2d_by, name, x, w, *rest)
        (row,) = (row for row in report["rows"] if row["op"] == "conv2d")
        assert row["algorithm"].startswith(name)
        results[name] = np.asarray(y)
    assert_close(results["direct"], results["winograd"], 1e-5)
    assert not np.array_equal(results["direct"], results["winograd"])


# Shapes on which the algorithm would not be taken without tuning, but can do the work:
# input, output channels, kernel, stride, padding.
AVOIDED = [
    ("strassen", (3, 32, 7, 7), 64, 1, 1, 0),
    ("strassen", (2, 64, 1, 1), 64, 1, 1, 0),
    ("strassen", (5, 64, 3, 2), 192, 1, 1, 0),
    ("strassen", (1, 512, 7, 7), 256, 1, 1, 0),
    ("strassen", (2, 64, 13, 9), 128, 1, 2, 0),
    ("strassen twice", (3, 64, 7, 7), 128, 1, 1, 0),
    ("strassen twice", (1, 256, 14, 14), 256, 1, 1, 0),
    ("strassen twice", (2, 128, 2, 3), 256, 1, 3, 0),
    ("winograd", (2, 32, 1, 1), 48, 3, 1, 1),
    ("winograd", (1, 64, 3, 9), 64, 3, 1, 0),
    ("winograd late", (2, 32, 1, 1), 48, 3, 1, 1),
    ("winograd late", (3, 48, 4, 2), 32, 3, 1, 1),
    ("winograd late", (1, 64, 3, 9), 64, 3, 1, 0),
    ("winograd 2x2", (3, 48, 4, 2), 32, 3, 1, 1),
    ("winograd 2x2", (1, 64, 3, 9), 64, 3, 1, 0),
    ("winograd /2", (3, 64, 14, 14), 64, 3, 2, 1),
    ("winograd /2", (2, 32, 3, 5), 48, 3, 2, 1),
    ("winograd /2", (1, 48, 2, 2), 32, 3, 2, 1),
    ("winograd 7x7", (2, 3, 20, 14), 8, 7, 2, 3),
    ("winograd 7x7", (1, 4, 3, 3), 24, 7, 2, 3),
]


@pytest.mark.isa
@pytest.mark.parametrize(("name", "shape", "out", "kernel", "stride", "pad"), AVOIDED)
def test_algorithms_where_they_are_avoided(name, shape, out, kernel, stride, pad):
    x, w = draw("x", shape), draw("w", (out, shape[1], kernel, kernel))
    rest = ((stride,) * 2, (pad,) * 4, (1, 1), 1)
    y, report = _core.profile(_core.conv2d_by, name, x, w, *rest)
    assert_close(y, oracle.conv2d(x, w, None, stride, pad), 1e-5)
    (row,) = (row for row in report["rows"] if row["op"] == "conv2d")
    assert row["algorithm"].replace(" 4x4", "").startswith(name)
    layer = nn.Conv2d(shape[1], out, kernel, stride, pad)
    (choice,) = lucid_c.explain(layer, shape)
    assert choice.algorithm != name
    assert name in choice.others and "too few" in choice.refusals[name]


def test_an_algorithm_that_refuses_is_not_forced():
    x, w = draw("x", (1, 64, 8, 8)), draw("w", (64, 64, 1, 1))
    y, report = _core.profile(_core.conv2d_by, "winograd", x, w, (1, 1), (0,) * 4, (1, 1), 1)
    assert [r["algorithm"].split()[0] for r in report["rows"] if r["op"] == "conv2d"] == ["direct"]
    want = np.einsum("nchw,oc->nohw", x.astype(float), w[:, :, 0, 0].astype(float))
    assert_close(y, want, 1e-5)
    with pytest.raises(ValueError, match="'fast'"):
        _core.conv2d_by("fast", x, w, (1, 1), (0,) * 4, (1, 1), 1)


# --- tuning


def test_the_fastest_is_used_and_the_choice_can_be_undone(made_up):
    model = lucid_c.create_model("resnet_18", num_classes=4)
    reference_weights(model)
    x = draw("x", (3, *SHAPE[1:]))
    before, algorithms = np.asarray(model(x)), used(model, x)
    report = model.tune(SHAPE)
    layers = [name for row in report for name in row["layers"]]
    assert all(row["algorithm"] == "direct" for row in report)
    winograd = {"winograd", "winograd late", "winograd /2", "winograd 7x7"}
    assert {row["default"] for row in report} == {"direct"} | winograd
    rows = {row.layer: row for row in lucid_c.explain(model, SHAPE)}
    assert {name for name, row in rows.items() if row.tuned} == set(layers)
    assert rows[layers[0]].refusals[report[0]["default"]] == "measured, and slower"
    assert used(model, SHAPE) == [row.algorithm for row in rows.values()] != algorithms
    tuned = np.asarray(model(x))
    assert_close(tuned, before, 1e-5)
    assert not np.array_equal(tuned, before)
    for n in (1, 2):  # the same choice, and bits, for any batch size
        assert_same_bits(np.asarray(model(x[:n])), tuned[:n])
    lucid_c.clear_tuning()
    assert used(model, x) == algorithms
    assert_same_bits(np.asarray(model(x)), before)
    assert str(report).splitlines()[1].startswith(layers[0])


def test_a_measured_choice_is_explained_by_the_measurement():
    """Also against algorithms that are not expected to pay, and those further down the list."""
    model, shape = nn.Conv2d(256, 256, 1), (1, 256, 14, 14)
    usual = lucid_c.explain(model, shape)[0]
    assert usual.algorithm == "strassen" and not usual.tuned
    assert usual.refusals["strassen twice"] == "too few input channels"
    key = _core.algorithms(model, np.zeros(shape))[0]["key"]
    for name in (*usual.others, "strassen"):
        tuning._set({key: name})
        (row,) = lucid_c.explain(model, shape)
        slower = {n for n, why in row.refusals.items() if why == "measured, and slower"}
        assert row.tuned and row.algorithm == name and slower == set(row.others)
        assert row.refusals["winograd"] == "the kernel is not 3x3"
        assert f"{name} (tuned)" in str(lucid_c.explain(model, shape))
    tuning._set({key: "winograd"})  # which cannot do it: as without the table
    assert lucid_c.explain(model, shape) == (usual,)


def test_equal_layers_are_measured_once_and_kept(made_up, tmp_path):
    layer = nn.Conv2d(64, 64, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 8, 1))
    report = model.tune((2, 64, 24, 24))
    assert len(made_up) == 1 and made_up[0][1] == 2
    assert [row["layers"] for row in report] == [["0", "2"]]
    (name,) = os.listdir(tmp_path / "cache" / "lucid_c")
    assert report.path == str(tmp_path / "cache" / "lucid_c" / name)
    assert name.startswith(f"tune-{lucid_c.__version__}-") and name.endswith(".json")
    for _ in range(2):  # from the table, then from the file
        again = model.tune((5, 64, 24, 24))
        assert len(made_up) == 1 and again[0]["algorithm"] == report[0]["algorithm"]
        assert again[0]["seconds"] == {} and "measured before" in str(again)
        lucid_c.clear_tuning()
    model.tune((1, 64, 32, 24))  # another size joins the file
    assert len(made_up) == 2
    lucid_c.clear_tuning()
    assert lucid_c.load_tuning(report.path) == 2
    assert all(row.tuned for row in lucid_c.explain(model, (1, 64, 24, 24))[:2])


def test_a_real_measurement(tmp_path):
    model = two_ways()
    (row,) = model.tune((1, 64, 24, 24), cache=tmp_path / "t.json")
    assert set(row["seconds"]) == {"winograd 2x2", "winograd late", "winograd", "direct"}
    assert row["algorithm"] == min(row["seconds"], key=row["seconds"].__getitem__)
    assert used(model, (1, 64, 24, 24)) == [row["algorithm"]]
    (kept,) = json.loads((tmp_path / "t.json").read_text())["machines"][0]["layers"]
    assert kept["seconds"] == row["seconds"] and kept["batch"] == 1
    assert kept["threads"] == lucid_c.get_num_threads()
    assert os.listdir(tmp_path) == ["t.json"]


@pytest.mark.parametrize("key", ["version", "cpu", "isa"])
def test_other_machines_keep_their_own(made_up, tmp_path, key):
    path = tmp_path / "t.json"
    two_ways().tune((1, 64, 24, 24), cache=path)
    data = json.loads(path.read_text())
    data["machines"][0][key] = "another"
    path.write_text(json.dumps(data))
    lucid_c.clear_tuning()
    assert lucid_c.load_tuning(path) == 0
    two_ways().tune((1, 64, 24, 24), cache=path)
    assert len(made_up) == 2
    machines = json.loads(path.read_text())["machines"]
    assert machines[0] == data["machines"][0] and len(machines) == 2


def damage(name, good):
    layer = good["machines"][0]["layers"][0]
    return {
        "empty": lambda: "",
        "no json": lambda: "{",
        "a list": lambda: "[]",
        "another format": lambda: json.dumps({**good, "format": 99}),
        "no machines": lambda: json.dumps({"format": 1}),
        "machines of another kind": lambda: json.dumps({"format": 1, "machines": 5}),
        "a layer without sizes": lambda: rewrite(good, {**layer, "layer": {}}),
        "a size that is text": lambda: rewrite(
            good, {**layer, "layer": {**layer["layer"], "height": "9"}}
        ),
        "a huge size": lambda: rewrite(
            good, {**layer, "layer": {**layer["layer"], "height": 1 << 70}}
        ),
        "an unknown algorithm": lambda: rewrite(good, {**layer, "algorithm": "magic"}),
        "deep": lambda: "[" * 100000,
        "not utf-8": lambda: b"\xff\xfe{}",
    }[name]()


def rewrite(good, layer):
    return json.dumps({**good, "machines": [{**good["machines"][0], "layers": [layer]}]})


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "no json",
        "a list",
        "another format",
        "no machines",
        "machines of another kind",
        "a layer without sizes",
        "a size that is text",
        "a huge size",
        "an unknown algorithm",
        "deep",
        "not utf-8",
    ],
)
def test_damaged_files_are_ignored_with_a_warning(made_up, tmp_path, name):
    path = tmp_path / "t.json"
    two_ways().tune((1, 64, 24, 24), cache=path)
    content = damage(name, json.loads(path.read_text()))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    lucid_c.clear_tuning()
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert lucid_c.load_tuning(path) == 0
    assert not lucid_c.explain(two_ways(), (1, 64, 24, 24))[0].tuned
    with pytest.warns(RuntimeWarning, match="is ignored"):
        two_ways().tune((1, 64, 24, 24), cache=path)
    assert len(made_up) == 2
    lucid_c.clear_tuning()
    assert lucid_c.load_tuning(path) == 1  # whole again


def test_a_file_that_cannot_be_written(made_up, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    model = two_ways()
    with pytest.raises(OSError):
        model.tune((1, 64, 24, 24), cache=tmp_path / "file" / "t.json")
    assert not lucid_c.explain(model, (1, 64, 24, 24))[0].tuned
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="was not kept"):
        model.tune((1, 64, 24, 24))
    assert lucid_c.explain(model, (1, 64, 24, 24))[0].tuned
    with pytest.raises(FileNotFoundError):
        lucid_c.load_tuning(tmp_path / "nothing.json")


def test_an_unchanged_table_keeps_the_plans(made_up):
    model = two_ways()
    x = draw("x", (1, 64, 24, 24))
    model.tune(x)
    model(x)
    plans = _core.plan_stats()["misses"]
    model.tune(x)
    model(x)
    assert _core.plan_stats()["misses"] == plans


def test_training_mode_is_left_alone(made_up):
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64))
    model[1].train()
    model.tune((1, 64, 24, 24))
    lucid_c.explain(model, (1, 64, 24, 24))
    assert [module.training for module in model] == [False, True]


def test_tuning_while_others_compute(threads):
    """Whatever the moment, a result is the one of some choice, never a mixture within a layer."""
    threads(1)
    model = two_ways()
    x = draw("x", (1, 64, 16, 16))
    key = _core.algorithms(model, x)[0]["key"]
    results = []
    for name in ("winograd", "direct"):
        _core.set_tuning([(key, name)])
        results.append(np.asarray(model(x)))
    assert not np.array_equal(*results)
    stop, wrong = threading.Event(), []

    def compute():
        while not stop.is_set():
            y = np.asarray(model(x))
            if not any(np.array_equal(y, each) for each in results):
                wrong.append(y)

    workers = [threading.Thread(target=compute) for _ in range(2)]
    for worker in workers:
        worker.start()
    for i in range(200):
        _core.set_tuning([(key, ("winograd", "direct")[i % 2])])
    stop.set()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("rows", [[1], [((1, 2), "direct")], [("x", "direct")], [((0,) * 17, 3)]])
def test_wrong_tables(rows):
    with pytest.raises((TypeError, ValueError)):
        _core.set_tuning(rows)
