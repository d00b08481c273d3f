# SPDX-License-Identifier: MIT
"""Timing of repeated calls."""

import statistics
import time
from typing import NamedTuple


class Times(NamedTuple):
    """Seconds that one call took: the middle one of several, the shortest, the longest."""

    median: float
    fastest: float
    slowest: float
    runs: int


def measure(call, runs, warmup, done=lambda: None):
    """Times ``call()``.

    Parameters
    ----------
    call : callable
        What to time.
    runs, warmup : int
        How many calls are timed, and how many go before them untimed.
    done : callable
        Called after each call, outside of the timing.

    Returns
    -------
    Times
    """
    for _ in range(warmup):
        call()
        done()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        done()
    return Times(statistics.median(seconds), min(seconds), max(seconds), runs)
