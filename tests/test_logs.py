# SPDX-License-Identifier: MIT
"""CSV files, and TensorBoard's event files read back by an independent parser."""

import csv
import math
import struct
import threading
import time

import numpy as np
import pytest

import lucid_c
from lucid_c.logs import CSVLogger, TensorBoardLogger, crc32c


def test_attributes_of_the_package():
    assert lucid_c.logs.CSVLogger is CSVLogger
    assert lucid_c.data.augment.mixup is lucid_c.data.mixing.mixup


# --- CSV ---


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv(tmp_path):
    path = tmp_path / "run" / "log.csv"
    with CSVLogger(path) as log:
        log.log({"loss": 6.25, 'a "name", with': np.float32(0.5)}, step=1)
        assert [row["loss"] for row in read(path)] == ["6.25"]  # at once
        log.log({"loss": math.nan}, step=2)
        log.log({'a "name", with': -math.inf, "loss": 1e-30}, step=3)
    rows = read(path)
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["loss"] for row in rows] == ["6.25", "nan", "1e-30"]
    assert [row['a "name", with'] for row in rows] == ["0.5", "", "-inf"]
    assert all(float(row["seconds"]) >= 0 for row in rows)


def test_csv_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "log.csv"
    log = CSVLogger(path)
    log.log({"loss": 1}, 1)
    before = path.read_bytes()
    for values, error, text in [
        ({"loss": 1, "new": 2}, ValueError, "no column 'new'"),
        ({"loss": "much"}, TypeError, "loss must be a number"),
        ({"step": 1}, ValueError, "'step'"),
        ({3: 1}, TypeError, "3"),
    ]:
        with pytest.raises(error, match=text):
            log.log(values, 2)
    assert path.read_bytes() == before
    log.close()


def test_csv_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    with CSVLogger(path, append=True) as log:
        log.log({"loss": 1, "\u00e9": 5}, 1)
    with open(path, "a") as file:
        file.write("2,0.1")  # a line cut off by a crash
    with CSVLogger(path, append=True) as log:
        log.log({"loss": 3}, 3)
        with pytest.raises(ValueError, match="'other'"):
            log.log({"other": 3}, 3)
    assert [(row["step"], row["loss"], row["\u00e9"]) for row in read(path)] == [
        ("1", "1.0", "5.0"),
        ("3", "3.0", ""),
    ]
    with CSVLogger(path) as log:
        log.log({"new": 1}, 1)
    assert len(read(path)) == 1
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a file of a CSVLogger"):
        CSVLogger(path, append=True)
    assert path.read_text() == "a,b\n1,2\n"


# --- TensorBoard ---


def slow_crc32c(data):
    """Bit by bit, as polynomial division: 0x1EDC6F41, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            carry = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (int(f"{0x1EDC6F41:032b}"[::-1], 2) if carry else 0)
    return crc ^ 0xFFFFFFFF


def unmask(stored):
    value = (stored - 0xA282EAD8) % (1 << 32)
    return (value >> 17 | value << 15) % (1 << 32)


def records(path):
    data = path.read_bytes()
    while data:
        length, crc = struct.unpack_from("<QI", data)
        assert unmask(crc) == slow_crc32c(data[:8])
        record = data[12 : 12 + length]
        assert unmask(struct.unpack_from("<I", data, 12 + length)[0]) == slow_crc32c(record)
        data = data[16 + length :]
        yield record


def fields(data):
    """(number, value) of the fields of a protobuf message."""
    position = 0

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, data[position : position + size]
        position += size


def scalars(path):
    """[(step, tag, value)] and the version, read without protobuf."""
    first, *rest = [list(fields(record)) for record in records(path)]
    found = []
    for event in rest:
        event = dict(event)
        assert abs(struct.unpack("<d", event[1])[0] - time.time()) < 60
        step = event[2] - (1 << 64 if event[2] >> 63 else 0)
        for number, value in fields(event[5]):
            assert number == 1
            value = dict(fields(value))
            found.append((step, value[1].decode(), struct.unpack("<f", value[2])[0]))
    return found, dict(first)[3]


def events_of(folder):
    (path,) = folder.glob("events.out.tfevents.*")
    return path


LOGGED = [
    (0, {"loss/train": 6.5, "top1": 0.25}),
    (1, {"loss/train": -1e-3}),
    (300, {"\u00e9" * 100: 1e30, "top1": math.inf}),
    (1 << 40, {"big": 1e300}),
    (-5, {"top1": math.nan}),
    (7, {}),
]


def test_tensorboard_by_an_independent_parser(tmp_path):
    with TensorBoardLogger(tmp_path / "run") as log:
        for step, values in LOGGED:
            log.log(values, step)
    found, version = scalars(events_of(tmp_path / "run"))
    assert version == b"brain.Event:2"
    with np.errstate(over="ignore"):
        expected = [
            (step, name, float(np.float32(value)))
            for step, values in LOGGED
            for name, value in values.items()
        ]
    np.testing.assert_equal(found, expected)


def test_tensorboard_by_tensorboard(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with TensorBoardLogger(tmp_path) as log:
        log.log({"loss": 2.5, "top1": 0.125}, 3)
        log.log({"loss": 1.5}, 4)
    accumulator = loader.EventAccumulator(str(tmp_path)).Reload()
    assert accumulator.Tags()["scalars"] == ["loss", "top1"]
    assert [(e.step, e.value) for e in accumulator.Scalars("loss")] == [(3, 2.5), (4, 1.5)]
    assert [(e.step, e.value) for e in accumulator.Scalars("top1")] == [(3, 0.125)]


def test_two_loggers_in_one_folder_and_threads(tmp_path):
    logs = [TensorBoardLogger(tmp_path), TensorBoardLogger(tmp_path)]
    assert logs[0].path != logs[1].path
    jobs = [
        threading.Thread(target=lambda t=t: [logs[0].log({"x": t}, i) for i in range(50)])
        for t in range(4)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    for log in logs:
        log.close()
    paths = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    assert len(scalars(paths[1])[0]) == 200 and scalars(paths[0])[0] == []


def test_bad_scalars(tmp_path):
    with TensorBoardLogger(tmp_path) as log:
        for values, step, error in [
            ({"x": "much"}, 1, TypeError),
            ({"": 1}, 1, TypeError),
            ({"x": 1}, 1 << 63, ValueError),
            ({"x": 1}, 0.5, TypeError),
        ]:
            with pytest.raises(error):
                log.log(values, step)
    assert scalars(events_of(tmp_path))[0] == []


def test_crc32c():
    """Vectors of RFC 3720, appendix B.4, and the usual check value."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0
