# SPDX-License-Identifier: MIT
"""Batches: their order, resuming, errors, and workers that end."""

import gc
import json
import os
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest

from data_samples import Numbers, add_noise, as_list, two_sizes
from lucid_c.data import ArrayDataset, DataLoader, SkippedSampleWarning, stack
from lucid_c.transforms import EvalTransform


def batches(loader):
    return list(loader)


def labels_of(loader):
    return [labels.tolist() for _, labels in loader]


def same(a, b):
    assert len(a) == len(b)
    for (images, labels), (others, theirs) in zip(a, b, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, theirs)


def workers_alive():
    return [t.name for t in threading.enumerate() if t.name.startswith("lucid_c-data")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert workers_alive() == []


@pytest.fixture
def run_script(run_python, tmp_path):
    """Runs code as a file, which processes that it spawns can import."""

    def run(code, kind):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        command = (  # in a group of its own, which a terminal's Ctrl-C would reach as a whole
            "import subprocess, sys; "
            "sys.exit(subprocess.call(sys.argv[1:], start_new_session=True))"
        )
        folder = os.path.dirname(__file__)
        return run_python(command, args=[sys.executable, path, folder, kind])

    return run


# --- order and random numbers ---


def test_in_order():
    loader = DataLoader(Numbers(7), 3)
    assert len(loader) == 3 and labels_of(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    images, labels = batches(loader)[1]
    assert images.dtype == np.float32 and images.shape == (3, 2, 3) and labels.dtype == np.int64
    np.testing.assert_array_equal(images[:, 1, 2], [3, 4, 5])
    assert images.flags.writeable and images.flags.c_contiguous
    whole = DataLoader(Numbers(7), 3, drop_last=True)
    assert len(whole) == 2 and labels_of(whole) == [[0, 1, 2], [3, 4, 5]]
    assert labels_of(DataLoader(Numbers(2), 5, workers=4)) == [[0, 1]]


def test_every_epoch_has_its_own_order():
    loader = DataLoader(Numbers(50), 8, shuffle=True, seed=1)
    epochs = [sum(labels_of(loader), []) for _ in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] and loader.epoch == 3
    loader.set_epoch(1)
    assert sum(labels_of(loader), []) == epochs[1] and loader.epoch == 2
    again = DataLoader(Numbers(50), 5, shuffle=True, seed=1)
    assert sum(labels_of(again), []) == epochs[0]
    other = DataLoader(Numbers(50), 8, shuffle=True, seed=2)
    assert sum(labels_of(other), []) != epochs[0]


def test_orders_are_uniform():
    """Each sample comes to each place about equally often."""
    counts = np.zeros((4, 4), int)
    loader = DataLoader(Numbers(4), 4, shuffle=True, workers=0)
    for _ in range(400):
        counts[np.arange(4), labels_of(loader)[0]] += 1
    assert counts.min() > 60 and counts.max() < 140


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_do_not_matter(workers, shuffle):
    def epochs(workers, sleeps=None, **options):
        dataset = Numbers(23, sleeps=sleeps)
        loader = DataLoader(
            dataset, 5, shuffle, transform=add_noise, workers=workers, seed=3, **options
        )
        return batches(loader) + batches(loader)

    expected = epochs(0)
    sleeps = dict(enumerate(np.random.default_rng(workers).random(23) * 0.004))
    same(epochs(workers, sleeps, prefetch=1 + workers), expected)
    images = np.concatenate([images for images, _ in expected])
    assert len(np.unique(images)) == images.size  # no two samples, no two epochs alike


def test_random_numbers_depend_on_seed_epoch_and_index_alone():
    def noise(batch_size, shuffle, seed=5, epoch=0):
        loader = DataLoader(
            Numbers(10), batch_size, shuffle, transform=add_noise, seed=seed, workers=1
        )
        loader.set_epoch(epoch)
        pairs = [pair for images, labels in loader for pair in zip(labels, images, strict=True)]
        return np.stack([image for _, image in sorted(pairs, key=lambda pair: pair[0])])

    first = noise(3, True)
    np.testing.assert_array_equal(first, noise(10, False))
    assert not np.any(first == noise(3, True, seed=6))
    assert not np.any(first == noise(3, True, epoch=1))
    alone = first - np.arange(10)[:, None, None]
    assert len(np.unique(alone.round(9))) == alone.size


def test_a_transform_without_rng():
    picture = pytest.importorskip("PIL.Image")
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), np.uint8)
    transform = EvalTransform(32)
    loader = DataLoader(ArrayDataset(images, range(4)), 4, transform=transform)
    ((found, _),) = loader
    np.testing.assert_array_equal(found, transform.batch([picture.fromarray(i) for i in images]))


