# SPDX-License-Identifier: MIT
"""The parent's side: processes that stand still while another one is measured."""

import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import Pipe
from pathlib import Path

from engines import ENGINES

HERE = Path(__file__).resolve().parent
ONEDNN_ISA = {"avx2": "AVX2", "avx512": "AVX512_CORE"}


class EngineError(Exception):
    """An engine could not do what it was asked for."""


def environment(threads=None, isa=None):
    """The variables of a child process.

    Parameters
    ----------
    threads : int, optional
        For the libraries that read their number of threads from the environment.
    isa : "avx2" or "avx512", optional
        The highest instruction set, for all who obey: lucid_c, oneDNN (in PyTorch and OpenVINO),
        PyTorch's own kernels and its compiler. ONNX Runtime has no such variable.
    """
    # Bytecode is written, where only sources are: installed packages, the peers, come with theirs.
    ours = ("LUCID_C_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
    env = {k: v for k, v in os.environ.items() if k not in ours}
    if threads is not None:
        env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if isa is not None:
        env |= {
            "LUCID_C_ISA": isa,
            "ONEDNN_MAX_CPU_ISA": ONEDNN_ISA[isa],
            "ATEN_CPU_CAPABILITY": isa,
        }
    return env


class Process:
    """A `worker.py`. It runs while it answers, and is stopped (SIGSTOP) in between.

    Parameters
    ----------
    engine : str, optional
        The engine that it makes first.
    threads, isa
        See `environment`.
    """

    def __init__(self, engine=None, threads=None, isa=None):
        self.engine = engine
        self.log = tempfile.TemporaryFile()
        self.pipe, theirs = Pipe()
        with theirs:
            self.child = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                env=environment(threads, isa),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a group of its own: compilers that it starts stop with it
            )
        if engine is not None:
            self.ask("engine", name=engine)

    @property
    def alive(self):
        return self.child.poll() is None

    def ask(self, command, timeout=600.0, stop=True, **arguments):
        """Run a command in the process and give back what it returns.

        Parameters
        ----------
        command : str
            A method of `worker.Worker`.
        timeout : float, optional
            Seconds after which the process is ended.
        stop : bool, optional
            Whether the process is stopped afterwards.
        **arguments
            Of the command.

        Raises
        ------
        EngineError
            If the command failed, took too long, or the process died.
        """
        try:
            self._signal(signal.SIGCONT)
            self.pipe.send((command, arguments))
            if not self.pipe.poll(timeout):
                self.close()
                raise EngineError(f"{command} took more than {timeout:g} s")
            worked, answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            status = self.child.wait()
            said = self.said()
            self.close()
            raise EngineError(f"the process died with status {status}{said}") from error
        if stop:
            self._stop()
        if not worked:
            raise EngineError(answer)
        return answer

    def _stop(self):
        """Stops the process, and waits until all of its threads stand still."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number):
        os.killpg(self.child.pid, number)

    def said(self):
        """The last line that the process printed."""
        if self.log.closed:
            return ""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self):
        """End the process, and what it started."""
        if self.alive:
            self._signal(signal.SIGKILL)
            self.child.wait()
        self.pipe.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Team:
    """A process per engine, started when it is first needed and again if it died."""

    def __init__(self, engines, threads, isa=None):
        self.engines, self.threads, self.isa = list(engines), threads, isa
        self.members = {}

    def __getitem__(self, engine):
        member = self.members.get(engine)
        if member is None or not member.alive:
            if member is not None:
                member.close()
            member = self.members[engine] = Process(engine, self.threads, self.isa)
        return member

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members.values():
            member.close()


def missing(names):
    """{engine: why it cannot be used}, for those that cannot."""
    reasons = {name: ENGINES[name].available() for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}
