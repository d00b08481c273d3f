# SPDX-License-Identifier: MIT
"""One row of a comparison: load, check, then time in turn; and the statistics of it."""

import statistics

import numpy as np
from engines import ENGINES, OURS
from team import EngineError

LOGITS_BOUND = 1e-4  # of the largest logit
ROUGH_BOUND = 0.1  # the same, where an engine computes in less than float32
LOSS_BOUND = 1e-3  # of the loss
FEWEST_ROUNDS, MOST_CALLS = 3, 15
LONG_CALL = 0.3  # seconds; such a call is its own warm-up
NEAR = 1.5  # a peer that takes no more than this times the fastest one's time
ISA_ORDER = ("scalar", "avx2", "avx512")


def quartiles(values):
    """(first quartile, median, third quartile)."""
    values = sorted(values)
    if len(values) == 1:
        return values * 3
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, statistics.median(values), third]


def plan(once, rounds, seconds):
    """How to spend a time budget.

    Parameters
    ----------
    once : dict of str to float
        Seconds of one call, by engine.
    rounds : int
        How many rounds are wanted.
    seconds : float
        For all engines and rounds together. Where that is too little there are fewer rounds, but
        three (or ``rounds``) at least for us and the peers that are near the fastest one, and one
        for the others.

    Returns
    -------
    dict
        ``{engine: (rounds, timed calls in each, warm-up calls before them)}``.
    """
    slot = seconds / rounds / len(once)
    calls, costs = {}, {}
    for engine, call in once.items():
        warmup = 0 if call > LONG_CALL else 1
        calls[engine] = max(1, min(MOST_CALLS, int(slot / call) - warmup)), warmup
        costs[engine] = sum(calls[engine]) * call
    fastest = min((call for engine, call in once.items() if engine != OURS), default=0.0)
    near = [engine for engine in once if engine == OURS or once[engine] <= NEAR * fastest]

    def fitting(engines, least):
        wanted = int(seconds / sum(costs[engine] for engine in engines))
        return min(rounds, max(least, wanted))

    of_all = fitting(once, 1)
    of_near = rounds if of_all == rounds else fitting(near, FEWEST_ROUNDS)
    return {engine: (of_near if engine in near else of_all, *calls[engine]) for engine in once}


def logits_error(logits, reference):
    """Largest difference, as a share of the largest logit; inf if shapes differ or not finite."""
    if logits.shape != reference.shape or not np.isfinite(logits).all():
        return float("inf")
    return float(np.abs(logits - reference).max() / np.abs(reference).max())


def computes_in_float32(info):
    return info.get("precision", "f32") in ("f32", "float", "float32")


def load_all(team, row, load):
    """Loads every engine with ``load(engine)``; entries of the row are made, with an error where
    that failed. Gives the engines that loaded."""
    loaded = []
    for engine in team.engines:
        entry = row["engines"][engine] = {}
        try:
            answer = load(engine)
        except EngineError as error:
            kind, _, text = str(error).partition(": ")
            if kind == "NotImplementedError":  # it cannot do this at all, and says so
                entry["unavailable"] = text
            else:
                entry["error"] = str(error)
            continue
        entry |= answer
        loaded.append(engine)
    return loaded


def check_all(team, row, loaded, compute, compare):
    """Compares every engine with the first that loaded (lucid_c, if it takes part). Gives the
    engines that computed the right thing; the others get an error. ``compute(engine)`` gives the
    result and the seconds of a call."""
    right, reference = [], None
    for engine in loaded:
        entry = row["engines"][engine]
        try:
            result, entry["once"] = compute(engine)
        except EngineError as error:
            entry["error"] = str(error)
            continue
        if reference is None:
            reference, row["reference"] = result, engine
        entry["difference"], bound = compare(result, reference, entry["info"])
        if not entry["difference"] <= bound:
            entry["error"] = (
                f"results differ from those of {row['reference']} by {entry['difference']:.2g}, "
                f"allowed {bound:g}"
            )
            continue
        right.append(engine)
    return right


def compare_logits(logits, reference, info):
    bound = LOGITS_BOUND if computes_in_float32(info) else ROUGH_BOUND
    return logits_error(logits, reference), bound


def compare_losses(losses, reference, info):
    """The losses of a few steps."""
    losses, reference = np.asarray(losses), np.asarray(reference)
    if not np.isfinite(losses).all():
        return float("inf"), LOSS_BOUND
    return float((np.abs(losses - reference) / np.abs(reference)).max()), LOSS_BOUND


def time_all(team, row, engines, options, command):
    """Times the engines in turn, round after round: A B C, A B C, ...

    Into the row go, for every engine, ``rounds``: the median time of a call in each, in seconds.
    """
    once = {}
    for engine in engines:
        entry = row["engines"][engine]
        once[engine] = entry.pop("once")
        if once[engine] <= LONG_CALL:
            try:
                once[engine] = team[engine].ask(command, calls=1, warmup=0)[0]
            except EngineError as error:
                entry["error"] = str(error)
                del once[engine]
    if not once:
        return
    planned = plan(once, options.rounds, options.seconds)
    for number in range(max(rounds for rounds, _, _ in planned.values())):
        for engine, (rounds, calls, warmup) in planned.items():
            entry = row["engines"][engine]
            if number >= rounds or "error" in entry:
                continue
            try:
                seconds = team[engine].ask(command, calls=calls, warmup=warmup)
            except EngineError as error:
                entry["error"] = str(error)
                entry.pop("rounds", None)
                continue
            entry.setdefault("rounds", []).append(statistics.median(seconds))


def finish(row, isa=None, isa_best=None):
    """Medians, ratios and the fastest peer, from the times of the rounds.

    ``ratio`` of an entry: quartiles over the rounds of its time / our time in the same round.
    ``fastest_peer``: the float32 engine with the least median time, of those that obey a cap on
    the instruction set, where there is one below what the processor has.
    """
    capped = isa is not None and ISA_ORDER.index(isa) < ISA_ORDER.index(isa_best)
    ours = row["engines"].get(OURS, {}).get("rounds")
    fastest = None
    for engine, entry in row["engines"].items():
        if "rounds" not in entry:
            continue
        entry["seconds"] = quartiles(entry["rounds"])
        if ours and engine != OURS:
            pairs = zip(entry["rounds"], ours, strict=False)  # it may have fewer rounds
            entry["ratio"] = quartiles([theirs / mine for theirs, mine in pairs])
        if engine == OURS:
            continue
        if not computes_in_float32(entry["info"]):
            entry["note"] = f"computes in {entry['info']['precision']}: not counted as a peer"
        elif capped and not ENGINES[engine].obeys_isa:
            entry["note"] = f"cannot be held to {isa}: not counted as a peer"
        elif fastest is None or entry["seconds"][1] < row["engines"][fastest]["seconds"][1]:
            fastest = engine
    row["fastest_peer"] = fastest
    row["ratio"] = row["engines"][fastest].get("ratio") if fastest else None
    return row
