# SPDX-License-Identifier: MIT
"""The state of a training run on disk: whole, exact, and safe from disks, kills and damage."""

import enum
import json
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib

import numpy as np
import pytest

import lucid_c
from conftest import package_env
from lucid_c import nn, optim
from lucid_c.checkpoints import load_training_state, save, save_training_state
from lucid_c.optim.lr_scheduler import cosine_with_warmup


class Run:
    """A small training run with everything that has a state."""

    def __init__(self, seed=0):
        lucid_c.random.seed(seed)
        self.model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1))
        groups = optim.param_groups_weight_decay(self.model, 0.1)
        self.optimizer = optim.AdamW(groups, 0.01)
        self.schedule = cosine_with_warmup(self.optimizer, 20, 3)
        self.ema = optim.EMA(self.model, 0.9, warmup=True)
        self.rng = np.random.RandomState(seed)

    def parts(self):
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "ema": self.ema,
            "random": lucid_c.random,
            "rng": self.rng,
        }

    def step(self):
        for p in self.model.parameters():
            p.grad = lucid_c.random.randn(*p.shape).numpy() + self.rng.rand()
        self.optimizer.step()
        self.model[1].running_mean += 0.5
        self.schedule.step()
        self.ema.update()

    def bits(self):
        state = [self.model.state_dict(), self.ema.weights()]
        state += self.optimizer.state_dict()["state"].values()
        arrays = [x.tobytes() for row in state for x in row.values()]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return arrays, rates, self.schedule.last_epoch, self.ema.updates, lucid_c.random.get_state()


def test_a_resumed_run_is_the_same_run_bit_for_bit(tmp_path):
    path = tmp_path / "state.safetensors"
    run = Run()
    for _ in range(5):
        run.step()
    save_training_state(path, **run.parts(), progress={"epoch": 5, "best": 0.1})
    for _ in range(4):
        run.step()
    want = run.bits()
    other = Run(seed=9)
    other.step()
    state = load_training_state(path, **other.parts())
    assert state["progress"] == {"epoch": 5, "best": 0.1}
    for _ in range(4):
        other.step()
    assert other.bits() == want
    assert [x.name for x in tmp_path.iterdir()] == ["state.safetensors"]


class Color(enum.IntEnum):
    RED = 3


