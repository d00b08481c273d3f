# SPDX-License-Identifier: MIT
"""Checkpoints made byte by byte, so that their tests need no PyTorch and can be hostile."""

import io
import json
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state


class Pid:
    def __init__(self, *parts):
        self.parts = parts


class Raw:
    """Opcodes as they stand."""

    def __init__(self, code):
        self.code = code


def code(value):
    """Opcodes (protocol 2 and a few of 4) that leave `value` on the stack."""
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Pid):
        return code(value.parts) + b"Q"
    if isinstance(value, Call):
        state = b"" if value.state is None else code(value.state) + b"b"
        return code(value.function) + code(tuple(value.args)) + b"R" + state
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(code, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(code(k) + code(v) for k, v in value.items()) + b"u"
    raise TypeError(value)


def pickled(value):
    return b"\x80\x02" + code(value) + b"."


def storage(key, numel, kind="FloatStorage"):
    return Pid("storage", Global("torch", kind), key, "cpu", numel)


def tensor(place, shape, strides=None, offset=0):
    """A pickled tensor over the storage `place`."""
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    hooks = Call(Global("collections", "OrderedDict"))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, place, offset, tuple(shape), tuple(strides), False, hooks)


def tensors_of(arrays, kind="FloatStorage"):
    """Pickled tensors for `arrays`, and the bytes of their storages."""
    tree, data = {}, {}
    for index, (name, array) in enumerate(arrays.items()):
        tree[name] = tensor(storage(str(index), array.size, kind), array.shape)
        data[str(index)] = np.ascontiguousarray(array).tobytes()
    return tree, data


def torch_zip(tree, data, compression=zipfile.ZIP_STORED, root="archive/", extra=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(root + "data.pkl", tree if isinstance(tree, bytes) else pickled(tree))
        archive.writestr(root + "byteorder", b"little")
        for key, value in data.items():
            archive.writestr(f"{root}data/{key}", value)
        for name, value in extra:
            archive.writestr(name, value)
    return file.getvalue()


def torch_legacy(tree, data, sizes, system=None, keys=None, version=1001):
    """A file of the form before zip; `sizes` are the numbers of elements."""
    system = {"little_endian": True, "protocol_version": 1001} if system is None else system
    parts = [pickled(LEGACY_MAGIC), pickled(version), pickled(system), pickled(tree)]
    parts.append(pickled(sorted(data) if keys is None else keys))
    for key in sorted(data):
        parts += [struct.pack("<q", sizes[key]), data[key]]
    return b"".join(parts)


def legacy_of(arrays, wrap=lambda tree: tree):
    tree, data = tensors_of(arrays)
    return torch_legacy(wrap(tree), data, {key: len(value) // 4 for key, value in data.items()})


def safetensors(header, data=b"", pad=True):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def weights(seed=0):
    """A few arrays of the kinds that a network has."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv1.weight": (4, 3, 3, 3),
        "bn1.weight": (4,),
        "bn1.bias": (4,),
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


class Slot:
    def __init__(self, shape):
        self.shape = shape


class FakeModel:
    """The part of a model that loading uses."""

    def __init__(self, shapes):
        self.shapes = shapes
        self.values = None

    def _state_slots(self):
        return {name: Slot(shape) for name, shape in self.shapes.items()}

    def _fresh(self, names):
        return {name: np.empty(self.shapes[name], np.float32) for name in names}

    def _commit(self, arrays):
        for name, array in arrays.items():
            assert array.dtype == np.float32 and array.flags.c_contiguous
            assert array.shape == self.shapes[name]
        self.values = arrays


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def refuse(path, match=None, full=True, seconds=5.0, megabytes=30):
    """Loading raises ValueError, within bounds of time and memory."""
    from lucid_c.checkpoints import load

    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            load(path, full=full)
        assert time.process_time() - started < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and len(str(caught.value)) < 2000
