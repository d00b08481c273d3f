# SPDX-License-Identifier: MIT
"""A process with one engine in it, which does what its pipe says: ``worker.py DESCRIPTOR``.

Times are taken here, so that the pipe is in none of them.
"""

import sys
import time
from multiprocessing.connection import Connection

import files
from engines import ENGINES
from process import peak_rss


class Worker:
    """The commands. What they return is sent back."""

    def engine(self, name):
        self.made = ENGINES[name]()
        self.idle_since = None

    def load(self, model, folder, shape, threads):
        start = time.perf_counter()
        self.made.load(model, folder, shape, threads)
        self.x = files.draw_images(shape)
        return {"seconds": time.perf_counter() - start, "info": self.made.info}

    def logits(self):
        """The logits, and the seconds of the call."""
        start = time.perf_counter()
        logits = self.made.run(self.x)
        return logits.copy(), time.perf_counter() - start

    def time(self, calls, warmup):
        return self._time(lambda: self.made.run(self.x), calls, warmup)

    def load_training(self, model, folder, shape, threads):
        self.made.load_training(model, folder, shape, threads)
        self.x = files.draw_images(shape)
        self.y = files.draw_labels(shape[0], 1000)
        return {"info": self.made.info}

    def losses(self, steps):
        """The losses of the next steps, and the seconds of the last one."""
        losses = []
        for _ in range(steps):
            start = time.perf_counter()
            losses.append(self.made.step(self.x, self.y))
        return losses, time.perf_counter() - start

    def time_training(self, calls, warmup):
        return self._time(lambda: self.made.step(self.x, self.y), calls, warmup)

    def _time(self, call, calls, warmup):
        for _ in range(warmup):
            call()
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        self.idle_since = time.perf_counter(), time.process_time()
        return seconds

    def idle_cpu(self):
        """Seconds of processor time since the last call, which returned so many seconds ago."""
        wall, cpu = self.idle_since
        return time.process_time() - cpu, time.perf_counter() - wall

    def peak_rss(self):
        return peak_rss()

    def write_files(self, name, folder, formats, size):
        return files.write_files(name, folder, formats, size)

    def model_names(self):
        import lucid_c

        return lucid_c.list_models()

    def describe(self):
        from machine import describe

        return describe()


def end_with_parent():
    """A stopped process does not see that its pipe was closed; Linux can end it by itself."""
    import ctypes
    import signal

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass


def main():
    end_with_parent()
    worker = Worker()
    with Connection(int(sys.argv[1])) as pipe:
        while True:
            try:
                command, arguments = pipe.recv()
            except EOFError:
                return
            try:
                answer = True, getattr(worker, command)(**arguments)
            except Exception as error:
                text = str(error).strip().splitlines()
                answer = False, f"{type(error).__name__}: {text[0] if text else ''}"
            pipe.send(answer)


if __name__ == "__main__":
    main()
