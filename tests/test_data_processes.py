# SPDX-License-Identifier: MIT
"""Worker processes: the same batches, errors that cross over, nothing left behind."""

import errno
import gc
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest

from data_samples import Awkwards, Deadly, Numbers, Unfit, add_noise, as_list, to_object
from lucid_c.data import DataLoader, SkippedSampleWarning, _processes
from lucid_c.data._work import Failure, Share

SHARED = Path("/dev/shm")


def blocks():
    return {path.name for path in SHARED.glob("lc*")} if SHARED.exists() else set()


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = blocks()
    yield
    gc.collect()
    assert multiprocessing.active_children() == [] and blocks() <= before


def loader(dataset, batch_size=4, **options):
    return DataLoader(dataset, batch_size, worker_kind="process", **options)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_batches(workers):
    """Noise, random order, samples to skip, resuming: as without workers."""
    options = {"transform": add_noise, "shuffle": True, "on_error": "skip", "seed": 3}
    dataset = Numbers(22, {5: OSError("broken"), 6: ValueError("bad")})
    with pytest.warns(SkippedSampleWarning):
        expected = list(DataLoader(dataset, 4, workers=0, **options))
    ours = loader(dataset, workers=workers, **options)
    with pytest.warns(SkippedSampleWarning) as warned:
        found = list(ours)
    texts = {str(warning.message) for warning in warned}
    assert "sample 5 (number-5) is skipped: OSError: broken" in texts and len(texts) == 2
    assert ours.skipped == {5: "OSError: broken", 6: "ValueError: bad"}
    for (images, labels), (theirs, others) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, theirs)
        np.testing.assert_array_equal(labels, others)
        assert images.flags.writeable and images.dtype == np.float64


def test_an_error_comes_with_its_batch_and_traceback():
    iterator = iter(loader(Awkwards(12), workers=2))
    assert next(iterator)[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="Awkward: 1 and 2") as caught:
        next(iterator)
    notes = "\n".join(caught.value.__notes__)
    assert "in a worker process" in notes and "data_samples.py" in notes and "sample 6" in notes


def test_what_is_no_array_crosses_over_too():
    found = list(loader(Numbers(3), workers=1, transform=to_object, collate=as_list))
    assert found == [[({"value": float(i)}, i) for i in range(3)]]


def test_an_iterator_dropped_early():
    iterator = iter(loader(Numbers(1000), 2, workers=2, prefetch=8))
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    del iterator
    assert multiprocessing.active_children() == []


def test_ctrl_c_is_left_to_the_parent():
    """A terminal sends it to all processes of its group."""
    iterator = iter(loader(Numbers(12), 4, workers=2, prefetch=1))
    next(iterator)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)
    assert [labels.tolist() for _, labels in iterator] == [[4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_worker_that_dies():
    iterator = iter(loader(Deadly(20), 2, workers=2))
    assert next(iterator)[1].tolist() == [0, 1]
    with pytest.raises(RuntimeError, match=r"worker process 1 ended unexpectedly \(signal SIGKILL"):
        next(iterator)


def test_what_cannot_be_sent():
    with pytest.raises(TypeError, match=r"pickled \(no lambda.*worker_kind='thread'"):
        iter(loader(Numbers(4), transform=lambda image: image))
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        next(iter(loader(Unfit(4), workers=1)))


def test_pack_and_unpack():
    """Every dtype and shape, in one block, which is gone afterwards."""
    images = [
        np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1],
        np.zeros((0, 3), np.float32),
        np.float64(3.5) * np.ones(()),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array([1 + 2j, 3]),
        np.array([{"an": "object"}]),
        "no array",
    ]
    share = Share([(image, i) for i, image in enumerate(images)], [])
    share.failures.append(Failure(7, "there", OSError(2, "gone"), False))
    name = f"lctest{os.getpid()}"
    packed = pickle.loads(pickle.dumps(_processes.pack(share, name)))
    assert packed.block == name and len(pickle.dumps(packed.samples)) < 300
    result = _processes.unpack(packed)
    assert [label for _, label in result.samples] == list(range(7))
    for (found, _), image in zip(result.samples, images, strict=True):
        if isinstance(image, str):
            assert found == image
        else:
            np.testing.assert_array_equal(found, image)
            assert found.dtype == image.dtype and found.shape == image.shape
    failure = result.failures[0]
    assert failure.index == 7 and failure.error.args == (2, "gone") and failure.where == "there"
    with pytest.raises(FileNotFoundError):
        _processes.unpack(packed)
    assert _processes.pack(Share(), name).block is None


@pytest.mark.skipif(not SHARED.exists(), reason="no /dev/shm")
def test_full_shared_memory_is_an_error(monkeypatch):
    """Instead of SIGBUS when the memory is written."""

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    share = Share([(np.ones(1000), 0)])
    with pytest.raises(OSError, match="8000 bytes.*No space left.*/dev/shm larger"):
        _processes.pack(share, f"lctest{os.getpid()}")


@pytest.mark.skipif(not SHARED.exists(), reason="no /dev/shm")
def test_blocks_of_ended_workers_are_removed():
    name = f"lctest{os.getpid()}"
    _processes.remove_block(name)  # none there
    _processes.pack(Share([(np.ones(1000), 0)]), name)
    assert name in blocks()
    _processes.remove_block(name)
    (SHARED / name).touch()  # ended before it had a size
    _processes.remove_block(name)
    assert name not in blocks()
