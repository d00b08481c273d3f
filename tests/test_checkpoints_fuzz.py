# SPDX-License-Identifier: MIT
"""Truncated and randomly damaged files: an error that names the file, or a result; no other."""

import io
import pickle
import random
import zipfile

import numpy as np
import pytest

from checkpoint_files import (
    LEGACY_MAGIC,
    Call,
    Global,
    code,
    legacy_of,
    pickled,
    safetensors,
    storage,
    tensor,
    tensors_of,
    torch_zip,
    weights,
)
from lucid_c import checkpoints

PLACE = storage("0", 4)
ZEROS = {"0": np.zeros(4, np.float32).tobytes()}


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "file.pth"
        path.write_bytes(data)
        return path

    return write


def seeds():
    w = weights()
    tree, data = tensors_of(w)
    nested = {"state_dict": tree, "epoch": 3, "args": Call(Global("argparse", "Namespace"))}
    npz = io.BytesIO()
    np.savez_compressed(npz, **w)
    header, position = {}, 0
    for name, array in w.items():
        end = position + array.nbytes
        row = {"dtype": "F32", "shape": array.shape, "data_offsets": [position, end]}
        header[name], position = row, end
    return {
        "zip": torch_zip(nested, data),
        "deflated": torch_zip(nested, data, zipfile.ZIP_DEFLATED),
        "legacy": legacy_of(w, lambda tree: {"state_dict": tree}),
        "arrays": pickle.dumps(w, 4),
        "npz": npz.getvalue(),
        "safetensors": safetensors(header, b"".join(a.tobytes() for a in w.values())),
    }


SEEDS = seeds()


@pytest.mark.parametrize("name", SEEDS)
def test_truncated_everywhere(write, name):
    data = SEEDS[name]
    assert checkpoints.load(write(data))
    for length in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(ValueError):
            checkpoints.load(write(data[:length]))


def test_truncated_real_checkpoint(write, outside_data):
    data = (outside_data / "checkpoints" / "resnet20-12fca82f.th").read_bytes()
    for length in [*range(97, 20_000, 97 * 7), len(data) // 2, len(data) - 1]:
        with pytest.raises(ValueError):
            checkpoints.load(write(data[:length]))


def mutate(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        kind, at = rng.randrange(5), rng.randrange(len(data))
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"))
        elif kind == 3:
            del data[at : at + rng.randrange(1, 9)]
        else:
            start = rng.randrange(len(data))
            data[at:at] = data[start : start + rng.randrange(1, 30)]
    return bytes(data)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged(write, name):
    rng = random.Random(name)
    outcomes = set()
    for _ in range(600):
        path = write(mutate(SEEDS[name], rng))
        for full in (False, True):
            try:
                checkpoints.load(path, full)
                outcomes.add("loaded")
            except ValueError as error:
                assert str(path) in str(error)
                outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}


def pieces():
    """Opcodes, and short runs of them that make something."""
    dtype = Call(Global("numpy", "dtype"), "f4", False, True, state=(3, "<", None))
    known = {
        "torch._utils": ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"),
        "numpy.core.multiarray": ("_reconstruct", "scalar"),
        "builtins": ("set", "eval", "complex"),
        "collections": ("OrderedDict", "defaultdict"),
        "_codecs": ("encode",),
    }
    values = (0, 1, "a", (), (1, 2), [], {}, None, 2.5, b"x", PLACE, dtype, tensor(PLACE, (4,)))
    useful = [code(value) for value in values]
    useful += [code(Global(module, name)) for module in known for name in known[module]]
    useful += [b"q\0", b"h\0"] * 2
    useful += [bytes([opcode]) for opcode in b"Rb\x85(tusaeo}]\x8f\x81Q"] * 2
    return [bytes([i]) for i in range(256)] + useful, useful


def test_random_opcodes(write):
    anything, useful = pieces()
    rng = random.Random(4)
    for i in range(1500):
        body = b"".join(rng.choice(useful if i % 8 else anything) for _ in range(i % 40))
        data = b"\x80\x02" + body + b"."
        path = write(torch_zip(data, ZEROS) if i % 3 else pickled(LEGACY_MAGIC) + data)
        try:
            checkpoints.load(path, full=True)
        except ValueError as error:
            assert str(path) in str(error)
