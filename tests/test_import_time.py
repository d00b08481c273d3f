# SPDX-License-Identifier: MIT
"""``import lucid_c`` adds at most 30 ms to importing NumPy, and brings nothing heavy along."""

import statistics

import pytest

MEASURE = """
import time
import numpy
start = time.perf_counter()
import lucid_c
print(time.perf_counter() - start)
"""


def test_import_takes_at_most_30_ms(run_python):
    """The median of several fresh interpreters; on a busy machine the best of some such rounds."""
    run_python(MEASURE)  # byte code and disk cache are warm after this
    medians = []
    for _ in range(5):
        times = [float(run_python(MEASURE).stdout) for _ in range(7)]
        medians.append(statistics.median(times))
        if medians[-1] <= 0.030:
            return
    pytest.fail("medians in ms: " + ", ".join(f"{1000 * m:.1f}" for m in medians))


def test_nothing_heavy_is_imported(run_python):
    done = run_python("""
    import sys, numpy
    before = set(sys.modules)
    import lucid_c
    print(*sorted(set(sys.modules) - before))
    """)
    new = set(done.stdout.split())
    heavy = {
        "torch",
        "PIL",
        "safetensors",
        "matplotlib",
        "huggingface_hub",
        "tqdm",
        "onnx",
        "multiprocessing",
        "asyncio",
        "scipy",
        "sklearn",
        "ssl",
        "http.client",
        "unittest",
        "importlib.metadata",
        "argparse",
        "concurrent.futures",
    }
    assert not new & heavy
    assert "lucid_c" in new


def test_importing_does_not_change_the_floating_point_mode(run_python):
    """A library built with -ffast-math would flush denormals to zero for the whole process."""
    run_python("""
    import numpy as np
    import lucid_c
    lucid_c.nn.functional.relu([1.0])
    tiny = np.array([1e-310])
    assert (tiny / 2)[0] > 0 and np.float32(1e-40) * np.float32(0.5) > 0
    """)
