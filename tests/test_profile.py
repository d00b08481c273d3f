# SPDX-License-Identifier: MIT
"""lucid_c.profile: rows, sums, the table, JSON, the picture, the command."""

import json
import os
import sys

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
import oracle
from helpers import assert_close, draw
from lucid_c import _core, nn
from lucid_c.cli import main
from lucid_c.profiling import Profile

SHAPE = (2, 3, 64, 64)


@pytest.fixture(scope="module")
def report():
    before = lucid_c.get_num_threads()
    lucid_c.set_num_threads(1)
    try:
        model = lucid_c.create_model("resnest_14", num_classes=10)
        return model, lucid_c.profile(model, SHAPE, repeats=3)
    finally:
        lucid_c.set_num_threads(before)


def by_layer(report):
    return {(row.layer, row.op): row for row in report.rows}


def test_rows_bear_the_paths_of_the_model(report):
    model, profile = report
    paths = {name for name, _ in model.named_modules()}
    assert {row.layer for row in profile.rows} <= paths
    convolutions = [row.layer for row in profile.rows if row.op == "conv2d"]
    theirs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert sorted(convolutions) == sorted(theirs)  # also with batch norm, sum and ReLU inside
    assert profile.rows[-1].layer == "fc" and profile.rows[-1].op == "linear"
    assert not {"batch_norm", "unary", "binary"} & {row.op for row in profile.rows}


def test_figures_of_one_layer(report):
    row = by_layer(report[1])["layer1.0.downsample.1", "conv2d"]
    n, c, h, w = row.input_shape
    _, oc, oh, ow = row.output_shape
    assert (n, c, h, w) == (2, 64, 16, 16) and (oc, oh, ow) == (256, 16, 16)
    assert row.multiply_adds == 2 * 256 * 16 * 16 * 64
    planes = 2 * 16 * 16 * (64 + 256 + 256)  # input, output, the sum with the other branch
    floats = planes + 64 * 256 + 256  # weights and batch norm's shift
    assert row.bytes == 4 * floats
    assert row.algorithm.startswith("direct") and row.seconds > 0
    assert row.gflops == pytest.approx(2e-9 * row.multiply_adds / row.seconds)
    assert row.peak_share == pytest.approx(1e9 * row.gflops / report[1].peak_flops)
    assert row.bandwidth_share == pytest.approx(row.bytes / row.seconds / report[1].bandwidth)


def test_sums(report):
    model, profile = report
    assert profile.multiply_adds == _core.info(model, SHAPE)["macs"]
    assert profile.seconds == pytest.approx(sum(row.seconds for row in profile.rows))
    assert 0 < profile.seconds
    sums = profile.algorithms
    assert sum(each["steps"] for each in sums.values()) == len(profile.rows)
    for key in ("seconds", "multiply_adds", "bytes"):
        total = sum(each[key] for each in sums.values())
        assert total == pytest.approx(sum(getattr(row, key) for row in profile.rows))
    seconds = [each["seconds"] for each in sums.values()]
    assert seconds == sorted(seconds, reverse=True)
    assert profile.arena_bytes >= profile.arena_bound > 0
    assert profile.packed_bytes > 4 * 0.9 * model.num_parameters()
    assert profile.threads == 1 and profile.repeats == 3 and profile.input_shape == SHAPE


@pytest.mark.parametrize("name", ["resnet_18", "resnext_50_32x4d", "resnest_50_4s2x40d"])
def test_arena_is_what_is_alive_at_once(name):
    profile = lucid_c.profile(lucid_c.create_model(name), np.zeros((1, 3, 64, 64), "f4"), repeats=1)
    assert profile.arena_bytes == profile.arena_bound


@pytest.mark.parametrize(("channels", "converts"), [(8, False), (256, True)])
def test_padding_of_groups_is_computed_where_that_is_cheaper(channels, converts):
    """Groups of ten channels are padded, one by one, to blocks; with many inputs that costs more
    than a conversion."""
    model = nn.Sequential(
        nn.Conv2d(channels, 80, 1), nn.ReLU(), nn.Conv2d(80, 160, 3, padding=1, groups=8)
    ).eval()
    x = draw("x", (2, channels, 9, 10))
    ops = [row.op for row in lucid_c.profile(model, x, repeats=1).rows]
    between = ops[ops.index("conv2d") + 1 : len(ops) - ops[::-1].index("conv2d") - 1]
    assert between == (["reorder"] if converts else [])
    first, _, second = model
    middle = oracle.relu(oracle.conv2d(x, first.weight.numpy(), first.bias.numpy()))
    expected = oracle.conv2d(middle, second.weight.numpy(), second.bias.numpy(), 1, 1, groups=8)
    assert_close(model(x).numpy(), expected)