# --- resuming ---


@pytest.mark.parametrize("done", [0, 1, 3, 5, 7])
def test_resume(done):
    """After `done` batches of epoch 2, in another loader, with other workers."""

    def make(workers, prefetch):
        return DataLoader(
            Numbers(30),
            5,
            True,
            transform=add_noise,
            seed=9,
            workers=workers,
            prefetch=prefetch,
            collate=noisy_batch,
        )

    loader = make(0, 1)
    expected = [batches(loader) for _ in range(4)]
    first = make(2, 3)
    first.set_epoch(2)
    iterator = iter(first)
    read = [next(iterator) for _ in range(min(done, 6))]
    if done > 6:  # to the end of the epoch
        assert next(iterator, None) is None
    state = json.loads(json.dumps(first.state_dict()))
    iterator.close()
    second = make(1, 2)
    second.load_state_dict(state)
    assert second.state_dict() == state
    if done <= 6:
        second.set_epoch(2)  # as a training loop does: the place is kept
        same(read + batches(second), expected[2])
    same(batches(second), expected[3])
    assert second.epoch == 4


def noisy_batch(samples, rng):
    images, labels = stack(samples)
    return images + rng.random(), labels


def test_an_epoch_left_early_starts_again():
    loader = DataLoader(Numbers(12), 4, True)
    expected = labels_of(DataLoader(Numbers(12), 4, True))
    for _ in loader:
        break
    assert loader.epoch == 0 and loader.state_dict()["batch"] == 1
    assert labels_of(loader) == expected and loader.epoch == 1
    assert loader.state_dict()["batch"] == 0


def test_the_newest_iterator_decides_the_place():
    loader = DataLoader(Numbers(8), 2, workers=0)
    old, new = iter(loader), None
    next(old)
    new = iter(loader)
    next(new), next(new)
    next(old), next(old), next(old)
    assert next(old, None) is None
    assert (loader.epoch, loader.state_dict()["batch"]) == (0, 2)
    assert [labels.tolist() for _, labels in new] == [[4, 5], [6, 7]] and loader.epoch == 1


def test_a_state_that_does_not_fit_changes_nothing():
    loader = DataLoader(Numbers(10), 4, True, seed=3)
    loader.set_epoch(1)
    state = loader.state_dict()
    for change in (
        {"seed": 4},
        {"batch_size": 5},
        {"shuffle": False},
        {"drop_last": True},
        {"length": 11},
        {"batch": 4},
        {"batch": -1},
        {"epoch": -1},
        {"epoch": 1 << 32},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(change))}"):
            loader.load_state_dict({**state, "epoch": 7, **change})
        assert loader.state_dict() == state
    with pytest.raises(ValueError, match="'seed'"):
        loader.load_state_dict({name: state[name] for name in state if name != "seed"})
    with pytest.raises(TypeError, match="epoch"):
        loader.load_state_dict({**state, "epoch": "1"})
    assert loader.state_dict() == state


# --- errors ---


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_comes_with_its_batch(workers):
    errors = {7: ValueError("broken"), 8: OSError("unreadable"), 11: KeyError("later")}
    loader = DataLoader(Numbers(12, errors), 3, workers=workers)
    iterator = iter(loader)
    assert [next(iterator)[1].tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="broken") as caught:
        next(iterator)
    assert caught.value.__notes__ == ["sample 7 (number-7) of the dataset"]
    assert workers_alive() == [] and next(iterator, None) is None
    assert loader.epoch == 0 and loader.state_dict()["batch"] == 2


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_skip(workers):
    broken = [1, 4, 5, 6, 7]
    errors = {i: (ValueError, OSError)[i % 2](f"broken {i}") for i in broken}
    loader = DataLoader(Numbers(12, errors), 4, workers=workers, on_error="skip")
    with pytest.warns(SkippedSampleWarning) as warned:
        found = labels_of(loader)
    assert found == [[0, 2, 3], [8, 9, 10, 11]]  # the second batch is left out
    assert loader.skipped == {i: f"{type(e).__name__}: {e}" for i, e in errors.items()}
    texts = [str(w.message) for w in warned]
    assert texts[0] == "sample 1 (number-1) is skipped: OSError: broken 1" and len(texts) == 5
    assert warned[0].filename == __file__
    assert loader.epoch == 1


