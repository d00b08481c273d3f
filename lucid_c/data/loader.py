# SPDX-License-Identifier: MIT
"""Batches from a dataset, prepared ahead by threads or processes, the same ones every time."""

import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ._checks import check_count, one_of
from ._seeds import BATCH, check_seed, generator, takes_rng
from ._work import Inline, Plan, Share, Source, Threads

__all__ = ["DataLoader", "SkippedSampleWarning", "stack"]

KEPT_IN_STATE = ("seed", "batch_size", "shuffle", "drop_last", "length")


class SkippedSampleWarning(UserWarning):
    """A sample could not be read and is missing from its batch."""


class DataLoader:
    """Iterates over the batches of a dataset; each ``iter`` is one epoch.

    The order of the samples and all random numbers of the transform depend on (seed, epoch,
    index) alone, never on workers or timing. The epoch number grows by one when an epoch has been
    read to its end; an epoch that was left early starts again, unless `load_state_dict` says where
    to go on. Workers exist while an iterator exists: they end with the epoch, when the iterator
    is dropped or its ``close`` is called, at any exception, and with the program.

    Parameters
    ----------
    dataset : Dataset
        Where samples come from.
    batch_size : int
        Samples per batch.
    shuffle : bool, default False
        Whether every epoch has another random order.
    drop_last : bool, default False
        Whether to leave out a last batch that is not full.
    transform : callable, optional
        From the dataset's image to what goes into a batch, in the workers. If it has a parameter
        ``rng``, it gets a `numpy.random.Generator` there, as the transforms of
        `lucid_c.data.augment` do; `lucid_c.transforms.EvalTransform` has none.
    workers : int, default 2
        How many threads or processes prepare batches ahead; 0: none, a batch is prepared when it
        is asked for.
    worker_kind : {"thread", "process"}, default "thread"
        Threads start at once and share memory; Pillow releases the GIL while it decodes and
        resizes. Processes help where a transform computes in Python. They are spawned for every
        epoch, so the dataset and the transform must be picklable, and a script must start them
        below ``if __name__ == "__main__":``. Arrays come back in shared memory.
    seed : int, default 0
        From 0 to 2**64 - 1.
    prefetch : int, default 2
        How many batches the workers may prepare beyond the one asked for last.
    on_error : {"raise", "skip"}, default "raise"
        What to do if the dataset or the transform raises `OSError` or `ValueError` for a sample,
        as unreadable images do: raise it, or warn with the path (`SkippedSampleWarning`), note
        it in `skipped` and make the batch smaller by that sample. A batch without any sample is
        left out; an epoch without any raises `RuntimeError`. Other exceptions are always raised.
    collate : callable, optional
        From a list of (image, label) to a batch, in the iterating thread. If it has a parameter
        ``rng``, it gets a generator that depends on (seed, epoch, batch) alone, for `mixup` and
        the like. Default: `stack`.

    Attributes
    ----------
    epoch : int
        The number of the epoch that the next iterator reads.
    skipped : dict
        What was skipped so far: the error's text by index.

    Raises
    ------
    ValueError
        If there is no batch: the dataset is empty, or shorter than a batch with `drop_last`.

    Notes
    -----
    An error of a sample is raised when its batch is asked for, with its index and path as a
    note, and ends the epoch. NumPy promises the same random numbers only within one of its
    versions.

    Examples
    --------
    >>> folder = ImageFolder("train")
    >>> loader = DataLoader(folder, 64, shuffle=True, transform=train_transform("resnet_50"))
    >>> for images, labels in loader:  # float32 (64, 3, 224, 224), int64 (64,)
    ...     step(images, labels)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        *,
        transform: Callable | None = None,
        workers: int = 2,
        worker_kind: str = "thread",
        seed: int = 0,
        prefetch: int = 2,
        on_error: str = "raise",
        collate: Callable | None = None,
    ) -> None:
        for name in ("__len__", "__getitem__"):
            if not hasattr(dataset, name):
                raise TypeError(f"dataset has no {name}: {type(dataset).__name__}")
        for name, function in (("transform", transform), ("collate", collate)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {function!r}")
        one_of("worker_kind", worker_kind, ("thread", "process"))
        one_of("on_error", on_error, ("raise", "skip"))
        self.dataset = dataset
        self.batch_size = check_count("batch_size", batch_size, 1)
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.transform = transform
        self.workers = check_count("workers", workers, 0)
        self.worker_kind = worker_kind
        self.seed = check_seed(seed)
        self.prefetch = check_count("prefetch", prefetch, 1)
        self.on_error = on_error
        self.collate = stack if collate is None else collate
        self.epoch = 0
        self.skipped: dict[int, str] = {}
        self._start = 0  # the batch that the next iterator begins with
        self._position = 0  # the batch after the last one handed out
        self._current: weakref.ref | None = None  # the newest iterator
        if len(self) == 0:
            raise ValueError(
                f"there is no batch: {len(dataset)} samples, batch_size {self.batch_size}, "
                f"drop_last {self.drop_last}"
            )

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self._plan())

    def __iter__(self) -> Iterator[Any]:
        start, self._start = self._start, 0
        self._position = start
        batches = _Batches(self, self._plan(), start)
        self._current = weakref.ref(batches)
        return batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iterator reads, from its first batch.

        Does nothing if that is the current epoch already, so that a place which `load_state_dict`
        has set is kept.

        Parameters
        ----------
        epoch : int
            From 0 to 2**32 - 1.
        """
        epoch = check_count("epoch", epoch, 0)
        if epoch >= 1 << 32:
            raise ValueError(f"epoch must be less than 2**32, not {epoch}")
        if epoch != self.epoch:
            self.epoch, self._start, self._position, self._current = epoch, 0, 0, None

    def state_dict(self) -> dict[str, int | bool]:
        """Return the place in the data: plain numbers, to be saved with a checkpoint.

        Returns
        -------
        dict
            "epoch" and "batch", which comes after the last one handed out; and "seed",
            "batch_size", "shuffle", "drop_last" and "length", which decide the order.
        """
        return {
            "epoch": self.epoch,
            "batch": self._position,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "length": len(self.dataset),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called: the next iterator begins with that batch.

        Parameters
        ----------
        state : dict
            From a loader with the same seed, batch size, order and dataset length. Workers, their
            kind and `prefetch` may differ.

        Raises
        ------
        ValueError
            If a value is missing or differs; nothing is changed then.
        """
        own = self.state_dict()
        if missing := own.keys() - state.keys():
            raise ValueError(f"the state has no {sorted(missing)[0]!r}")
        for name in KEPT_IN_STATE:
            if state[name] != own[name]:
                raise ValueError(
                    f"the state has {name} {state[name]!r}, but this loader {own[name]!r}"
                )
        epoch, batch = (check_count(name, state[name], 0) for name in ("epoch", "batch"))
        if epoch >= 1 << 32 or batch > len(self):
            raise ValueError(f"there is no batch {batch} of {len(self)} in epoch {epoch}")
        self.epoch, self._start, self._position, self._current = epoch, batch, batch, None

    def _plan(self):
        return Plan(
            len(self.dataset),
            self.batch_size,
            self.shuffle,
            self.drop_last,
            self.seed,
            self.epoch,
        )

    def _workers(self, plan):
        source = Source(
            self.dataset,
            self.transform,
            self.transform is not None and takes_rng(self.transform),
            self.on_error == "skip",
        )
        if self.workers == 0:
            return Inline(source, plan)
        if self.worker_kind == "thread":
            return Threads(source, plan, self.workers)
        from ._processes import Processes  # multiprocessing takes a while to import

        return Processes(source, plan, self.workers)


class _Batches:
    """One epoch of a loader."""

    def __init__(self, loader, plan, start):
        self._loader, self._plan = loader, plan
        self._owner = os.getpid()
        self._batch = self._submitted = self._first = start
        self._delivered = False  # whether any batch was
        self._collate_rng = takes_rng(loader.collate)
        self._workers = loader._workers(plan)
        # Called once: by close(), when this object is collected, or at the program's end. The
        # workers hold no reference to this object.
        self._finalizer = weakref.finalize(self, self._workers.close)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._finalizer.alive:
            raise StopIteration
        if self._owner != os.getpid():
            raise RuntimeError("an iterator of a DataLoader cannot be used after a fork")
        try:
            while self._batch < len(self._plan):
                ahead = min(self._batch + 1 + self._loader.prefetch, len(self._plan))
                while self._submitted < ahead:
                    self._workers.submit(self._submitted)
                    self._submitted += 1
                samples = self._gather(self._workers.collect(self._batch))
                batch, self._batch = self._batch, self._batch + 1
                if samples:
                    result = self._collated(batch, samples)
                    self._delivered = True
                    if self._is_newest():
                        self._loader._position = batch + 1
                    return result
            if not self._delivered and self._first < len(self._plan):
                index, text = next(reversed(self._loader.skipped.items()))
                raise RuntimeError(f"no sample could be read; the last one, {index}: {text}")
            if self._is_newest():
                self._loader.set_epoch(self._plan.epoch + 1)
            raise StopIteration
        except BaseException:
            self.close()
            raise

    def close(self):
        """Stop the workers; the iterator is at its end then."""
        self._finalizer()

    def _is_newest(self):
        """Whether the loader's place is that of this iterator."""
        return self._loader._current is not None and self._loader._current() is self

    def _gather(self, shares: list[Share]) -> list[tuple[Any, Any]]:
        samples = []
        for share in shares:
            for index, where, error, fatal in share.failures:
                name = f"sample {index}" + (f" ({where})" if where else "")
                if fatal:
                    error.add_note(f"{name} of the dataset")
                    raise error
                text = f"{type(error).__name__}: {error}"
                self._loader.skipped[index] = text
                warnings.warn(f"{name} is skipped: {text}", SkippedSampleWarning, stacklevel=3)
            samples += share.samples
        return samples

    def _collated(self, batch, samples):
        collate, plan = self._loader.collate, self._plan
        if self._collate_rng:
            return collate(samples, rng=generator(plan.seed, BATCH, plan.epoch, batch))
        return collate(samples)


def stack(samples: list[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Make arrays of samples: what a `DataLoader` does unless it is given another function.

    Parameters
    ----------
    samples : list of (image, label)
        Arrays of the same shape and dtype; class indices, or class probabilities of one length.

    Returns
    -------
    images : ndarray, shape (N, ...)
    labels : ndarray
        int64 of shape (N,), or float32 of shape (N, K).

    Raises
    ------
    TypeError
        If images are not arrays or labels not numbers.
    ValueError
        If shapes differ.
    """
    images, labels = zip(*samples, strict=True)
    if not all(isinstance(image, np.ndarray) for image in images):
        kind = next(type(image) for image in images if not isinstance(image, np.ndarray))
        raise TypeError(
            f"images of a batch must be arrays, not {kind.__module__}.{kind.__name__}; give the "
            "DataLoader a transform that makes them arrays, or a collate function"
        )
    kinds = {(image.shape, str(image.dtype)) for image in images}
    if len(kinds) > 1:
        raise ValueError(
            "images of a batch must have one shape and dtype, not "
            f"{', '.join(f'{dtype} {shape}' for shape, dtype in sorted(kinds)[:3])}; give the "
            "DataLoader a transform that resizes them, or a collate function"
        )
    try:
        targets = np.asarray(labels)
        if targets.dtype.kind not in "iuf" or targets.ndim > 2:
            raise ValueError
    except ValueError:
        raise TypeError(
            "labels of a batch must be integers, or arrays of floats of one length, not "
            f"{labels[0]!r}, ...; give the DataLoader a collate function"
        ) from None
    return np.stack(images), targets.astype(np.float32 if targets.dtype.kind == "f" else np.int64)