VALUES = {
    "plain": [None, True, False, 0, -1, 2**100, 0.1, -1e-300, "text", "", "ä\u2028\ud800"],
    "not finite": [float("inf"), -float("inf")],
    "tuple": (1, (2, [3, ()])),
    "keys": {1: "a", (2, "x"): "b", None: "c", 0.5: "e"},
    "marks": {"$array": "name", "$tuple": [1], "$dict": 3, "$x": 1},
    "empty": {},
    "arrays": {
        **{kind: np.arange(5).astype(kind) for kind in ("f2", "f4", "f8", "i1", "i8", "u2", "u8")},
        "bool": np.array([True, False]),
        "scalar": np.array(2.5, np.float32),
        "nan": np.array([np.nan, -0.0, np.inf]),
        "none": np.zeros((0, 3), np.float32),
        "big-endian": np.arange(4, dtype=">i4"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.array([[1.5, np.inf]], np.float16),
        "a.b": np.zeros(1),
        "a": {"b": np.ones(1)},
    },
    "generic": [np.float32(0.1), np.int64(-5), np.bool_(True)],
    "enum": Color.RED,
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype.newbyteorder("=") == b.dtype
            and a.shape == b.shape
            and a.astype(b.dtype).tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b and (isinstance(a, (np.generic, Color)) or type(a) is type(b))


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_as_they_were(tmp_path, name):
    path = tmp_path / "state"
    save_training_state(path, part=VALUES[name], other=VALUES[name])
    state = load_training_state(path)
    assert list(state) == ["part", "other"]
    assert same(VALUES[name], state["part"]) and same(VALUES[name], state["other"])


def test_nan_comes_back(tmp_path):
    save_training_state(tmp_path / "x", part=[float("nan"), np.float32("nan")])
    assert all(x != x for x in load_training_state(tmp_path / "x")["part"])


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    save_training_state(path, part=1)
    cycle = []
    cycle.append(cycle)
    for bad, error, text in (
        ({"a": {"b": object()}}, TypeError, r"part\.a\.b is a object"),
        ({"a": [1, {2}]}, TypeError, r"part\.a\.1 is a set"),
        (b"bytes", TypeError, "bytes"),
        (np.array(["text"]), TypeError, "array of str"),
        (np.array([None]), TypeError, "array of object"),
        (np.ones(3, np.complex64), TypeError, "array of complex64"),
        (cycle, ValueError, "nested too deeply"),
        (nn.Linear, TypeError, None),
    ):
        with pytest.raises(error, match=text):
            save_training_state(path, part=bad)
        assert load_training_state(path) == {"part": 1}
    with pytest.raises(ValueError, match="at least one part"):
        save_training_state(path)
    with pytest.raises(FileNotFoundError):
        save_training_state(tmp_path / "no" / "state", part=1)
    assert os.listdir(tmp_path) == ["state"]


def test_parts_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "state"
    run, other = Run(), Run(1)
    run.step()
    parts = run.parts()
    save_training_state(path, **parts, sgd=optim.SGD([nn.Parameter(np.ones(3))]))
    before = other.bits()
    with pytest.raises(ValueError, match="no part 'teacher'; the file has model, optimizer"):
        load_training_state(path, model=other.model, teacher=other.model)
    with pytest.raises(TypeError, match="'rng': a dict has no load_state_dict"):
        load_training_state(path, model=other.model, rng={})
    with pytest.raises(ValueError) as caught:
        load_training_state(path, **(other.parts() | {"sgd": other.optimizer}))
    assert any("restoring 'sgd'" in note for note in caught.value.__notes__)
    assert other.bits() == before


def test_the_weights_in_it_are_a_checkpoint(tmp_path):
    path = tmp_path / "state.safetensors"
    run = Run()
    run.step()
    run.step()
    save_training_state(path, **run.parts())
    assert same(run.model.state_dict(), dict(sorted_like(lucid_c.load(path), run.model)))
    average = lucid_c.load(path, use_ema=True)
    assert same(run.ema.weights(), dict(sorted_like(average, run.model)))
    assert not np.array_equal(average["0.weight"], run.model[0].weight)
    fresh = Run(5).model
    fresh.load(path)
    assert same(run.model.state_dict(), fresh.state_dict())
    save_training_state(path, optimizer=run.optimizer)
    with pytest.raises(ValueError, match="no weights under 'model'"):
        lucid_c.load(path)


def sorted_like(weights, model):
    return [(name, weights[name]) for name in model.state_dict()]


# --- damage


def small_file(path):
    save_training_state(path, part={"x": np.arange(7.0), "text": "abc", "n": 3}, more=(1, 2.5))
    return path.read_bytes()


def test_a_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "state"
    data = small_file(path)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="state"):
            load_training_state(path)
    path.write_bytes(data + b"x")
    with pytest.raises(ValueError):
        load_training_state(path)


def test_a_changed_byte_is_an_error(tmp_path):
    path = tmp_path / "state"
    data = small_file(path)
    want = load_training_state(path)
    rng = random.Random(0)
    harmless = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            got = load_training_state(path)
        except ValueError:
            continue
        harmless += 1  # e.g. the name of the producer
        assert same(want, got), at
    assert harmless < 40


def forged(tree, arrays=None):
    """A file with this description, and the right checksum for it."""
    text = tree if isinstance(tree, str) else json.dumps(tree)
    header = {"__metadata__": {"training_state": text, "crc32": str(zlib.crc32(text.encode()))}}
    data = b""
    for name, array in (arrays or {}).items():
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    blob = json.dumps(header).encode()
    return struct.pack("<Q", len(blob)) + blob + data


def test_hostile_descriptions_are_errors(tmp_path):
    path = tmp_path / "state"
    x = np.ones(3, np.float32)
    row = {"$array": "x", "dtype": "float32", "crc32": zlib.crc32(x, zlib.crc32(b"float32 (3,)"))}
    path.write_bytes(forged({"a": row}, {"x": x}))
    assert same(load_training_state(path), {"a": x})
    for tree, arrays in (
        ([1], None),
        ("{", None),
        ("[" * 100_000, None),
        ('{"a":' * 100_000, None),
        ("9" * 5000, None),
        ({"a": row}, None),
        ({"a": row, "b": row}, {"x": x}),
        ({"a": 1}, {"x": x}),
        ({"a": row | {"dtype": "float64"}}, {"x": x}),
        ({"a": row | {"dtype": "float16"}}, {"x": x}),
        ({"a": row | {"dtype": ["float32"]}}, {"x": x}),
        ({"a": row | {"crc32": None}}, {"x": x}),
        ({"a": row | {"$array": ["x"]}}, {"x": x}),
        ({"a": row | {"$array": {}}}, {"x": x}),
        ({"a": {"$tuple": 3}}, None),
        ({"a": {"$dict": [[1]]}}, None),
        ({"a": {"$dict": [[[1], 2]]}}, None),
        ({"a": {"$dict": {"b": 1}}}, None),
    ):
        path.write_bytes(forged(tree, arrays))
        with pytest.raises(ValueError, match="state"):
            load_training_state(path)


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "file"
    save(path, {"x": np.ones(3)})
    with pytest.raises(ValueError, match="not a training state"):
        load_training_state(path)
    np.savez(tmp_path / "file.npz", x=np.ones(3))
    with pytest.raises(ValueError):
        load_training_state(tmp_path / "file.npz")
    with pytest.raises(FileNotFoundError):
        load_training_state(tmp_path / "missing")


# --- disks and kills


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on the size of files")
def test_a_full_disk_leaves_the_old_file(tmp_path, run_python):
    code = """
        import os, resource
        import numpy as np
        from lucid_c.checkpoints import load_training_state, save, save_training_state
        save_training_state("state", epoch=1, x=np.arange(1000.0))
        save("weights.safetensors", {"x": np.arange(1000.0)})
        size = os.path.getsize("weights.safetensors")
        for limit in (0, 10, 9000, 100_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            for call in (
                lambda: save_training_state("state", epoch=2, x=np.arange(1e5)),
                lambda: save("weights.safetensors", {"x": np.arange(1e5)}),
            ):
                try:
                    call()
                except OSError as error:
                    print(type(error).__name__)
                else:
                    raise AssertionError("written in spite of the limit")
        state = load_training_state("state")
        assert state["epoch"] == 1 and state["x"].tolist() == list(range(1000))
        assert os.path.getsize("weights.safetensors") == size
        print(sorted(os.listdir(".")))
    """
    lines = run_python(code).stdout.splitlines()
    assert lines == ["OSError"] * 8 + ["['state', 'weights.safetensors']"]


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "state"
    code = """
        import sys
        import numpy as np
        from lucid_c.checkpoints import save_training_state
        n = int(sys.argv[2])
        while True:
            n += 1
            save_training_state(sys.argv[1], n=n, x=np.full(300_000, n), y=np.full(3, n))
            print(n, flush=True)
    """
    rng = random.Random(1)
    seen = []
    last = 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path), str(last)],
            env=package_env(),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout.readline().strip() == str(last + 1)
            time.sleep(rng.uniform(0.0, 0.1))
        finally:
            child.kill()
        said = child.communicate()[0].split()
        state = load_training_state(path)
        last = state["n"]
        assert last >= int(said[-1] if said else seen[-1] + 1 if seen else 1)
        assert (state["x"] == last).all() and state["x"].size == 300_000
        assert state["y"].tolist() == [last] * 3
        seen.append(last)
    assert seen[-1] >= 5
    # what kills left behind goes when it is old enough
    (tmp_path / ".other.0123456789abcdef.tmp").touch()
    leftovers = [each for each in tmp_path.iterdir() if each.name.startswith(".")]
    for each in leftovers:
        os.utime(each, (time.time() - 4000,) * 2)
    fresh = tmp_path / ".state.0123456789abcdef.tmp"
    fresh.touch()
    save_training_state(path, n=0)
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"state", fresh.name, ".other.0123456789abcdef.tmp"}


# --- random numbers


def test_random_state():
    lucid_c.random.seed(2**64 + 5)
    lucid_c.random.randn(3)
    state = lucid_c.random.get_state()
    assert state == {"seed": 5, "stream": 1}
    a, layer = lucid_c.random.randn(4).numpy(), nn.Linear(3, 2).weight.numpy()
    lucid_c.random.seed(7)
    lucid_c.random.set_state(json.loads(json.dumps(state)))
    np.testing.assert_array_equal(lucid_c.random.randn(4), a)
    np.testing.assert_array_equal(nn.Linear(3, 2).weight, layer)
    before = lucid_c.random.get_state()
    for bad in (
        None,
        {},
        {"seed": 1},
        {"seed": 1, "stream": -1},
        {"seed": 1.0, "stream": 1},
        {"seed": 2**64, "stream": 0},
        {"seed": True, "stream": 0},
        {"seed": 1, "stream": 1, "more": 1},
    ):
        with pytest.raises(ValueError):
            lucid_c.random.set_state(bad)
    assert lucid_c.random.get_state() == before
