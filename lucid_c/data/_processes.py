# SPDX-License-Identifier: MIT
"""Workers of a `DataLoader` that are processes, and arrays handed over in shared memory.

Processes are spawned, never forked: a fork copies locks that other threads hold at that moment.
A worker gets the numbers of batches through a pipe and answers with labels and the name of a block
of shared memory that has the arrays; the loader copies them out and removes the block. Names are
made from the numbers of worker and batch, so that blocks of workers that were ended are found.
"""

import contextlib
import multiprocessing
import os
import pickle
import secrets
import signal
import traceback
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

from ._work import Failure, Plan, Share, Source, Worker

ALIGNMENT = 64
SHARED = "/dev/shm"  # where Linux shows shared memory as files
JOIN_SECONDS = 5.0  # from SIGTERM to SIGKILL


class Processes:
    """Workers that are processes of their own."""

    def __init__(self, source: Source, plan: Plan, count: int) -> None:
        try:
            setup = pickle.dumps((source, plan, count), pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # what pickle raises has no common base
            raise TypeError(
                "process workers need a dataset and a transform that can be pickled (no lambda, "
                f"no open file): {error}; worker_kind='thread' takes any"
            ) from error
        context = multiprocessing.get_context("spawn")
        self.owner = os.getpid()
        self.prefix = f"lc{secrets.token_hex(4)}"
        self.first_open, self.last_open = 0, -1  # batches given out and not collected
        self.processes: list[Any] = []
        self.pipes: list[Any] = []
        try:
            self._start(context, count)
            for number, pipe in enumerate(self.pipes):
                self._send(number, pipe.send_bytes, setup)
        except BaseException:
            self.close()
            raise

    def submit(self, batch: int) -> None:
        """Give a batch to all workers."""
        if self.last_open < self.first_open:
            self.first_open = batch
        self.last_open = batch
        for number, pipe in enumerate(self.pipes):
            self._send(number, pipe.send, batch)

    def collect(self, batch: int) -> list[Share]:
        """Wait for the shares of the oldest batch not yet collected."""
        shares = []
        for number, pipe in enumerate(self.pipes):
            try:
                answer = pipe.recv()
            except (EOFError, OSError) as error:
                raise self._ended(number) from error
            if isinstance(answer, BaseException):
                raise answer
            shares.append(unpack(answer))
        self.first_open = batch + 1
        return shares

    def close(self) -> None:
        """End the processes and remove what they left in shared memory."""
        if self.owner != os.getpid():  # a forked copy: the processes are not its own
            return
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(JOIN_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()
        for pipe in self.pipes:
            pipe.close()
        for number in range(len(self.processes)):
            for batch in range(self.first_open, self.last_open + 1):
                remove_block(f"{self.prefix}_{number}_{batch}")

    def _start(self, context, count):
        resource_tracker.ensure_running()  # which would unblock the signal below
        # Ctrl-C is for this process, which ends the others; they inherit that it is blocked.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for number in range(count):
                mine, theirs = context.Pipe()
                self.pipes.append(mine)
                process = context.Process(
                    target=_main,
                    args=(theirs, f"{self.prefix}_{number}", number),
                    name=f"lucid_c-data-{number}",
                    daemon=True,
                )
                process.start()
                self.processes.append(process)
                theirs.close()  # so that the end of the process is the end of the pipe
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _send(self, number, send, message):
        try:
            send(message)
        except OSError as error:
            raise self._ended(number) from error

    def _ended(self, number):
        process = self.processes[number]
        process.join(JOIN_SECONDS)
        code = process.exitcode
        names = {-number: number.name for number in signal.Signals}
        how = f"signal {names[code]}" if code in names else f"exit code {code}"
        return RuntimeError(
            f"worker process {number} ended unexpectedly ({how}); a script that uses process "
            'workers must start them below `if __name__ == "__main__":`'
        )


class Packed(NamedTuple):
    """A share on its way between processes."""

    block: str | None  # name of the shared memory
    arrays: list[tuple[str, tuple[int, ...], int] | None]  # dtype, shape, offset; None: in samples
    samples: list[tuple[Any, Any]]  # with None for the arrays that are in the block
    failures: list[Failure]


def pack(share: Share, name: str) -> Packed:
    """Move the arrays of a share to a new block of shared memory."""
    arrays, samples, size = [], [], 0
    for image, label in share.samples:
        if isinstance(image, np.ndarray) and not image.dtype.hasobject:
            arrays.append((image.dtype.str, image.shape, size))
            samples.append((None, label))
            size += -(-image.nbytes // ALIGNMENT) * ALIGNMENT
        else:
            arrays.append(None)
            samples.append((image, label))
    if size:
        block = SharedMemory(name, create=True, size=size)
        try:
            _reserve(name, size)
            for (image, _), place in zip(share.samples, arrays, strict=True):
                if place is not None:
                    dtype, shape, offset = place
                    np.ndarray(shape, dtype, block.buf, offset)[...] = image
        except BaseException:
            block.unlink()
            raise
        finally:
            block.close()
    failures = [failure._replace(error=portable(failure.error)) for failure in share.failures]
    return Packed(name if size else None, arrays, samples, failures)


def unpack(packed: Packed) -> Share:
    """Copy the arrays of a share out of its block, and remove the block."""
    data = np.empty(0, np.uint8)
    if packed.block is not None:
        block = SharedMemory(packed.block)
        try:
            data = np.frombuffer(block.buf, np.uint8).copy()
        finally:
            block.close()
            block.unlink()
    share = Share(failures=packed.failures)
    for place, (image, label) in zip(packed.arrays, packed.samples, strict=True):
        if place is not None:
            dtype, shape, offset = place
            image = np.ndarray(shape, dtype, data, offset)
        share.samples.append((image, label))
    return share


def remove_block(name: str) -> None:
    """Remove a block of shared memory if there is one of this name."""
    try:
        block = SharedMemory(name)
    except FileNotFoundError:
        return
    except ValueError:  # its maker was ended before it had a size, which cannot be opened
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{SHARED}/{name}")
        return
    block.close()
    block.unlink()


def portable(error: BaseException) -> BaseException:
    """Return an error that can be pickled, with its traceback as a note."""
    text = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # some exceptions take other arguments than they keep
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker process:\n{text}")
    return error


def _reserve(name, size):
    """Take the memory now: without it, writing would end the process with SIGBUS."""
    path = f"{SHARED}/{name}"
    if not os.path.exists(path) or not hasattr(os, "posix_fallocate"):
        return
    handle = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        raise OSError(
            f"no {size} bytes of shared memory for a batch ({error}); make /dev/shm larger, the "
            "batches smaller, or use worker_kind='thread'"
        ) from error
    finally:
        os.close(handle)


def _main(pipe, name, number):
    """Run one worker process until its pipe ends."""
    try:
        try:
            source, plan, count = pickle.loads(pipe.recv_bytes())
            worker = Worker(source, plan, number, count)
            while True:
                batch = pipe.recv()
                pipe.send(pack(worker.share(batch, lambda: False), f"{name}_{batch}"))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:
            pipe.send(portable(error))
            while True:  # the parent may still send, but will read the error and end us
                pipe.recv()
    except (EOFError, OSError):  # the parent is gone
        return
