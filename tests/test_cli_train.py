# SPDX-License-Identifier: MIT
"""``lucid-c train`` and ``lucid-c validate`` on small folders of coloured pictures."""

import functools
import json
import random
import re
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

import lucid_c
from conftest import package_env
from lucid_c.checkpoints import load_training_state
from lucid_c.cli import main
from lucid_c.training import building, trainer

image = pytest.importorskip("PIL.Image")

COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
SMALL = {"stem_width": 8, "channels": (8, 8, 16, 16)}
MODEL = ["--model", "resnet_18", "--image-size", "32", "--threads", "1"]
QUICK = [*MODEL, "--epochs", "2", "--batch-size", "6", "--lr", "0.05", "--lr-batch", "0",
         "--mixup", "0", "--drop-block-rate", "0", "--no-tensorboard"]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with train/ and val/."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for name, colour in COLOURS.items():
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (36, 40, 3)), 0, 255)
                path = folder / part / name / f"{i}.png"
                image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def copied(pictures, tmp_path):
    import shutil

    shutil.copytree(pictures, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path, threads):
    """cli(*arguments, status=0) -> (stdout, stderr), with a small resnet_18."""
    monkeypatch.delenv("LUCID_C_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    small = functools.partial(building.create_model, **SMALL)
    monkeypatch.setattr(building, "create_model", small)

    def run(*arguments, status=0):
        got = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert got == status, err
        assert "Traceback" not in err
        return out, err

    return run


def fails(cli, *arguments):
    out, err = cli(*arguments, status=2)
    assert re.fullmatch(r"lucid-c: error: [^\n]+\n", err), err
    return err


def test_train_validate_and_go_on(cli, pictures, tmp_path):
    out, err = cli("train", pictures, *QUICK, "--plot", "--output", "run", "--workers", "1")
    lines = out.splitlines()
    assert not err and len(lines) == 3 and lines[0].startswith("epoch 1/2: loss ")
    assert lines[2].startswith("best: top-1 ") and lines[2].endswith("run/best.safetensors")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best.safetensors", "last.safetensors", "log.csv", "classes.txt", "curves.png",
    }  # fmt: skip
    assert (tmp_path / "run" / "classes.txt").read_text().split() == list(COLOURS)
    assert image.open(tmp_path / "run" / "curves.png").size[0] > 300

    state = load_training_state(tmp_path / "run" / "last.safetensors")
    last = state["progress"]["history"][-1]
    arguments = ["--model", "resnet_18", "--image-size", "32", "--weights"]
    out, _ = cli("validate", pictures, *arguments, "run/last.safetensors", "--json")
    report = json.loads(out)
    assert report["images"] == 9 and report["top1"] == last["val_top1"]
    assert report["loss"] == pytest.approx(last["val_loss"], rel=1e-6)
    out, _ = cli("validate", pictures / "val", *arguments, "run/last.safetensors", "--batch", 2)
    assert re.match(rf"9 images: loss {last['val_loss']:.4f}, top-1 .* images/s\n$", out)
    assert "a run in 'run' already" in fails(cli, "train", pictures, *QUICK, "--output", "run")
    out, _ = cli("train", pictures, "--output", "run", "--resume", "--workers", "0")
    assert out.startswith("resumed after step 8, 2 epochs done")
    assert "epochs 2, not 3" in fails(
        cli, "train", pictures, "--output", "run", "--resume", "--epochs", "3"
    )
    cli("train", pictures, *QUICK, "--output", "run", "--overwrite", "--epochs", "1")


def test_config_file(cli, pictures, tmp_path):
    config = tmp_path / "recipe.toml"
    config.write_text(
        'model = "resnet_18"\nimage-size = 32\nepochs = 1\nbatch-size = 6\nema = 0.5\n'
        'threads = 1\noutput = "here"\nlr = 0.01\ntensorboard = true\n'
    )
    cli("train", pictures, "--config", config, "--lr", "0.02", "--accumulate", 3)
    state = load_training_state(tmp_path / "here" / "last.safetensors")
    recipe = state["recipe"]
    assert (recipe["lr"], recipe["ema"], recipe["batch_size"]) == (0.02, 0.5, 6)
    assert state["progress"]["step"] == 2 and "ema" in state  # 4 batches, 3 and 1
    assert list((tmp_path / "here").glob("events.out.tfevents.*"))
    for text, match in (
        ("epoch = 3\n", "unknown option 'epoch'; did you mean 'epochs'"),
        ("epochs = '3'\n", "epochs must be an integer"),
        ("output = 3\n", "output must be a text"),
        ("format = 'zip'\nmodel = 'resnet_18'\n", "folder or tar"),
        ("epochs = \n", "recipe.toml"),
    ):
        config.write_text(text)
        arguments = ["--model", "resnet_18"] if "model" not in text else []
        assert match in fails(cli, "train", pictures, "--config", config, *arguments)


