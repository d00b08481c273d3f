# SPDX-License-Identifier: MIT
"""The suites: what is compared, row by row."""

import json
import subprocess
import sys
import tempfile
import time

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
        self.folder = None
        self.key = None

    def get(self, name, engines):
        """(folder, what `files.write_files` says about the model)."""
        formats = sorted({f for engine in engines for f in ENGINES[engine].formats})
        if self.key != (name, formats):
            self.close()
            self.folder = tempfile.TemporaryDirectory(prefix="lucid_c_bench_")
            with Process() as process:
                self.about = process.ask(
                    "write_files", name=name, folder=self.folder.name, formats=formats
                )
            self.key = name, formats
        return self.folder.name, self.about

    def close(self):
        if self.folder is not None:
            self.folder.cleanup()
        self.folder = self.key = None


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
        self._macs = {}

    def add(self, row):
        """Takes a row into the results, which are written at once, and says it."""
        self.rows.append(row)
        self._keep(self.rows)
        self._say(row)

    def macs(self, model, shape):
        """Multiply-adds for one image."""
        key = model, *shape[2:]
        if key not in self._macs:
            with Process() as process:
                self._macs[key] = process.ask(
                    "multiply_adds", name=model, height=shape[2], width=shape[3]
                )
        return self._macs[key]

    def size(self, about):
        return self.options.size or (about["image_size"], about["image_size"])

    def compiled(self, engine, model, threads):
        """Whether a compiling engine takes part in this row."""
        if not ENGINES[engine].compiles:
            return True
        if self.options.compile == ["all"]:
            return True
        return model in self.options.compile and threads == max(self.options.threads)

    def team(self, model, threads):
        engines = [e for e in self.options.engines if self.compiled(e, model, threads)]
        return Team(engines, threads, self.options.isa)


def inference(run):
    """Every model, batch size and thread count."""
    for model in run.options.models:
        folder, about = run.files.get(model, run.options.engines)
        for threads in run.options.threads:
            with run.team(model, threads) as team:
                for batch in run.options.batch:
                    shape = (batch, 3, *run.size(about))
                    run.add(inference_row(run, team, model, folder, shape))


def inference_row(run, team, model, folder, shape):
    """One shape: load everywhere, compare the logits, time in turn."""
    row = new_row(run, team, model, shape)
    arguments = {"model": model, "folder": folder, "shape": shape, "threads": team.threads}

    def load(engine):
        limit = run.options.compile_seconds if ENGINES[engine].compiles else 600.0
        return team[engine].ask("load", timeout=limit, **arguments)

    loaded = load_all(team, row, load)
    right = check_all(team, row, loaded, lambda e: team[e].ask("logits"), compare_logits)
    time_all(team, row, right, run.options, "time")
    return finish(row, run.options.isa, run.machine["lucid_c"]["isa_best"])


def new_row(run, team, model, shape):
    return {**shape_of_row(model, shape, team.threads), "macs": run.macs(model, shape)}


def shape_of_row(model, shape, threads):
    return {
        "model": model,
        "batch": shape[0],
        "height": shape[2],
        "width": shape[3],
        "threads": threads,
        "engines": {},
    }


def scaling(run):
    """A model over batch sizes, over image sizes, and over thread counts."""
    options = run.options
    for model in options.models:
        folder, about = run.files.get(model, options.engines)
        usual = run.size(about)
        most = max(options.threads)
        points = [("batch", most, batch, usual) for batch in options.batch]
        points += [("size", most, 1, size) for size in options.sizes]
        points += [("threads", n, b, usual) for n in options.threads for b in (1, 8)]
        for threads in sorted({point[1] for point in points}, reverse=True):
            with run.team(model, threads) as team:
                measured = {}
                for axis, count, batch, size in points:
                    if count != threads:
                        continue
                    shape = (batch, 3, *size)
                    if shape not in measured:
                        measured[shape] = inference_row(run, team, model, folder, shape)
                    run.add({**measured[shape], "axis": axis})


def training(run):
    """A full step: forward in training mode, loss, backward, SGD with momentum and decay."""
    for model in run.options.models:
        engines = [e for e in run.options.engines if ENGINES[e].trains]
        folder, about = run.files.get(model, engines)
        for threads in run.options.threads:
            for batch in run.options.batch:
                team = run.team(model, threads)
                team.engines = [e for e in team.engines if ENGINES[e].trains]
                with team:
                    shape = (batch, 3, *run.size(about))
                    run.add(training_row(run, team, model, folder, shape))


def training_row(run, team, model, folder, shape):
    row = new_row(run, team, model, shape)
    arguments = {"model": model, "folder": folder, "shape": shape, "threads": team.threads}

    def load(engine):
        return team[engine].ask("load_training", **arguments)

    def losses(engine):
        limit = run.options.compile_seconds if ENGINES[engine].compiles else 600.0
        return team[engine].ask("losses", timeout=limit, steps=3)

    loaded = load_all(team, row, load)
    right = check_all(team, row, loaded, losses, compare_losses)
    time_all(team, row, right, run.options, "time_training")
    for engine in right:
        if "rounds" in row["engines"][engine]:
            row["engines"][engine]["peak_rss"] = team[engine].ask("peak_rss")
    return finish(row, run.options.isa, run.machine["lucid_c"]["isa_best"])


def cold_process(run, engine, model, folder, shape, threads, calls):
    """What `cold.py` prints."""
    arguments = [engine, model, folder, ",".join(map(str, shape)), str(threads), str(calls)]
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


def cold_row(run, model, folder, shape, rounds, calls, warm_disk=True):
    """Processes of all engines in turn; medians over rounds, after one that warms the disk."""
    threads = max(run.options.threads)
    row = shape_of_row(model, shape, threads)
    samples = {engine: [] for engine in run.options.engines if not ENGINES[engine].compiles}
    for engine in samples:
        row["engines"][engine] = {}
    for round_number in range(rounds + warm_disk):
        for engine in list(samples):
            try:
                sample = cold_process(run, engine, model, folder, shape, threads, calls)
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
        folder, about = run.files.get(model, run.options.engines)
        shape = (1, 3, *run.size(about))
        run.add(cold_row(run, model, folder, shape, run.options.rounds, calls=5))


def memory(run):
    """Peak resident size of a process that loads a model and calls it, over batch sizes."""
    for model in run.options.models:
        folder, about = run.files.get(model, run.options.engines)
        for batch in run.options.batch:
            shape = (batch, 3, *run.size(about))
            run.add(cold_row(run, model, folder, shape, rounds=1, calls=2, warm_disk=False))


def spinning(run):
    """What standing still is for: processor time that an engine burns after a call has returned,
    and our time per call beside it, running and stopped."""
    for model in run.options.models:
        folder, about = run.files.get(model, run.options.engines)
        shape = (1, 3, *run.size(about))
        threads = max(run.options.threads)
        with run.team(model, threads) as team:
            row = new_row(run, team, model, shape)
            arguments = {"model": model, "folder": folder, "shape": shape, "threads": threads}

            def load(engine, team=team, arguments=arguments):
                return team[engine].ask("load", timeout=run.options.compile_seconds, **arguments)

            for engine in load_all(team, row, load):
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
            run.add(row)


SUITES = {
    suite.__name__: suite for suite in (inference, scaling, coldstart, memory, training, spinning)
}