def test_skip_stops_where_nothing_can_be_read():
    errors = {i: OSError("gone") for i in range(8)}
    loader = DataLoader(Numbers(8, errors), 4, on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="no sample could be read; .*7: OSError: gone"):
            next(iter(loader))


@pytest.mark.parametrize("error", [TypeError("wrong"), MemoryError(), SystemExit(3)])
@pytest.mark.parametrize("workers", [0, 2])
def test_other_errors_are_never_skipped(error, workers):
    loader = DataLoader(Numbers(8, {5: error}), 4, workers=workers, on_error="skip")
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(type(error)):
        next(iterator)


def test_errors_of_the_transform_count_as_well():
    def transform(image, rng):
        if image[0, 0] == 2:
            raise OSError("truncated")
        return image

    loader = DataLoader(Numbers(4), 4, transform=transform, on_error="skip")
    with pytest.warns(SkippedSampleWarning, match="sample 2 .*truncated"):
        assert labels_of(loader) == [[0, 1, 3]]


def test_a_warning_made_an_error_ends_the_epoch():
    loader = DataLoader(Numbers(4, {1: OSError("x")}), 2, on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SkippedSampleWarning):
            next(iter(loader))


# --- batches from samples ---


def test_labels_of_other_kinds():
    images = np.zeros((4, 2), np.float32)
    soft = np.random.default_rng(0).random((4, 3))
    ((_, labels),) = DataLoader(ArrayDataset(images, soft), 4)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, soft.astype(np.float32))
    ((_, labels),) = DataLoader([(images[0], 0.5), (images[0], 2)], 2)
    assert labels.dtype == np.float32 and labels.tolist() == [0.5, 2]
    ((pixels, _),) = DataLoader(ArrayDataset(images.astype(np.uint8), [0] * 4), 4)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    "samples, error, text",
    [
        ([("x.jpg", 0)], TypeError, "arrays, not builtins.str.*transform"),
        ([(np.zeros(2), 0), (np.zeros(3), 0)], ValueError, r"\(2,\), float64 \(3,\).*resizes"),
        ([(np.zeros(2), 0), (np.zeros(2, int), 0)], ValueError, "int64"),
        ([(np.zeros(2), "cat")], TypeError, "labels.*'cat'"),
        ([(np.zeros(2), [1.0]), (np.zeros(2), [1.0, 2.0])], TypeError, "labels"),
        ([(np.zeros(2), None)], TypeError, "labels.*None"),
    ],
)
def test_what_does_not_stack(samples, error, text):
    with pytest.raises(error, match=text):
        batches(DataLoader(samples, 2, on_error="skip"))
    assert workers_alive() == []


def test_collate():
    assert batches(DataLoader(Numbers(3), 2, collate=as_list))[1][0][1] == 2
    with pytest.raises(ValueError, match="one shape and dtype"):
        batches(DataLoader(Numbers(8), 8, transform=two_sizes))

    def make(workers):
        return batches(DataLoader(Numbers(8), 3, workers=workers, collate=noisy_batch, seed=4))

    same(make(0), make(2))
    shifts = [float(images[0, 0, 0] - labels[0]) for images, labels in make(0)]
    assert len(set(shifts)) == 3 and all(0 <= shift < 1 for shift in shifts)


# --- workers ---


def test_the_workers_are_not_far_ahead():
    read = []

    class Watched(Numbers):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    iterator = iter(DataLoader(Watched(100), 4, workers=2, prefetch=3))
    assert read == []
    for done in (1, 2):
        next(iterator)
        due = list(range(4 * (done + 3)))  # while the caller works on its batch
        deadline = time.monotonic() + 10
        while sorted(read) != due and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert sorted(read) == due
    iterator.close()


