# SPDX-License-Identifier: MIT
"""The suites: what is compared, row by row."""

import json
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from engines import ENGINES, OURS
from measure import (
    check_all,
    compare_logits,
    compare_losses,
    finish,
    load_all,
    quartiles,
    time_all,
)
from team import HERE, EngineError, Process, Team, environment


class FileStore:
    """The files of one model at a time, written by a process of their own."""

    def __init__(self):
        self.model = None
        self.folders = {}

    def get(self, model, engines, size):
        """(folder, what `files.write_files` says). ``size`` None: the model's own."""
        if model != self.model:
            self.close()
            self.model = model
        formats = sorted({f for engine in engines for f in ENGINES[engine].formats})
        key = size, *formats
        if key not in self.folders:
            folder = tempfile.TemporaryDirectory(prefix="lucid_c_bench_")
            with Process() as process:
                about = process.ask(
                    "write_files", name=model, folder=folder.name, formats=formats, size=size
                )
            self.folders[key] = folder, about
        folder, about = self.folders[key]
        return folder.name, about

    def close(self):
        for folder, _ in self.folders.values():
            folder.cleanup()
        self.folders = {}


class Case(NamedTuple):
    """A model, the shape of its input, where its files are, and what was said about them."""

    model: str
    shape: tuple
    folder: str
    about: dict

    def check_files(self, engine):
        """Raises an error where a file of this engine could not be written."""
        for name in ENGINES[engine].formats:
            if name in self.about["failed"]:
                raise EngineError(f"no {name} file: {self.about['failed'][name]}")

    def row(self, threads):
        """What all rows of results begin with."""
        return {
            "model": self.model,
            "batch": self.shape[0],
            "height": self.shape[2],
            "width": self.shape[3],
            "threads": threads,
            "macs": self.about["macs"],
            "onnx_exporter": self.about.get("exporter"),
            "engines": {},
        }

    def arguments(self, threads):
        """For the commands `load` and `load_training` of a worker."""
        return {
            "model": self.model,
            "folder": self.folder,
            "shape": self.shape,
            "threads": threads,
        }


class Run:
    """What all suites share.

    Attributes
    ----------
    options : argparse.Namespace
        Of the command line, defaults filled in.
    machine : dict
        `machine.describe`.
    """

    def __init__(self, options, machine, keep, say):
        self.options, self.machine = options, machine
        self.files = FileStore()
        self.rows = []
        self._keep, self._say = keep, say

    def add(self, row):
        """Takes a row into the results, which are written at once, and says it."""
        self.rows.append(row)
        self._keep(self.rows)
        self._say(row)

    def get(self, model, batch, size=None):
        """A `Case`, its files written. ``size`` None: as the options say, or the model's own."""
        folder, about = self.files.get(model, self.options.engines, size or self.options.size)
        return Case(model, (batch, 3, *about["size"]), folder, about)

    def compiled(self, engine, model, threads):
        """Whether a compiling engine takes part in this row."""
        if not ENGINES[engine].compiles:
            return True
        if self.options.compile == ["all"]:
            return True
        return model in self.options.compile and threads == max(self.options.threads)

    def limit(self, engine):
        """Seconds that loading may take."""
        return self.options.compile_seconds if ENGINES[engine].compiles else 600.0

    def team(self, model, threads):
        engines = [e for e in self.options.engines if self.compiled(e, model, threads)]
        return Team(engines, threads, self.options.isa)


def inference(run):
    """Every model, batch size and thread count."""
    for model in run.options.models:
        for threads in run.options.threads:
            with run.team(model, threads) as team:
                for batch in run.options.batch:
                    run.add(inference_row(run, team, run.get(model, batch)))


def inference_row(run, team, case):
    """One shape: load everywhere, compare the logits, time in turn."""
    row = case.row(team.threads)

    loaded = load_all(team, row, loader(run, team, case))
    right = check_all(team, row, loaded, lambda e: team[e].ask("logits"), compare_logits)
    time_all(team, row, right, run.options, "time")
    return finish(row, run.options.isa, run.machine["lucid_c"]["isa_best"])


def loader(run, team, case, command="load"):
    """What loads the case into the process of an engine."""

    def load(engine):
        case.check_files(engine)
        return team[engine].ask(command, run.limit(engine), **case.arguments(team.threads))

    return load


def scaling(run):
    """A model over batch sizes, over image sizes, and over thread counts."""
    options = run.options
    most = max(options.threads)
    for model in options.models:
        points = [("batch", most, batch, None) for batch in options.batch]
        points += [("size", most, 1, size) for size in options.sizes]
        points += [("threads", count, batch, None) for count in options.threads for batch in (1, 8)]
        for threads in sorted(options.threads, reverse=True):
            with run.team(model, threads) as team:
                measured = {}
                for axis, count, batch, size in points:
                    if count != threads:
                        continue
                    case = run.get(model, batch, size)
                    if case.shape not in measured:
                        measured[case.shape] = inference_row(run, team, case)
                    run.add({**measured[case.shape], "axis": axis})


