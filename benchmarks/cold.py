# SPDX-License-Identifier: MIT
"""A whole process from its start to the first result, as a line of JSON:

    cold.py ENGINE MODEL FOLDER N,C,H,W THREADS CALLS START

START is the reading of the monotonic clock when the process was asked for. Then CALLS calls follow,
which show what later ones take.
"""

import sys
import time

begun = time.monotonic()

import json  # noqa: E402
from importlib import import_module  # noqa: E402

import files  # noqa: E402
import numpy as np  # noqa: E402
from engines import ENGINES  # noqa: E402
from worker import end_with_parent, peak_rss  # noqa: E402


def main(name, model, folder, shape, threads, calls, start):
    end_with_parent()
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
    x = files.draw_images(shape)
    last = time.monotonic()
    engine.run(x)
    mark("first")
    marks["total"] = last - float(start)
    peak_first = peak_rss()
    later = []
    for _ in range(int(calls)):
        last = time.monotonic()
        engine.run(x)
        later.append(time.monotonic() - last)
    print(
        json.dumps(
            {
                **marks,
                "later": float(np.median(later)) if later else None,
                "peak_rss_first": peak_first,
                "peak_rss": peak_rss(),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
