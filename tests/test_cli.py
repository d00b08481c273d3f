# SPDX-License-Identifier: MIT
"""The command line: what it prints, how it ends, and what it does with errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import lucid_c
from conftest import package_env
from helpers import reference_weights
from lucid_c.cli import command_line, demo, main, options, output
from lucid_c.cli.images import find_images
from lucid_c.models._cards import CARDS

COMMANDS = [
    "classify",
    "train",
    "validate",
    "info",
    "list",
    "config",
    "bench",
    "profile",
    "export",
    "demo",
]


@pytest.fixture
def cli(capsys, monkeypatch):
    """cli(*arguments, status=0) -> (stdout, stderr) of a run in this process."""
    monkeypatch.delenv("LUCID_C_DEBUG", raising=False)

    def run(*arguments, status=0):
        got = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert got == status, err
        assert "Traceback" not in err
        return out, err

    return run


def fails(cli, *arguments):
    """Runs what must fail with one line and status 2; the line without its beginning."""
    out, err = cli(*arguments, status=2)
    assert re.fullmatch(r"lucid-c: error: [^\n]+\n", err), err
    return err.removeprefix("lucid-c: error: ").rstrip("\n")


# --- help, and arguments that cannot be ------------------------------------------------------


def test_help_names_all_commands(cli):
    out, err = cli("--help")
    assert all(re.search(rf"^ +{name} ", out, re.MULTILINE) for name in COMMANDS)
    assert "examples:" in out and not err
    assert cli("--version")[0] == f"lucid_c {lucid_c.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(cli, command):
    out, _ = cli(command, "--help")
    assert out.startswith(f"usage: lucid-c {command}")
    assert f"  lucid-c {command}" in out.partition("examples:")[2]


@pytest.mark.parametrize(
    "arguments,expected",
    [
        ([], "no command"),
        (["clasify"], "clasify"),
        (["info"], "NAME"),
        (["info", "resnet_5O"], "resnet_50"),
        (["info", "resnet_18", "--size", "0x3"], "HxW"),
        (["info", "resnet_18", "--size", "1x2x3"], "1x2x3"),
        (["info", "resnet_18", "--num-classes", "-1"], "-1"),
        (["info", "resnet_18", "--compat", "lucid3"], "lucid3"),
        (["info", "resnet_18", "--siz", "32"], "--siz"),
        (["list", "vgg"], "vgg"),
        (["bench", "resnet_18", "--batch", "1,,2"], "positive integer"),
        (["bench", "resnet_18", "--threads", "0"], "positive integer"),
        (["bench", "resnet_18", "--threads", "100000"], "100000"),
        (["bench", "nothing"], "nothing"),
        (["classify", "x.png"], "--model"),
        (["classify", "x.png", "--model", "resnet_18", "--weights", "w", "--topk", "0"], "topk"),
        (["demo", "--threads", "many"], "many"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_give_one_line(cli, threads, arguments, expected):
    assert expected in fails(cli, *arguments)


@pytest.mark.parametrize("text,expected", [("7", (7, 7)), ("5x09", (5, 9)), (" 3X4 ", (3, 4))])
def test_sizes(text, expected):
    assert options.size(text) == expected


def test_counts():
    assert options.counts("4,1,4,02") == [4, 1, 2]


# --- how a command ends ----------------------------------------------------------------------


def raising(monkeypatch, error):
    def run(args):
        raise error

    monkeypatch.setattr(command_line.listing, "run_list", run)


def test_debug_shows_where_an_error_comes_from(capsys, monkeypatch):
    monkeypatch.setenv("LUCID_C_DEBUG", "1")
    assert main(["info", "nothing"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "lucid-c: error: unknown model 'nothing'" in err


def test_a_mistake_of_ours_is_said_to_be_one(cli, monkeypatch):
    raising(monkeypatch, AttributeError("no\nsuch thing"))
    _, err = cli("list", status=1)
    assert err.count("\n") == 1
    assert "internal: AttributeError: no such thing" in err and "LUCID_C_DEBUG" in err


@pytest.mark.parametrize(
    "error,line",
    [
        (ValueError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file", "a b"), "No such file: 'a b'"),
        (MemoryError(), "out of memory"),
        (ImportError("images need Pillow"), "images need Pillow"),
    ],
    ids=repr,
)
def test_errors_in_one_line(cli, monkeypatch, error, line):
    raising(monkeypatch, error)
    assert fails(cli, "list") == line


def test_warnings_in_one_line(cli, monkeypatch):
    monkeypatch.setattr(
        command_line.listing, "run_list", lambda args: warnings.warn("too\nbig", stacklevel=1)
    )
    assert cli("list")[1] == "lucid-c: warning: too big\n"


def test_interrupt(cli, monkeypatch):
    raising(monkeypatch, KeyboardInterrupt())
    assert cli("list", status=130) == ("", "lucid-c: interrupted\n")


def test_interrupt_of_a_run(tmp_path):
    code = """if True:
        import signal, sys
        from lucid_c.cli import main
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("ready", flush=True)
        sys.exit(main(["bench", "resnet_18", "--size", "64", "--runs", "100000"]))
    """
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=package_env(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and out == "" and err == "lucid-c: interrupted\n"


def test_a_reader_that_goes_away(tmp_path):
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lucid_c", "info", "resnet_18"],
            env=package_env(),
            cwd=tmp_path,
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(write)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lucid_c", "list"],
            env=package_env(),
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode != 0 and done.stderr.startswith("lucid-c: error: ")


def test_what_is_not_needed_is_not_imported(run_python):
    run_python(
        """
        import sys
        from lucid_c.__main__ import main
        assert main(["list"]) == main(["info", "resnet_18"]) == main(["config"]) == 0
        for name in ("PIL", "tqdm", "safetensors", "csv"):
            assert name not in sys.modules, name
        """
    )


# --- list, config, info ----------------------------------------------------------------------


def test_list(cli):
    lines = cli("list")[0].splitlines()
    assert len(lines) == 1 + len(CARDS)
    assert [line.split()[0] for line in lines[1:]] == lucid_c.list_models()
    row = next(line for line in lines if line.startswith("resnest_200 "))
    assert row.split()[1:3] == ["70,201,544", "320"] and "resnest200e" in row


def test_list_with_a_pattern(cli):
    names = [row["name"] for row in json.loads(cli("list", "st_50_", "--json")[0])]
    assert names == ["resnest_50_4s2x40d", "resnest_50_1s4x24d"]
    assert [row["name"] for row in json.loads(cli("list", "resnet_5?", "--json")[0])] == [
        "resnet_50"
    ]


def test_config(cli):
    config = lucid_c.config()
    out, _ = cli("config")
    assert config["isa"] in out and config["cpu"] in out and str(config["threads_rule"]) in out
    assert json.loads(cli("config", "--json")[0]) == config


@pytest.mark.parametrize("name", ["resnet_18", "resnest_14", "resnext_50_32x4d"])
def test_info_adds_up(cli, name):
    report = json.loads(cli("info", name, "--json")[0])
    card, layers = CARDS[name], report["layers"]
    assert report["parameters"] == sum(row["parameters"] for row in layers) == card.parameters
    assert report["multiply_adds"] == sum(row["multiply_adds"] for row in layers)
    assert report["output_bytes"] == sum(row["output_bytes"] for row in layers)
    assert report["card"] == {"input_shape": [1, 3, 224, 285], "flops": card.flops}
    assert report["input_shape"] == [1, 3, 224, 224] and report["output_shape"] == [1, 1000]
    out, _ = cli("info", name)
    for figure in ("parameters", "multiply_adds"):
        assert f"{report[figure]:,}" in out
    assert f"{card.flops:,}" in out


def test_info_of_known_figures(cli):
    assert json.loads(cli("info", "resnest_50", "--json")[0])["multiply_adds"] == 5_371_160_576
    first = json.loads(cli("info", "resnet_50", "--json")[0])["layers"][0]
    assert first == {
        "name": "conv1",
        "op": "conv2d",
        "input_shape": [1, 3, 224, 224],
        "output_shape": [1, 64, 112, 112],
        "parameters": 64 * 3 * 49,
        "multiply_adds": 64 * 3 * 49 * 112 * 112,
        "output_bytes": 4 * 64 * 112 * 112,
    }


def test_info_with_other_sizes_and_classes(cli):
    arguments = ["info", "resnet_18", "--size", "64x96", "--num-classes", "10", "--summary"]
    out, _ = cli(*arguments)
    assert "1 x 3 x 64 x 96" in out and "layer1" not in out
    report = json.loads(cli(*arguments, "--json")[0])
    assert "layers" not in report and report["output_shape"] == [1, 10]
    assert report["parameters"] == CARDS["resnet_18"].parameters - 990 * 513
    lucid2 = json.loads(cli("info", "resnest_14", "--compat", "lucid2", "--json")[0])
    assert lucid2["parameters"] == CARDS["resnest_14"].parameters_lucid2


def test_tables_are_aligned():
    text = output.table(("a", "bb"), [("long", "1"), ("x", "1,000")], "<>")
    assert text == "a        bb\nlong      1\nx     1,000"


def test_amounts():
    assert output.size_text(1023) == "1023 B" and output.size_text(1 << 20) == "1.0 MiB"
    assert output.ms(0.0012345) == "1.23" and output.ms(1.5) == "1500"


def test_json_has_no_nan(capsys):
    output.print_json({"a": [float("nan"), 1.5, (float("inf"),)]})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, [None]]}


def test_progress_bars_are_for_terminals(monkeypatch, capsys):
    with output.progress(3, "x") as step:
        step()
    assert capsys.readouterr().err == ""
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with output.progress(3, "x") as step:
        step(3)
    assert "0/3" in capsys.readouterr().err


# --- classify --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Five pictures in two folders, weights of a resnet_18 with 5 classes, and the model."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "photos" / "more").mkdir(parents=True)
    draw = np.random.default_rng(5)
    for name in ("a.png", "b c.jpg", "more/d.PNG", "more/[e].png", "f.png"):
        pixels = draw.integers(0, 256, (40 + len(name), 50, 3), np.uint8)
        image.fromarray(pixels).save(folder / "photos" / name)
    (folder / "photos" / "notes.txt").write_text("no picture")
    model = lucid_c.create_model("resnet_18", num_classes=5, init=False)
    weights = reference_weights(model)
    np.savez(folder / "w.npz", **weights)
    return folder, model


def classified(cli, gallery, *arguments, status=0, weights=None):
    folder, _ = gallery
    weights = weights or folder / "w.npz"
    fixed = ["--model", "resnet18", "--weights", weights, "--image-size", "48"]
    return cli("classify", *arguments, *fixed, status=status)


def test_classify(cli, gallery):
    from lucid_c.imagenet import topk
    from lucid_c.transforms import create_transform

    folder, model = gallery
    path = str(folder / "photos" / "a.png")
    x = create_transform("resnet_18", image_size=48)(path)[None]
    want = topk(np.asarray(model(x)), 3)[0]
    out, err = classified(cli, gallery, path, "--topk", "3", "--json")
    (result,) = json.loads(out)["results"]
    assert result["image"] == path and not err
    got = [(row["index"], row["name"], row["probability"]) for row in result["classes"]]
    assert got == want
    lines = classified(cli, gallery, path, "--topk", "3")[0].splitlines()
    assert lines[0] == path and len(lines) == 4
    index, name, probability = want[0]
    assert lines[1].split() == [f"{100 * probability:.2f}", "%", str(index), name]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_classify_a_folder_in_batches(cli, gallery, batch):
    folder, _ = gallery
    photos = folder / "photos"
    arguments = [photos, "--topk", "9", "--json"]
    results = json.loads(classified(cli, gallery, *arguments, "--batch", batch)[0])["results"]
    names = ["a.png", "b c.jpg", "f.png", "more/[e].png", "more/d.PNG"]
    assert [row["image"] for row in results] == [str(photos / name) for name in names]
    assert all(len(row["classes"]) == 5 for row in results)
    one = json.loads(classified(cli, gallery, *arguments)[0])["results"]
    assert results == one  # the same bits for every batch size


def test_files_folders_and_patterns(gallery):
    photos = gallery[0] / "photos"
    found = list(find_images([f"{photos}/*.png", str(photos / "more"), str(photos / "a.png")]))
    assert [os.path.relpath(path, photos) for path, _ in found] == [
        "a.png",
        "f.png",
        "more/[e].png",
        "more/d.PNG",
    ]
    bracket = str(photos / "more" / "[e].png")
    assert list(find_images([bracket])) == [(bracket, None)]
    (photos / "empty").mkdir(exist_ok=True)
    for wrong in ("gone.png", "gone*.png", "empty"):
        ((argument, problem),) = find_images([str(photos / wrong)])
        assert argument in problem


def test_an_image_that_cannot_be_read(cli, gallery):
    photos = gallery[0] / "photos"
    bad, gone, good = photos / "notes.txt", photos / "gone.jpg", photos / "a.png"
    out, err = classified(cli, gallery, bad, good, status=2)
    assert err.count("\n") == 1 and "notes.txt" in err and out == ""
    out, err = classified(cli, gallery, good, gone, status=2)
    assert err.count("\n") == 1 and "gone.jpg" in err and out == ""
    out, err = classified(cli, gallery, bad, good, gone, "--keep-going", status=2)
    assert err.count("\n") == 2 and "notes.txt" in err and "gone.jpg" in err
    assert out == classified(cli, gallery, good)[0]
    out, err = classified(cli, gallery, bad, good, "--keep-going", "--json", status=2)
    first, second = json.loads(out)["results"]
    assert first["image"] == str(good) and "notes.txt" in second["error"]


def test_class_names_from_a_file(cli, gallery, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndög\neel\n", encoding="utf-8")
    photo = gallery[0] / "photos" / "a.png"
    out, _ = classified(cli, gallery, photo, "--names", names)
    assert {line.split()[-1] for line in out.splitlines()[1:]} == {
        "ant",
        "bee",
        "cat",
        "dög",
        "eel",
    }
    names.write_text("ant\n")
    _, err = classified(cli, gallery, photo, "--names", names, status=2)
    assert "1 name" in err and "5 classes" in err


def test_the_head_may_have_another_name(cli, gallery, tmp_path):
    with np.load(gallery[0] / "w.npz") as file:
        weights = {name.replace("fc.", "classifier."): file[name] for name in file}
    np.savez(tmp_path / "other.npz", **weights)
    photo = gallery[0] / "photos" / "a.png"
    want = classified(cli, gallery, photo)[0]
    assert classified(cli, gallery, photo, weights=tmp_path / "other.npz")[0] == want


def test_weights_that_do_not_fit(cli, gallery, tmp_path):
    photo = gallery[0] / "photos" / "a.png"
    _, err = classified(cli, gallery, photo, weights=tmp_path / "gone.pth", status=2)
    assert "gone.pth" in err and err.count("\n") == 1
    (tmp_path / "text.pth").write_text("hello")
    _, err = classified(cli, gallery, photo, weights=tmp_path / "text.pth", status=2)
    assert "text.pth" in err and err.count("\n") == 1
    line = fails(cli, "classify", photo, "--model", "resnet_34", "--weights", gallery[0] / "w.npz")
    assert "layer1.2.conv1.weight" in line
    line = fails(cli, "classify", photo, "--model", "resnet18x", "--weights", "gone.pth")
    assert "resnet18" in line and "gone" not in line


def test_wrong_settings_of_the_transform(cli, gallery):
    photo = gallery[0] / "photos" / "a.png"
    _, err = classified(cli, gallery, photo, "--interpolation", "best", status=2)
    assert "best" in err and "bicubic" in err
    _, err = classified(cli, gallery, photo, "--crop", "0", status=2)
    assert "crop" in err


def test_without_pillow(cli, gallery, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    _, err = classified(cli, gallery, gallery[0] / "photos" / "a.png", status=2)
    assert "pip install" in err and err.count("\n") == 1


# --- bench and demo --------------------------------------------------------------------------


def test_bench(cli, threads):
    before = lucid_c.get_num_threads()
    common = ["bench", "resnet_18", "--size", "32x48", "--runs", "3", "--warmup", "1"]
    out, err = cli(*common, "--batch", "1,2", "--threads", "1,2", "--json")
    report = json.loads(out)
    assert err == "" and lucid_c.get_num_threads() == before
    assert report["input_shape"] == [3, 32, 48] and report["isa"] == lucid_c.config()["isa"]
    rows = report["results"]
    assert [(r["batch"], r["threads"]) for r in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for row in rows:
        assert 0 < row["fastest_seconds"] <= row["median_seconds"] <= row["slowest_seconds"]
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["median_seconds"])
    lines = cli(*common, "--batch", "3")[0].splitlines()
    assert "resnet_18" in lines[0] and "median ms" in lines[2]
    assert all(line.split()[0] == "3" for line in lines[3:])


def test_demo(cli, monkeypatch):
    monkeypatch.setattr(demo, "RUNS", 1)
    out, err = cli("demo")
    config = lucid_c.config()
    assert err == "" and "weights are random" in out and "means nothing" in out
    for text in (config["isa"], config["cpu"], "27,483,240", "1 x 1000", "conv2d", "MiB"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 100


def test_demo_needs_numpy_only(run_python):
    done = run_python(
        """
        import sys
        for name in ("PIL", "tqdm", "safetensors", "huggingface_hub", "matplotlib"):
            sys.modules[name] = None
        from lucid_c.cli import main
        sys.exit(main(["demo", "--threads", "1"]))
        """
    )
    assert "1 thread (" in done.stdout
