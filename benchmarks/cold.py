# SPDX-License-Identifier: MIT
"""A whole process from its start to the first result, as a line of JSON:

    cold.py ENGINE MODEL FOLDER N,C,H,W THREADS CALLS START

START is the reading of the monotonic clock when the process was asked for. Like a user's script, it
imports NumPy and the engine's library and not much else, and the time in which its input is drawn
does not count. Then CALLS calls follow, which show what later ones take.
"""

import time

begun = time.monotonic()

import sys  # noqa: E402
from importlib import import_module  # noqa: E402

import numpy as np  # noqa: E402
from engines import ENGINES  # noqa: E402
from files import draw_images  # noqa: E402
from process import peak_rss  # noqa: E402


def main(name, model, folder, shape, threads, calls, start):
    shape = tuple(map(int, shape.split(",")))
    marks = {"start": begun - float(start)}
    last = begun

    def mark(what):
        nonlocal last
        now = time.monotonic()
        marks[what], last = now - last, now

    engine = ENGINES[name]()
    import_module(engine.library)
    mark("import")
    engine.load(model, folder, shape, int(threads))
    mark("load")
    x = draw_images(shape)
    last = time.monotonic()
    engine.run(x)
    mark("first")
    marks["total"] = sum(marks.values())
    peak_first = peak_rss()
    later = []
    for _ in range(int(calls)):
        last = time.monotonic()
        engine.run(x)
        later.append(time.monotonic() - last)
    marks["later"] = float(np.median(later)) if later else None
    import json

    print(json.dumps({**marks, "peak_rss_first": peak_first, "peak_rss": peak_rss()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
