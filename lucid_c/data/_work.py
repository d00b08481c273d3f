# SPDX-License-Identifier: MIT
"""What the workers of a `DataLoader` do, and the kinds of workers: none, threads, processes.

An epoch is a `Plan`: it says which samples each batch has, so a task is no more than the number of
a batch. Every worker prepares its own share of every batch, in order, and the loader puts the
shares together in order. So nothing depends on which worker is faster.
"""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from ._seeds import ORDER, SAMPLE, generator
from .datasets import where

SKIPPED = (OSError, ValueError)  # what unreadable files raise; other errors are never skipped


@dataclass(frozen=True)
class Plan:
    """The samples of one epoch, batch by batch."""

    length: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    epoch: int

    def __len__(self) -> int:
        whole, rest = divmod(self.length, self.batch_size)
        return whole + bool(rest and not self.drop_last)

    @functools.cached_property
    def order(self) -> np.ndarray:
        """The indices of the epoch in their order."""
        if self.shuffle:
            return generator(self.seed, ORDER, self.epoch).permutation(self.length)
        return np.arange(self.length)


class Failure(NamedTuple):
    """A sample that could not be prepared."""

    index: int
    where: str
    error: BaseException
    fatal: bool


@dataclass
class Share:
    """One worker's part of one batch: samples in order, and those that failed."""

    samples: list[tuple[Any, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where samples come from and how they are prepared."""

    dataset: Any
    transform: Callable | None
    with_rng: bool
    skip: bool

    def sample(self, plan: Plan, index: int) -> tuple[Any, Any]:
        """Return (image, label) of one sample, transformed."""
        image, label = self.dataset[index]
        if self.transform is not None:
            if self.with_rng:
                image = self.transform(image, rng=generator(plan.seed, SAMPLE, plan.epoch, index))
            else:
                image = self.transform(image)
        return image, label


class Worker:
    """Prepares one of `count` shares of every batch."""

    def __init__(self, source: Source, plan: Plan, number: int, count: int) -> None:
        self.source, self.plan, self.number, self.count = source, plan, number, count

    def share(self, batch: int, stopped: Callable[[], bool]) -> Share:
        """Return the share of a batch; what there is of it when `stopped` says so."""
        first = batch * self.plan.batch_size
        size = min(self.plan.batch_size, self.plan.length - first)
        start = first + size * self.number // self.count
        stop = first + size * (self.number + 1) // self.count
        share = Share()
        for index in map(int, self.plan.order[start:stop]):
            if stopped():
                break
            try:
                share.samples.append(self.source.sample(self.plan, index))
            except BaseException as error:
                fatal = not (self.source.skip and isinstance(error, SKIPPED))
                share.failures.append(
                    Failure(index, where(self.source.dataset, index), error, fatal)
                )
                if fatal:
                    break
        return share


class Inline:
    """No workers: a batch is prepared when it is asked for."""

    def __init__(self, source: Source, plan: Plan) -> None:
        self.worker = Worker(source, plan, 0, 1)

    def submit(self, batch: int) -> None:
        """Do nothing."""

    def collect(self, batch: int) -> list[Share]:
        """Prepare a batch."""
        return [self.worker.share(batch, lambda: False)]

    def close(self) -> None:
        """Do nothing."""


class Threads:
    """Workers that are threads of this process."""

    def __init__(self, source: Source, plan: Plan, count: int) -> None:
        self.stop = threading.Event()
        self.tasks = [SimpleQueue() for _ in range(count)]
        self.results = [SimpleQueue() for _ in range(count)]
        self.threads: list[threading.Thread] = []
        try:
            for number, queues in enumerate(zip(self.tasks, self.results, strict=True)):
                worker = Worker(source, plan, number, count)
                thread = threading.Thread(
                    target=_serve,
                    args=(worker, *queues, self.stop.is_set),
                    name=f"lucid_c-data-{number}",
                    daemon=True,  # or the interpreter would wait for it before it is told to stop
                )
                thread.start()
                self.threads.append(thread)
        except BaseException:
            self.close()
            raise

    def submit(self, batch: int) -> None:
        """Give a batch to all workers."""
        for tasks in self.tasks:
            tasks.put(batch)

    def collect(self, batch: int) -> list[Share]:
        """Wait for the shares of the oldest batch not yet collected."""
        return [results.get() for results in self.results]

    def close(self) -> None:
        """Stop the threads and wait for them: at most as long as one sample takes."""
        self.stop.set()
        for tasks in self.tasks:
            tasks.put(None)
        for thread in self.threads:
            if thread is not threading.current_thread():  # the collector may run in any thread
                thread.join()


def _serve(worker, tasks, results, stopped):
    while (batch := tasks.get()) is not None and not stopped():
        results.put(worker.share(batch, stopped))