def test_fine_tuning(cli, pictures, tmp_path):
    other = building.create_model("resnet_18", 10)
    other.save(tmp_path / "ten.safetensors")
    out, _ = cli("train", pictures, *QUICK, "--weights", "ten.safetensors", "--output", "run",
                 "--epochs", "1", "--freeze", "conv1", "--freeze", "layer1")  # fmt: skip
    assert out.startswith("the classifier of ten.safetensors has 10 classes; a new one with 3")
    state = load_training_state(tmp_path / "run" / "last.safetensors")["model"]
    before = other.state_dict()
    same = {name for name in before if np.array_equal(before[name], state[name])}
    fixed = {name for name in before if name.startswith(("conv1.", "layer1."))}
    assert same == fixed
    (tmp_path / "ten.safetensors").unlink()  # a run that is resumed has its own weights
    cli("train", pictures, "--output", "run", "--resume")
    message = fails(cli, "validate", pictures, "--model", "resnet_18", "--weights", "none.pth")
    assert "none.pth" in message
    other.save(tmp_path / "ten.safetensors")
    arguments = ["--model", "resnet_18", "--weights", "ten.safetensors"]
    assert "3 classes, but the model has 10" in fails(cli, "validate", pictures, *arguments)


def test_tar_files(cli, pictures, tmp_path):
    for part in ("train", "val"):
        (tmp_path / "tars" / part).mkdir(parents=True)
        with tarfile.open(tmp_path / "tars" / part / "0.tar", "w") as tar:
            tar.add(pictures / part, part)
    out, _ = cli("train", "tars", *QUICK, "--format", "tar", "--epochs", "1", "--output", "run")
    assert "validation loss" in out
    arguments = ["--model", "resnet_18", "--image-size", "32", "--weights", "run/best.safetensors"]
    assert cli("validate", "tars", "--format", "tar", *arguments)[0].startswith("9 images")


def test_wrong_arguments_give_one_line(cli, pictures, tmp_path):
    def message(*arguments):
        return fails(cli, "train", *arguments)

    assert "no folder 'nowhere'" in message("nowhere", *MODEL)
    assert "--model NAME is needed" in message(pictures)
    assert "resnet_18" in message(pictures, "--model", "resnet_19")
    assert "batch_size must be at least 1" in message(pictures, *MODEL, "--batch-size", 0)
    assert "a number is expected, not 'fast'" in message(pictures, *MODEL, "--lr", "fast")
    assert "an integer is expected" in message(pictures, *MODEL, "--epochs", "2.5")
    assert "--bacth-size" in message(pictures, *MODEL, "--bacth-size", 3)
    assert "num_classes is 2" in message(pictures, *MODEL, "--num-classes", 2)
    assert "under 'layer9'" in message(pictures, *QUICK, "--freeze", "layer9")
    assert "no batch: 24 samples" in message(pictures, *MODEL, "--batch-size", 25)
    assert "no run to resume in 'none'" in message(pictures, "--output", "none", "--resume")
    assert "exclude" in message(pictures, *MODEL, "--resume", "--overwrite")
    assert "more than 1 value per channel" in message(
        pictures, *QUICK, "--batch-size", 1, "--output", "one"
    )
    (tmp_path / "file").touch()
    assert "file" in message(pictures, *QUICK, "--output", "file")


