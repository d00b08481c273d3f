# SPDX-License-Identifier: MIT
"""Broken and hostile files: an error in little time and memory, and no code is ever run."""

import pickle
import sys
import time
import zipfile

import numpy as np
import pytest

from checkpoint_files import (
    Call,
    FakeModel,
    Global,
    Pid,
    Raw,
    code,
    pickled,
    refuse,
    storage,
    tensor,
    tensors_of,
    torch_legacy,
    torch_zip,
    weights,
)
from lucid_c import checkpoints


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "file.pth"
        path.write_bytes(data)
        return path

    return write


ZEROS = {"0": np.zeros(4, np.float32).tobytes()}


# Code in the file.


def touch(path):
    return f"touch {path}"


CALLS = {
    "system": lambda p: Call(Global("os", "system"), touch(p)),
    "posix": lambda p: Call(Global("posix", "system"), touch(p)),
    "eval": lambda p: Call(Global("builtins", "eval"), f"open({str(p)!r}, 'w')"),
    "python 2 eval": lambda p: Call(Global("__builtin__", "eval"), f"open({str(p)!r}, 'w')"),
    "exec": lambda p: Call(Global("builtins", "exec"), f"open({str(p)!r}, 'w')"),
    "getattr": lambda p: Call(
        Call(Global("builtins", "getattr"), Global("os", "path"), "os"), touch(p)
    ),
    "attribute by name": lambda p: Call(Global("collections", "OrderedDict.os.system"), touch(p)),
    "state": lambda p: Call(Global("x", "Y"), state={"__setstate__": Global("os", "system")}),
    "open": lambda p: Call(Global("io", "open"), str(p), "w"),
    "load": lambda p: Call(
        Global("torch.storage", "_load_from_bytes"),
        pickled(Call(Global("os", "system"), touch(p))),
    ),
    "rebuild": lambda p: Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        Global("os", "system"),
        Global("os", "system"),
        (touch(p),),
        {},
    ),
    "default factory": lambda p: Call(Global("collections", "defaultdict"), Global("os", "abort")),
    "new object": lambda p: Raw(code(Global("os", "system")) + code((touch(p),)) + b"\x81"),
    "new object with keywords": lambda p: Raw(
        code(Global("os", "system")) + code((touch(p),)) + code({}) + b"\x92"
    ),
    "stack global": lambda p: Raw(code("os") + code("system") + b"\x93" + code((touch(p),)) + b"R"),
    "instance": lambda p: Raw(b"(" + code(touch(p)) + b"ios\nsystem\n"),
    "object": lambda p: Raw(b"(" + code(Global("os", "system")) + code(touch(p)) + b"o"),
    "import": lambda p: Global("a_module_that_writes", "thing"),
    "reconstructor": lambda p: Call(
        Global("copyreg", "_reconstructor"), Global("os", "system"), Global("x", "y"), touch(p)
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_nothing_is_run(tmp_path, monkeypatch, name, form):
    mark = tmp_path / "mark"
    (tmp_path / "a_module_that_writes.py").write_text(f"open({str(mark)!r}, 'w')\nthing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    tree, data = tensors_of(weights())
    tree["evil"] = CALLS[name](mark)
    if form == "zip":
        blob = torch_zip(tree, data)
    elif form == "legacy":
        sizes = {key: len(value) // 4 for key, value in data.items()}
        blob = torch_legacy(tree, data, sizes)
    else:
        blob = pickled({"evil": tree["evil"]})
    path = tmp_path / "file.pth"
    path.write_bytes(blob)
    loaded = checkpoints.load(path, full=True)
    if name != "default factory":
        assert isinstance(loaded["evil"], checkpoints.Placeholder)
    if form != "pickle":
        # and the weights beside it can be had
        model = FakeModel({key: array.shape for key, array in weights().items()})
        checkpoints.load_into(model, path)
    assert not mark.exists() and "a_module_that_writes" not in sys.modules


def test_the_same_files_do_run_in_pickle(tmp_path):
    # so the test above can fail
    mark = tmp_path / "mark"
    pickle.loads(pickled(CALLS["system"](mark)))
    assert mark.exists()


def test_extension_opcodes_are_refused(write):
    for opcode in (b"\x82\x01", b"\x83\x01\0", b"\x84\x01\0\0\0", b"P0\n", b"\x97", b"\x98"):
        refuse(write(b"\x80\x02N" + opcode + b"."), "unsupported pickle opcode")


# Tensors that lie.

REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
V3 = Global("torch._utils", "_rebuild_tensor_v3")
FLOAT32 = Global("torch", "float32")
PLACE = storage("0", 4)
LIES = {
    "too many elements": (tensor(PLACE, (5,)), "outside its storage"),
    "offset beyond": (tensor(PLACE, (4,), offset=1), "outside its storage"),
    "negative offset": (tensor(PLACE, (2,), offset=-1), "offset"),
    "strides beyond": (tensor(PLACE, (2, 2), (3, 1)), "outside its storage"),
    "negative strides": (tensor(PLACE, (4,), (-1,)), "strides"),
    "negative size": (tensor(PLACE, (-4,)), "shape"),
    "giant size": (tensor(PLACE, (1 << 47,), (1,)), "outside its storage"),
    "size beyond 64 bits": (tensor(PLACE, (1 << 70,), (1,)), "shape"),
    "sizes that overflow": (tensor(PLACE, (1 << 32, 1 << 32), (0, 1)), "outside its storage"),
    "size of a float": (tensor(PLACE, (2.0,), (1,)), "shape"),
    "size of a bool": (tensor(PLACE, (True,), (1,)), "shape"),
    "many axes": (tensor(PLACE, (1,) * 40, (1,) * 40), "shape"),
    "strides missing": (tensor(PLACE, (2, 2), (1,)), "do not agree"),
    "storage missing": (Call(REBUILD, 5, 0, (1,), (1,), False, None), "without a storage"),
    "arguments missing": (Call(REBUILD, PLACE), "arguments"),
    "number of arguments": (Call(REBUILD, *[PLACE] * 9), "arguments"),
    "v3 without a type": (Call(V3, PLACE, 0, (1,), (1,), 0, None, "f4"), "data type"),
    "v3 outside": (
        Call(V3, storage("0", 15, "UntypedStorage"), 3, (1,), (1,), 0, None, FLOAT32),
        "outside its storage",
    ),
    "nested types": (
        Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            Global("torch._tensor", "_rebuild_from_type_v2"),
            None,
            (),
            None,
        ),
        "nested",
    ),
    "giant storage": (tensor(storage("0", 1 << 47), (1,)), "storage '0'"),
    "storage beyond 64 bits": (tensor(storage("0", 1 << 90), (1,)), "sensible size"),
    "negative storage": (tensor(storage("0", -1), (1,)), "sensible size"),
    "another type of storage": (
        tensor(storage("0", 4, "DoubleStorage"), (4,)),
        "storage '0'|truncated",
    ),
    "storage key a tuple": (tensor(storage((1,), 4), (4,)), "without a key"),
    "long storage key": (tensor(storage("0" * 1000, 4), (4,)), "without a key"),
    "storage without a class": (tensor(Pid("storage", 5, "0", "cpu", 4), (4,)), "without a type"),
    "persistent id of text": (Raw(code("storage") + b"Q"), "persistent id"),
    "short persistent id": (
        Pid(
            "storage",
        ),
        "persistent id",
    ),
}


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("form", ["zip", "deflated", "legacy"])
def test_lying_tensors(write, name, form):
    value, message = LIES[name]
    tree = {"x": value}
    if form == "legacy":
        data = torch_legacy(tree, ZEROS, {"0": 4})
    else:
        kind = zipfile.ZIP_STORED if form == "zip" else zipfile.ZIP_DEFLATED
        data = torch_zip(tree, ZEROS, kind)
    refuse(write(data), message)


@pytest.mark.parametrize("key", ["9", "../data.pkl", "/etc/passwd", "..", "", "0\0", "a/b"])
def test_storage_keys_are_no_paths(write, key):
    refuse(write(torch_zip({"x": tensor(storage(key, 4), (4,))}, ZEROS)), "no member")


def test_repeated_storage_takes_no_memory(write):
    tree = {"x": tensor(PLACE, (1 << 40,), (0,))}
    path = write(torch_zip(tree, ZEROS))
    refuse(path, "repeats a storage", full=False)
    assert isinstance(checkpoints.load(path, full=True)["x"], checkpoints.Placeholder)
    with pytest.raises(ValueError, match="repeats a storage"):
        checkpoints.load_into(FakeModel({"x": (1 << 40,)}), path)


def test_many_views_of_one_storage_take_no_memory(write):
    count = 1 << 20
    place = storage("0", count)
    tree = {str(i): tensor(place, (count - i,)) for i in range(200)}
    data = torch_zip(tree, {"0": bytes(4 * count)})
    refuse(write(data), "share memory", full=False, megabytes=120)


LEGACY_LIES = {
    "magic": (pickled(5) + pickled(1001), "no mapping"),
    "version": (torch_legacy({}, {}, {}, version=1002), "version"),
    "big-endian": (torch_legacy({}, {}, {}, system={"little_endian": False}), "big-endian"),
    "no system": (torch_legacy({}, {}, {}, system=[]), "big-endian"),
    "keys no list": (torch_legacy({}, {}, {}, keys={}), "list of storages"),
    "storage unused": (torch_legacy({}, ZEROS, {"0": 4}), "no tensor uses"),
    "storage missing": (torch_legacy({"x": tensor(PLACE, (4,))}, {}, {}), "not in the file"),
    "storage twice": (
        torch_legacy({"x": tensor(PLACE, (4,))}, ZEROS, {"0": 4}, keys=["0", "0"]),
        "uses twice",
    ),
    "other size": (torch_legacy({"x": tensor(PLACE, (4,))}, ZEROS, {"0": 3}), "another size"),
    "two sizes": (
        torch_legacy(
            {"x": tensor(PLACE, (4,)), "y": tensor(storage("0", 3), (3,))}, ZEROS, {"0": 4}
        ),
        "two sizes",
    ),
    "unknown storage": (
        torch_legacy({"x": tensor(storage("0", 4, "QInt8Storage"), (4,))}, ZEROS, {"0": 4}),
        "torch.QInt8Storage",
    ),
    "view outside": (
        torch_legacy({"x": tensor(Pid(*PLACE.parts, ("v", 3, 2)), (2,))}, ZEROS, {"0": 4}),
        "view outside",
    ),
    "view of text": (
        torch_legacy({"x": tensor(Pid(*PLACE.parts, "v"), (2,))}, ZEROS, {"0": 4}),
        "a view of",
    ),
}


@pytest.mark.parametrize("name", LEGACY_LIES)
def test_lying_legacy_files(write, name):
    data, message = LEGACY_LIES[name]
    refuse(write(data), message, full=name != "magic")


# Pickles that are broken, deep or huge.

BROKEN_PICKLES = {
    "empty stack": b".",
    "pop of nothing": b"0.",
    "mark as a value": b"(.",
    "no mark": b"t.",
    "no mark in a list": b"]Ne.",
    "memo that is not there": b"h\x05.",
    "memo of a text": b"gx\n.",
    "memo of a giant text": b"g" + b"9" * 5000 + b"\n.",
    "no end": b"N",
    "unknown opcode": b"\xff.",
    "giant string": b"X\xff\xff\xff\xff.",
    "giant string 8": b"\x8d" + b"\xff" * 8 + b".",
    "giant bytes 8": b"\x8e" + b"\xff" * 7 + b"\x7f.",
    "giant bytearray": b"\x96" + b"\xff" * 7 + b"\x7f.",
    "negative string": b"T\xff\xff\xff\xff.",
    "giant integer": b"\x8b\xff\xff\xff\x7f.",
    "negative integer length": b"\x8b\xff\xff\xff\xff.",
    "long integer": b"\x8b\x10\x27\0\0" + b"\x01" * 10000 + b".",
    "long text integer": b"L" + b"9" * 900 + b"L\n.",
    "endless line": b"c" + b"a" * 5000,
    "not a number": b"Fabc\n.",
    "not an integer": b"Iabc\n.",
    "not text": b"X\x02\0\0\0\xff\xfe.",
    "string without quotes": b"Sabc\n.",
    "string with escapes": b"S'\\x41'\n.",
    "append to nothing": b"NNa.",
    "append to a dict": b"}Na.",
    "items of a list": b"](NNu.",
    "odd items": b"}(Nu.",
    "odd dict": b"(Nd.",
    "elements of a list": b"](N\x90.",
    "state of a number": b"K\x05}b.",
    "call of a number": b"K\x05)R.",
    "call of a text": b"X\x01\0\0\0a)R.",
    "call without a tuple": b"cos\nsystem\nNR.",
    "global without a name": b"NN\x93.",
    "object of nothing": b"(o.",
    "protocol 9": b"\x80\x09N.",
    "ordered dict of a number": b"ccollections\nOrderedDict\n(K\x05tR.",
    "ordered dict of triples": b"ccollections\nOrderedDict\n(](NNNtetR.",
    "set of a number": b"cbuiltins\nset\n(K\x05tR.",
    "two arguments of a set": b"cbuiltins\nset\n(]]tR.",
    "bytes beyond 255": b"c_codecs\nencode\n(X\x02\0\0\0\xc4\x80X\x06\0\0\0latin1tR.",
}


@pytest.mark.parametrize("name", BROKEN_PICKLES)
@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_broken_pickles(write, name, form):
    data = b"\x80\x02" + BROKEN_PICKLES[name]
    refuse(write(data if form == "pickle" else torch_zip(data, {})))


NESTINGS = {
    "lists": b"]" * 20_000 + b"a" * 19_999,
    "tuples": b")" + b"\x85" * 20_000,
    "dicts": b"}" + b"}(K\x01" * 10_000 + b"N" + b"u" * 10_000,
    "calls": b"cx\ny\nq\0" + b"(h\0" * 10_000 + b"o" * 10_000,
    "states": b"cx\ny\n" * 20_000 + b"b" * 19_999,
    "list of itself": b"]q\0h\0a",
    "dict of itself": b"}q\0K\x01h\0s",
    "tuple of itself": b"]q\0h\0\x85q\x01a",
    "memo bomb": b"]q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(200)),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_deep_pickles(write, name):
    refuse(write(b"\x80\x02" + NESTINGS[name] + b"."), "nested|tensors", megabytes=60)


def test_memo_bomb_is_shared_not_unfolded(write):
    parts = [b"}q\0"] + [b"}(K\x01h%cK\x02h%cuq%c" % (i, i, i + 1) for i in range(60)]
    value = checkpoints.load(write(b"\x80\x02" + b"".join(parts) + b"."), full=True)
    assert value[1] is value[2]


def test_keys_that_are_slow_to_hash(write):
    # a tuple of a tuple of a tuple ..., each twice: hashing would take 2^100 steps
    bomb = b"Nq\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(100))
    for use in (b"}h\x64Ns", b"\x8f(h\x64\x90", b"(h\x64\x91"):
        data = b"\x80\x02" + bomb + use + b"."
        started = time.process_time()
        loaded = checkpoints.open_checkpoint
        with pytest.raises(ValueError):
            loaded(write(data))
        assert time.process_time() - started < 2


def test_wrappers_of_wrappers(write):
    # each of 20 dicts holds the next under eight of the usual names: 8^20 ways through
    keys = ("model", "state_dict", "net", "network", "weights", "params", "module", "content")
    parts = [b"}q\0"]
    for i in range(20):
        parts.append(b"}(" + b"".join(code(key) + b"h%c" % i for key in keys) + b"uq%c" % (i + 1))
    loop = b"}q\0" + code("model") + b"h\0s"
    for data in (b"".join(parts), loop):
        refuse(write(b"\x80\x02" + data + b"."), "no tensors", full=False)


def test_keys_that_collide(write):
    prime = (1 << 61) - 1
    items = b"".join(code(prime * i) + b"N" for i in range(1, 60_000))
    started = time.process_time()
    checkpoints.load(write(b"\x80\x02}(" + items + b"u."), full=True)
    assert time.process_time() - started < 5


def calls_of(function, argument, count):
    return code(function) + b"q\0" + code((argument,)) + b"q\1" + b"h\0h\1R" * count


BOMBS = {
    "values": b"N" * 60_000,
    "marks": b"(" * 60_000,
    "sets": b"\x8f" * 6_000,
    "tuples": b")" + b"\x85" * 6_000,
    "globals": b"ca\nb\n" * 6_000,
    "dicts": calls_of(Global("collections", "OrderedDict"), {i: 0 for i in range(10_000)}, 5),
    "pairs": calls_of(Global("collections", "OrderedDict"), [(1, 2)] * 2_000, 20),
    "lists": calls_of(Global("builtins", "list"), [None] * 10_000, 5),
    "sizes": calls_of(Global("torch", "Size"), [None] * 10_000, 5),
    "bytes": calls_of(Global("_codecs", "encode"), "x" * 10_000, 0)
    + b"h\0"
    + code(("x" * 10_000, "latin1"))
    + b"q\2R"
    + b"h\0h\2R" * 5,
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_objects(write, monkeypatch, name):
    monkeypatch.setattr("lucid_c.checkpoints.pickle_machine.BUDGET", 50_000)
    refuse(write(b"\x80\x02" + BOMBS[name] + b"."), "too many objects")


def test_limit_of_objects_leaves_room_for_large_checkpoints(write):
    started = time.process_time()
    path = write(b"\x80\x02](" + b"N" * 1_000_000 + b"e.")
    assert len(checkpoints.load(path, full=True)) == 1_000_000
    assert time.process_time() - started < 10


ARRAY = Global("numpy.core.multiarray", "_reconstruct")
DTYPE = Global("numpy", "dtype")
F4 = Call(DTYPE, "f4", False, True, state=(3, "<", None, None, None, -1, -1, 0))


def array_of(*state):
    return Call(ARRAY, Global("numpy", "ndarray"), (0,), b"b", state=tuple(state))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (array_of(1, (1 << 40,), F4, False, b"1234"), "only 4 bytes"),
        (array_of(1, (-1,), F4, False, b"1234"), "shape"),
        (array_of(1, (2, 2), F4, False, b"1234"), "only 4 bytes"),
        (array_of(1, (1,), F4, False), "without its state"),
        (Call(ARRAY, 1), "arguments"),
        (
            Call(Global("numpy.core.numeric", "_frombuffer"), b"1234", F4, (1 << 40,), "C"),
            "only 4 bytes",
        ),
    ],
)
def test_lying_arrays(write, value, message):
    refuse(write(pickled({"x": value})), message)


@pytest.mark.parametrize("dtype", ["O", "f1", "f16", "V8", "U4", "M8[s]", "x" * 9999, 5])
def test_arrays_of_other_types_are_not_built(write, dtype):
    odd = Call(DTYPE, dtype, False, True, state=(3, "|", None, None, None, -1, -1, 63))
    value = {"x": array_of(1, (1,), odd, False, b"12345678"), "y": 1}
    path = write(pickled(value))
    assert isinstance(checkpoints.load(path, full=True)["x"], checkpoints.Placeholder)
    refuse(path, "ndarray of objects", full=False)