def test_times_are_medians(monkeypatch):
    times = iter([5.0, 1.0, 3.0])

    def made_up(model, x):
        row = {"scope": "a", "op": "conv2d", "algorithm": "z", "macs": 6, "bytes": 12}
        row |= {"seconds": next(times), "in_shape": (1,), "out_shape": (1,)}
        end = {"arena_bytes": 2, "arena_bound": 1, "constant_bytes": 3, "threads": 1}
        return None, {"rows": [row], **end}

    monkeypatch.setattr(_core, "profile", made_up)
    profile = lucid_c.profile(nn.Identity(), (1, 2), repeats=3, warmup=0)
    assert profile.rows[0].seconds == 3.0 and profile.rows[0].gflops == pytest.approx(4e-9)


def test_the_table(report):
    profile = report[1]
    lines = str(profile).splitlines()
    head = lines[0]
    column = head.index("GFLOP/s") + len("GFLOP/s")
    table = lines[: len(profile.rows) + 2]
    for row, line in zip(profile.rows, table[1:-1], strict=True):
        assert line.startswith(row.layer)
        if row.multiply_adds:
            assert line[:column].endswith(f" {row.gflops:.1f}")
    assert table[-1].startswith("total")
    text = str(profile)
    assert "algorithm" in text and "winograd" in text and "planned" in text
    assert "(measured)" in text and "ResNeSt, input 2 x 3 x 64 x 64" in text