def test_wrong_folders_give_one_line(cli, copied):
    def message():
        return fails(cli, "train", copied, *QUICK, "--epochs", 1, "--output", "run", "--overwrite")

    bad = copied / "train" / "red" / "0.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    assert "train/red/0.png" in message()
    skipping = [*QUICK, "--epochs", 1, "--output", "skips", "--skip-unreadable"]
    _, err = cli("train", copied, *skipping)
    assert re.fullmatch(r"lucid-c: warning: .*red/0.png.* is skipped: .*\n", err)
    bad.write_bytes(whole)
    (copied / "val" / "red").rename(copied / "val" / "rot")
    assert re.search("train' has classes that '.*val' has not: 'red'", message())
    (copied / "train" / "white").mkdir()
    assert "no pictures in 1 of the 4 class folders" in message()
    (copied / "val").rename(copied / "test")
    (copied / "train" / "white").rmdir()
    assert "no folder" in message() and "val" in message()
    assert "no class folders" in fails(
        cli, "validate", copied / "train" / "red", "--model", "resnet_18", "--weights", "w"
    )


def test_a_full_disk_ends_clearly(cli, pictures, monkeypatch):
    def full(path, **parts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "save_training_state", full)
    message = fails(cli, "train", pictures, *QUICK, "--output", "run")
    assert "No space left on device: 'run/last.safetensors'" in message


CHILD = """
import functools, sys
from lucid_c.cli import main
from lucid_c.training import building
building.create_model = functools.partial(
    building.create_model, stem_width=8, channels=(8, 8, 16, 16)
)
sys.exit(main(sys.argv[1:]))
"""


def test_killed_stopped_and_resumed_to_the_same_bits(pictures, tmp_path):
    """SIGKILL at random times, then SIGINT, against a run that was let alone."""
    draw = random.Random(5)
    command = [sys.executable, "-c", CHILD, "train", str(pictures)]
    recipe = [*MODEL, "--epochs", "12", "--batch-size", "4", "--accumulate", "2", "--ema", "0.9",
              "--workers", "1", "--save-minutes", "1e-9", "--cutmix", "0.3", "--val-batch", "9",
              "--drop-rate", "0.2", "--drop-path-rate", "0.1"]  # fmt: skip

    def start(output, *more):
        return subprocess.Popen(
            [*command, "--output", output, *more],
            env=package_env(), cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def stop(process, number):
        """Send a signal a few steps later, in the middle of one, however long they take here."""
        for _ in range(draw.randint(2, 4)):
            seen, began = saved(), time.monotonic()
            while process.poll() is None and saved() == seen:
                time.sleep(0.001)
        time.sleep(draw.random() * (time.monotonic() - began))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        return process.returncode, err

    last = tmp_path / "broken" / "last.safetensors"

    def saved():
        return last.stat().st_mtime_ns if last.exists() else None

    whole = start("whole", *recipe)
    assert stop(start("broken", *recipe), signal.SIGKILL)[0] == -signal.SIGKILL
    kills = [stop(start("broken", "--resume"), signal.SIGKILL)[0] for _ in range(2)]
    assert kills == [-signal.SIGKILL] * 2
    status, err = stop(start("broken", "--resume"), signal.SIGINT)
    assert status == 130, err
    line = r"lucid-c: interrupted after step \d+ \(epoch \d+\); the same .* --resume goes on\n"
    assert re.fullmatch(line, err)
    step = load_training_state(last)["progress"]["step"]
    assert 3 < step < 36
    out, err = start("broken", "--resume").communicate(timeout=60)
    assert out.startswith(f"resumed after step {step}, ") and not err
    assert whole.communicate(timeout=60)[1] == "" and whole.returncode == 0

    one, two = (
        load_training_state(tmp_path / name / "last.safetensors") for name in ("whole", "broken")
    )
    for state in (one, two):
        for row in state["progress"]["history"]:
            del row["images_per_second"], row["epoch_seconds"]
    assert one["progress"]["step"] == 36
    same(one, two)
    folders = (tmp_path / "whole", tmp_path / "broken")
    # Not byte by byte: the safetensors library writes metadata in any order.
    same(*(dict(lucid_c.load(folder / "best.safetensors")) for folder in folders))
    same(*((folder / "classes.txt").read_text() for folder in folders))


def same(one, two, where=""):
    """Equal structures with equal bits."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype and one.tobytes() == two.tobytes(), where
    else:
        assert one == two or one != one and two != two, where