def training(run):
    """A full step: forward in training mode, loss, backward, SGD with momentum and decay."""
    run.options.engines = [e for e in run.options.engines if ENGINES[e].trains]
    for model in run.options.models:
        for threads in run.options.threads:
            for batch in run.options.batch:
                with run.team(model, threads) as team:  # new processes: peak memory is looked at
                    run.add(training_row(run, team, run.get(model, batch)))


def training_row(run, team, case):
    row = case.row(team.threads)

    def losses(engine):
        return team[engine].ask("losses", run.limit(engine), steps=3)

    loaded = load_all(team, row, loader(run, team, case, "load_training"))
    right = check_all(team, row, loaded, losses, compare_losses)
    time_all(team, row, right, run.options, "time_training")
    for engine in right:
        if "rounds" in row["engines"][engine]:
            row["engines"][engine]["peak_rss"] = team[engine].ask("peak_rss")
    return finish(row, run.options.isa, run.machine["lucid_c"]["isa_best"])


def cold_process(run, engine, case, threads, calls):
    """What `cold.py` prints."""
    shape = ",".join(map(str, case.shape))
    arguments = [engine, case.model, case.folder, shape, str(threads), str(calls)]
    command = [sys.executable, str(HERE / "cold.py"), *arguments, str(time.monotonic())]
    try:
        child = subprocess.run(
            command,
            env=environment(threads, run.options.isa),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError("took more than 600 s") from error
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        raise EngineError(lines[-1] if lines else f"exit status {child.returncode}")
    return json.loads(child.stdout.splitlines()[-1])


def cold_row(run, case, rounds, calls, warm_disk=True):
    """Processes of all engines in turn; medians over rounds, after one that warms the disk."""
    threads = max(run.options.threads)
    row = case.row(threads)
    samples = {engine: [] for engine in run.options.engines if not ENGINES[engine].compiles}
    for engine in samples:
        row["engines"][engine] = {}
    for round_number in range(rounds + warm_disk):
        for engine in list(samples):
            try:
                case.check_files(engine)
                sample = cold_process(run, engine, case, threads, calls)
            except EngineError as error:
                row["engines"][engine]["error"] = str(error)
                del samples[engine]
                continue
            if round_number >= warm_disk:
                samples[engine].append(sample)
    for engine, found in samples.items():
        entry = row["engines"][engine]
        for key in found[0]:
            entry[key] = quartiles([sample[key] for sample in found])[1]
        entry["total_quartiles"] = quartiles([sample["total"] for sample in found])
        if engine == OURS:  # what the first call does beyond a later one
            entry["plan_and_packing"] = max(0.0, entry["first"] - entry["later"])
    return row


def coldstart(run):
    """Whole processes: start, import, load from the file that one has, first result."""
    for model in run.options.models:
        run.add(cold_row(run, run.get(model, 1), run.options.rounds, calls=5))


def memory(run):
    """Peak resident size of a process that loads a model and calls it, over batch sizes."""
    for model in run.options.models:
        for batch in run.options.batch:
            run.add(cold_row(run, run.get(model, batch), rounds=1, calls=2, warm_disk=False))


def spinning(run):
    """What standing still is for: processor time that an engine burns after a call has returned,
    and our time per call beside it, running and stopped."""
    threads = max(run.options.threads)
    for model in run.options.models:
        with run.team(model, threads) as team:
            run.add(spinning_row(run, team, run.get(model, 1)))


def spinning_row(run, team, case):
    row = case.row(team.threads)
    for engine in load_all(team, row, loader(run, team, case)):
        entry = row["engines"][engine]
        burnt, beside, alone = [], [], []
        for _ in range(run.options.rounds):
            team[engine].ask("time", stop=False, calls=3, warmup=1)
            time.sleep(0.3)
            cpu, wall = team[engine].ask("idle_cpu")
            burnt.append(cpu / wall)
            if engine == OURS:
                continue
            team[engine].ask("time", calls=3, warmup=0)
            alone += team[OURS].ask("time", calls=3, warmup=0)
            team[engine].ask("time", stop=False, calls=3, warmup=0)
            beside += team[OURS].ask("time", calls=3, warmup=0)
        entry["idle_cores"] = quartiles(burnt)[1]
        if alone:
            entry["slows_us_by"] = quartiles(beside)[1] / quartiles(alone)[1]
    return row


SUITES = {
    suite.__name__: suite for suite in (inference, scaling, coldstart, memory, training, spinning)
}