def test_json_and_save(report, tmp_path):
    profile = report[1]
    data = json.loads(profile.to_json())
    assert len(data["rows"]) == len(profile.rows)
    assert data["rows"][0]["layer"] == profile.rows[0].layer
    assert data["seconds"] == profile.seconds and data["algorithms"]
    profile.save(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == data
    assert os.listdir(tmp_path) == ["p.json"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_plot(report, tmp_path, ending):
    pytest.importorskip("matplotlib")
    profile = report[1]
    figure = profile.plot(tmp_path / f"p.{ending}")
    layers, roofline, sums = figure.axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in layers.patches}
    assert [bars[i] for i in range(len(profile.rows))] == pytest.approx(
        [1e3 * row.seconds for row in profile.rows]
    )
    assert [t.get_text() for t in layers.get_xticklabels()] == [r.name for r in profile.rows]
    points = np.concatenate([each.get_offsets() for each in roofline.collections])
    assert len(points) == sum(row.multiply_adds > 0 for row in profile.rows)
    assert len(sums.patches) == len(profile.algorithms)
    start = (tmp_path / f"p.{ending}").read_bytes()[:8]
    assert start.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert os.listdir(tmp_path) == [f"p.{ending}"]
    with pytest.raises(ValueError, match="'docx'"):
        profile.plot(tmp_path / "p.docx")


def test_plot_without_matplotlib(report, monkeypatch):
    monkeypatch.delitem(sys.modules, "lucid_c._profile_plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"lucid_c\[plots\]"):
        report[1].plot()


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU())
        self.outer = nn.ModuleList([nn.Conv2d(8, channels, 1)])

    def forward(self, x):
        return x * self.outer[0](self.inner(x)).sigmoid()


class Twice(nn.Module):
    """Reads a value in the middle: two runs in one call."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.gates = nn.Sequential(Gate(8), Gate(8))

    def forward(self, x):
        y = self.first(x)
        return self.gates(y * float(np.asarray(y).mean()))


def test_modules_written_in_python_have_paths_too():
    profile = lucid_c.profile(Twice(), (1, 3, 16, 16), repeats=2)
    layers = [row.layer for row in profile.rows if row.op == "conv2d"]
    assert layers == ["first"] + [f"gates.{i}.{n}" for i in (0, 1) for n in ("inner.0", "outer.0")]
    assert [r.layer for r in profile.rows if r.op == "binary"] == ["", "gates.0", "gates.1"]
    broken = Twice()
    broken.gates = nn.Sequential(Gate(8), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"gates\.1|linear"):
        broken(np.zeros((1, 3, 16, 16)))


def test_a_call_that_fails_leaves_the_path_behind():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = nn.Conv2d(5, 8, 1), nn.Conv2d(3, 8, 1)

        def forward(self, x):
            try:
                return self.bad(x)
            except ValueError:
                return self.good(x).relu() * 2

    rows = lucid_c.profile(Careful(), (1, 3, 8, 8), repeats=1).rows
    assert [(row.layer, row.op) for row in rows][-2] == ("", "binary")
    assert ("good", "conv2d") in by_layer(lucid_c.profile(Careful(), (1, 3, 8, 8), repeats=1))


def test_two_models_that_share_a_plan_keep_their_names():
    a, b = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential()
    b.add_module("named", nn.Conv2d(3, 4, 3))
    rows = [lucid_c.profile(model, (1, 3, 9, 9), repeats=1).rows for model in (a, b, a)]
    names = [[row.layer for row in each if row.op == "conv2d"] for each in rows]
    assert names == [["0"], ["named"], ["0"]]


@pytest.mark.parametrize("recompute", [False, True])
def test_steps_of_backward_bear_the_paths_of_forward(recompute):
    models = [lucid_c.create_model("resnet_18", num_classes=4) for _ in range(2)]
    models[1] = nn.Sequential(models[1])  # the same plan under other names
    for model in [*models, models[0]]:
        for module in model.modules():
            if isinstance(module, lucid_c.models.ResNet):
                module.set_grad_checkpointing(recompute)
        model.train()
        loss, _ = _core.profile(lambda m=model: F.cross_entropy(m(draw("x", SHAPE)), [1, 3]))
        rows = _core.profile(loss.backward)[1]["rows"]
        kinds = {"conv2d_weight_grad": nn.Conv2d, "batch_norm_grad": nn.BatchNorm2d}
        for op, kind in kinds.items():
            paths = [row["scope"] for row in rows if row["op"] == op]
            theirs = [name for name, module in model.named_modules() if isinstance(module, kind)]
            assert sorted(paths) == sorted(theirs)
        # all but the first convolution pass a gradient on; blocks may be computed again as well
        convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][1:]
        passed_on = [row["scope"] for row in rows if row["op"] == "conv2d"]
        assert set(passed_on) == set(convolutions) and (recompute or len(passed_on) == 19)
        assert [row["op"] for row in rows if not row["scope"]] == ["cross_entropy_grad"]


def test_the_input_may_be_an_array_and_nothing_changes():
    model = lucid_c.create_model("resnet_18", num_classes=4)
    x = draw("x", (1, 3, 64, 64))
    before = np.asarray(model(x))
    assert lucid_c.profile(model, x, repeats=1).input_shape == x.shape
    np.testing.assert_array_equal(np.asarray(model(x)), before)


@pytest.mark.parametrize(
    "arguments,error,text",
    [
        ((3, (1, 3, 64, 64)), TypeError, "model must be"),
        ((nn.Identity(), (1, 0)), ValueError, "positive"),
        ((nn.Identity(), (1, 2), 0), ValueError, "repeats must be at least 1"),
        ((nn.Identity(), (1, 2), 1.5), TypeError, "repeats"),
        ((nn.Identity(), (1, 2), 1, -1), ValueError, "warmup"),
        ((nn.Linear(3, 4), (1, 2)), ValueError, "linear"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        lucid_c.profile(*arguments)


def test_calls_of_different_steps():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x + 1 if self.calls % 2 else x.exp()

    with pytest.raises(RuntimeError, match="different steps"):
        lucid_c.profile(Moody(), (2, 3), repeats=2)


def test_roofline():
    flops, bandwidth, threads = _core.roofline(1)
    assert threads == 1 and 1e8 < flops < 1e12 and 1e8 < bandwidth < 1e12
    assert _core.roofline(1) == (flops, bandwidth, threads)
    for wrong in (0, 100000):
        with pytest.raises(ValueError, match="threads"):
            _core.roofline(wrong)


@pytest.mark.isa
def test_roofline_on_every_isa(run_python):
    code = "from lucid_c import _core; print(_core.config()['isa'], *_core.roofline(1)[:2])"
    speed = {}
    for isa in lucid_c.config()["isa_available"]:
        name, flops, bandwidth = run_python(code, env={"LUCID_C_ISA": isa}).stdout.split()
        assert name == isa and float(bandwidth) > 1e8
        speed[isa] = float(flops)
    assert min(speed.values()) > 1e8


def test_command(capsys, threads, tmp_path):
    pytest.importorskip("matplotlib")
    threads(1)
    arguments = ["profile", "resnet_18", "--image-size", "64", "--batch", "2", "--repeats", "1"]
    picture = tmp_path / "p.png"
    assert main([*arguments, "--threads", "1", "--plot", str(picture)]) == 0
    assert "total" in capsys.readouterr().out and picture.stat().st_size > 10000
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["input_shape"] == [2, 3, 64, 64] and data["rows"][0]["layer"] == "conv1"
    assert main([*arguments, "--plot", str(tmp_path / "p.xyz")]) == 2
    assert "xyz" in capsys.readouterr().err and os.listdir(tmp_path) == ["p.png"]


def test_the_class_is_public():
    assert isinstance(lucid_c.profile(nn.Identity(), (1, 2), repeats=1), Profile)
    assert "profile" in dir(lucid_c)