def test_iterators_end_their_threads():
    loader = DataLoader(Numbers(100), 2, workers=3)
    iterator = iter(loader)
    next(iterator)
    assert len(workers_alive()) == 3
    del iterator
    assert workers_alive() == []

    iterator = iter(loader)
    next(iterator)
    iterator.close()
    iterator.close()
    assert workers_alive() == [] and next(iterator, None) is None

    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            1 / 0  # noqa: B018
    assert workers_alive() == []

    cycle = [iter(loader)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert workers_alive() == []

    batches(loader)
    assert workers_alive() == []


def test_collection_in_a_worker_thread(monkeypatch):
    """The collector may run in a worker, which must not wait for itself."""
    dropped, collected, errors = threading.Event(), threading.Event(), []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)

    class Collecting(Numbers):
        def __getitem__(self, index):
            if index == 2:
                dropped.wait(10)
                gc.collect()
                collected.set()
            return super().__getitem__(index)

    gc.disable()
    try:
        cycle = [iter(DataLoader(Collecting(100), 2, workers=1))]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        dropped.set()
        assert collected.wait(10)
    finally:
        gc.enable()
    deadline = time.monotonic() + 10
    while workers_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert errors == []


def test_closing_waits_for_one_sample_only():
    slow = dict.fromkeys(range(20, 200), 0.05)
    iterator = iter(DataLoader(Numbers(200, sleeps=slow), 20, workers=1, prefetch=5))
    next(iterator)
    start = time.monotonic()
    iterator.close()  # the samples asked for would take 4 s
    assert time.monotonic() - start < 2


STOPS = """
    import os, signal, sys, threading, time
    sys.path.insert(0, sys.argv[1])
    from data_samples import Numbers
    from lucid_c.data import DataLoader

    def main():
        kind = sys.argv[2]
        slow = {i: 0.1 for i in range(20, 200) if i % 20 < 10}  # one worker of two
        loader = DataLoader(Numbers(200, sleeps=slow), 20, worker_kind=kind)
        whole = DataLoader(Numbers(200), 20, workers=0)
        expected = [labels.tolist() for _, labels in whole]
        found = []
        try:
            for _, labels in loader:
                found.append(labels.tolist())
                threading.Timer(0.3, os.killpg, [0, signal.SIGINT]).start()
        except KeyboardInterrupt:
            pass
        assert found == expected[:1], found
        import multiprocessing
        alive = [t for t in threading.enumerate() if t.name.startswith("lucid_c-data")]
        assert not alive and not multiprocessing.active_children()
        state = loader.state_dict()
        assert state["batch"] == 1, state
        again = DataLoader(Numbers(200), 20, workers=1)
        again.load_state_dict(state)
        assert [labels.tolist() for _, labels in again] == expected[1:]
        print("stopped")

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_ctrl_c(run_script, kind):
    """While the loader waits for a slow batch; the signal reaches worker processes, too."""
    done = run_script(STOPS, kind)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


ENDS = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from data_samples import Numbers
    from lucid_c.data import DataLoader

    if __name__ == "__main__":
        loader = DataLoader(Numbers(1000), 4, worker_kind=sys.argv[2])
        iterator = iter(loader)
        next(iterator)
        print("end")
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_program_that_ends_with_an_open_iterator(run_script, kind):
    done = run_script(ENDS, kind)
    assert (done.stdout, done.stderr) == ("end\n", "")


def test_fork():
    """A forked child cannot go on with the iterator, and leaves the parent's workers alone."""
    loader = DataLoader(Numbers(20), 2, workers=2)
    iterator = iter(loader)
    next(iterator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if child == 0:
        try:
            next(iterator)
        except RuntimeError as error:
            os._exit(3 if "fork" in str(error) else 4)
        finally:
            os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert len(list(iterator)) == 9


# --- arguments ---


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": 2.0}, TypeError, "batch_size.*2.0"),
        ({"batch_size": True}, TypeError, "batch_size"),
        ({"batch_size": 9, "drop_last": True}, ValueError, "no batch: 8 samples, batch_size 9"),
        ({"dataset": []}, ValueError, "no batch: 0 samples"),
        ({"dataset": iter([])}, TypeError, "__len__.*list_iterator"),
        ({"workers": -1}, ValueError, "workers"),
        ({"worker_kind": "fork"}, ValueError, "'thread' or 'process', not 'fork'"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"prefetch": 0}, ValueError, "prefetch"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1 << 64}, ValueError, "seed"),
        ({"seed": "1"}, TypeError, "seed"),
        ({"transform": 3}, TypeError, "transform"),
        ({"collate": 3}, TypeError, "collate"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        DataLoader(**{"dataset": Numbers(8), "batch_size": 4, **options})


def test_bad_epochs():
    loader = DataLoader(Numbers(4), 2)
    for epoch, error in [(-1, ValueError), (1 << 32, ValueError), (1.0, TypeError)]:
        with pytest.raises(error, match="epoch"):
            loader.set_epoch(epoch)
    assert loader.epoch == 0
