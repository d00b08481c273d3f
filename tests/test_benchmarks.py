# SPDX-License-Identifier: MIT
"""The comparison with peers: a tiny run without any, and the parts that decide what is reported."""

import csv
import json
import os
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
if not FOLDER.exists():
    pytest.skip("no checkout around the tests", allow_module_level=True)
sys.path.append(str(FOLDER))
measure, team, files = map(import_module, ("measure", "team", "files"))
report, run_module, engines = map(import_module, ("report", "run", "engines"))

RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import run
sys.exit(run.main())
"""
TINY = "--engines lucid_c --models resnet_18 --image-size 32 --batch 2 --threads 1".split()


@pytest.fixture
def bench(run_python, tmp_path):
    """bench(*arguments) -> what ``python benchmarks/run.py arguments`` printed."""

    def call(*arguments, **options):
        return run_python(RUN, args=(FOLDER, *arguments), timeout=120, **options)

    return call


def test_a_run_without_peers(bench, tmp_path):
    out = tmp_path / "results"
    spent = ("--rounds", "2", "--seconds", "0.1", "--out", out)
    done = bench("inference", "coldstart", "memory", *TINY, *spent)
    text = done.stdout
    document = json.loads((out / "inference.json").read_text())
    (row,) = document["rows"]
    ours = row["engines"]["lucid_c"]
    assert (row["model"], row["batch"], row["height"], row["threads"]) == ("resnet_18", 2, 32, 1)
    assert len(ours["rounds"]) == 2 and ours["difference"] == 0 and "error" not in ours
    assert 0 < ours["seconds"][0] <= ours["seconds"][1] <= ours["seconds"][2] < 60
    assert row["fastest_peer"] is None and row["ratio"] is None
    assert document["machine"]["lucid_c"]["isa"] and document["machine"]["versions"]["numpy"]
    assert f"{ours['seconds'][1] / 2 * 1e3:.2f}" in text

    cold = json.loads((out / "coldstart.json").read_text())["rows"][0]["engines"]["lucid_c"]
    phases = [cold[phase] for phase in ("start", "import", "load", "first")]
    assert min(phases) > 0 and cold["total"] >= max(phases)
    weights = 4 * 11_689_512
    assert cold["peak_rss"] >= cold["peak_rss_first"] > weights
    (remembered,) = json.loads((out / "memory.json").read_text())["rows"]
    assert remembered["batch"] == 2 and remembered["engines"]["lucid_c"]["peak_rss"] > weights

    (line,) = csv.DictReader((out / "inference.csv").open())
    assert float(line["seconds_median"]) == ours["seconds"][1]
    assert "| resnet_18 | 32 | 2 | 1 |" in (out / "report.md").read_text()
    assert (out / "inference.png").exists() == (find_spec("matplotlib") is not None)
    assert not list(out.glob("*.tmp"))

    (out / "report.md").unlink()
    again = bench("report", out)
    assert again.stdout.strip() == text.strip()
    assert (out / "report.md").exists()


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["speed"], "no suite 'speed'"),
        (["--engines", "lucid_c,caffe"], "no engine 'caffe'"),
        (["--models", "resnet_19"], "no model 'resnet_19'"),
        (["--rounds", "0"], "--rounds"),
        (["--seconds", "-1"], "--seconds"),
        (["--batch", "0"], "--batch"),
        (["--image-size", "1x2x3"], "--image-size"),
        (["spinning", "--engines", "torch"], "lucid_c"),
        (["report", "nowhere"], "JSON"),
    ],
)
def test_bad_command_lines(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        run_module.main([*arguments, "--out", str(tmp_path / "none")])
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_processes_stand_still_between_questions():
    with team.Process("lucid_c") as process:
        assert Path(f"/proc/{process.child.pid}/stat").read_text().split()[2] == "T"
        with pytest.raises(team.EngineError, match="no_such_model"):
            process.ask("load", model="no_such_model", folder=".", shape=(1, 3, 32, 32), threads=1)
        assert "resnet_18" in process.ask("model_names")  # it lives on
        os.kill(process.child.pid, team.signal.SIGKILL)
        with pytest.raises(team.EngineError, match="died"):
            process.ask("model_names")
        assert not process.alive


def test_a_process_that_takes_too_long_is_ended():
    with team.Process() as process:
        start = time.monotonic()
        with pytest.raises(team.EngineError, match="more than 0.001 s"):
            process.ask("describe", timeout=0.001)
        assert not process.alive and time.monotonic() - start < 10


class FakeTeam:
    """Engines that take so many seconds and give such results."""

    threads = 1

    def __init__(self, **seconds):
        self.engines = list(seconds)
        self.seconds, self.asked = seconds, []

    def __getitem__(self, engine):
        def ask(command, calls, warmup):
            self.asked.append(engine)
            if self.seconds[engine] is None:
                raise team.EngineError("out of memory")
            return [self.seconds[engine]] * calls

        return SimpleNamespace(ask=ask)


def test_engines_take_turns_and_a_failure_is_a_row():
    crew = FakeTeam(lucid_c=0.01, torch=0.03, onnxruntime=None, openvino=0.02)
    row = {"engines": {e: {"info": {}, "once": 0.02} for e in crew.engines}}
    measure.time_all(crew, row, crew.engines, SimpleNamespace(rounds=3, seconds=6.0), "time")
    assert crew.asked[4:] == ["lucid_c", "torch", "openvino"] * 3
    measure.finish(row)
    assert row["engines"]["onnxruntime"]["error"] == "out of memory"
    assert row["fastest_peer"] == "openvino" and row["ratio"] == pytest.approx([2, 2, 2])
    assert row["engines"]["torch"]["ratio"][1] == pytest.approx(3)


def test_ratios_are_those_of_the_same_round():
    row = {
        "engines": {
            "lucid_c": {"info": {}, "rounds": [1.0, 10.0, 2.0]},
            "torch": {"info": {}, "rounds": [3.0, 20.0, 8.0]},
        }
    }
    assert measure.finish(row)["ratio"] == [2.5, 3.0, 3.5]


def test_who_is_no_peer():
    def row():
        times = {"lucid_c": 2.0, "onnxruntime": 3.0, "openvino": 4.0, "openvino default": 1.0}
        made = {"engines": {e: {"info": {}, "rounds": [t]} for e, t in times.items()}}
        made["engines"]["openvino default"]["info"] = {"precision": "bf16"}
        return made

    assert measure.finish(row())["fastest_peer"] == "onnxruntime"
    capped = measure.finish(row(), isa="avx2", isa_best="avx512")
    assert capped["fastest_peer"] == "openvino"
    assert "avx2" in capped["engines"]["onnxruntime"]["note"]
    assert "bf16" in capped["engines"]["openvino default"]["note"]
    assert measure.finish(row(), isa="avx2", isa_best="avx2")["fastest_peer"] == "onnxruntime"


def test_wrong_results_are_errors():
    right = np.array([[1.0, -2.0]], np.float32)
    results = {
        "lucid_c": right,
        "torch": right + 1e-4,
        "onnxruntime": right + 1e-3,
        "openvino": right * np.nan,
        "torch.compile": right[:, :1],
    }
    row = {"engines": {engine: {"info": {}} for engine in results}}
    checked = measure.check_all(
        None, row, list(results), lambda e: (results[e], 1.0), measure.compare_logits
    )
    assert checked == ["lucid_c", "torch"]
    assert {e for e, entry in row["engines"].items() if "error" in entry} == {
        "onnxruntime",
        "openvino",
        "torch.compile",
    }
    rough = {"precision": "bf16"}
    assert measure.compare_logits(right + 1e-3, right, rough)[1] > 1e-2
    assert measure.compare_losses([1.0, 2.1], [1.0, 2.0], {})[0] == pytest.approx(0.05)
    document = {"rows": [row]}
    assert not report.no_errors(document)


def test_a_plan_keeps_to_its_time():
    quick = measure.plan({"lucid_c": 0.01, "torch": 0.02}, rounds=7, seconds=12)
    assert quick == {"lucid_c": (7, 15, 1), "torch": (7, 15, 1)}
    slow = measure.plan({"lucid_c": 4.0, "openvino": 5.0, "torch": 9.0}, rounds=7, seconds=12)
    assert slow == {"lucid_c": (3, 1, 0), "openvino": (3, 1, 0), "torch": (1, 1, 0)}
    assert measure.plan({"lucid_c": 4.0}, rounds=2, seconds=1) == {"lucid_c": (2, 1, 0)}


def test_options_of_a_suite():
    parse = run_module.build_parser().parse_args
    usual = run_module.complete(parse([]), "inference", 4)
    assert usual.threads == [1, 4] and usual.batch == [1, 8] and len(usual.models) == 11
    given = run_module.complete(parse(["--quick", "--engines", "torch,lucid_c"]), "scaling", 4)
    assert given.engines == ["lucid_c", "torch"] and given.threads == [1, 2, 3, 4]
    assert given.models == ["resnet_18", "resnest_14"] and given.rounds == 3
    assert set(run_module.DEFAULTS) == set(import_module("suites").SUITES) == set(report.TABLES)


def test_missing_engines_say_why(monkeypatch):
    found = {"lucid_c", "torch"}
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in found else None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert team.missing(list(engines.ENGINES)) == {
        "torch.compile": "no C++ compiler (no-such-compiler)",
        "onnxruntime": "onnxruntime is not installed",
        "openvino": "openvino is not installed",
        "openvino default": "openvino is not installed",
    }
