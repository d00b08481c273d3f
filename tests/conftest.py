# SPDX-License-Identifier: MIT
"""Markers, and fixtures that more than one file uses."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

MARKERS = {
    "isa": "runs on every instruction set level (LUCID_C_ISA), in a process of its own",
    "kernel": "exercises one inner loop over many shapes",
    "ops": "exercises operators against the oracle",
    "family": "one model of every family against the reference",
    "slow": "a soak; deselect with -m 'not slow'",
}


def pytest_configure(config):
    # Whoever runs us in the background has Ctrl-C ignored, by us and by all that we start.
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")


def pytest_collection_modifyitems(items):
    """In test_reference.py the tests of one model stand together: it is built and filled once."""
    where = [i for i, item in enumerate(items) if item.path.name == "test_reference.py"]
    mine = sorted((items[i] for i in where), key=lambda item: item.callspec.params["name"])
    for i, item in zip(where, mine, strict=True):
        items[i] = item


def package_env():
    """The environment in which a child process finds the same lucid_c as this one."""
    import lucid_c

    env = dict(os.environ)
    home = Path(lucid_c.__file__).resolve().parents[1]
    if home.name not in ("site-packages", "dist-packages"):
        old = env.get("PYTHONPATH")
        env["PYTHONPATH"] = str(home) + (os.pathsep + old if old else "")
    return env


@pytest.fixture
def torch():
    """PyTorch, or the test is skipped."""
    return pytest.importorskip("torch")


@pytest.fixture
def run_python(tmp_path):
    """run(code, env={}, timeout=60, check=True, **popen) -> CompletedProcess.

    The code runs in a fresh interpreter, in an empty folder, with the same lucid_c.  An
    environment value of None removes the variable.
    """

    def run(code, *, env=None, timeout=60, check=True, args=(), **popen):
        full = package_env()
        for key, value in (env or {}).items():
            if value is None:
                full.pop(key, None)
            else:
                full[key] = str(value)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
            env=full,
            cwd=popen.pop("cwd", tmp_path),
            timeout=timeout,
            text=True,
            capture_output=True,
            **popen,
        )
        if check and done.returncode != 0:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    run.folder = tmp_path
    return run


@pytest.fixture
def threads():
    """lucid_c.set_num_threads, with the old count put back afterwards."""
    import lucid_c

    before = lucid_c.get_num_threads()
    yield lucid_c.set_num_threads
    lucid_c.set_num_threads(before)


@pytest.fixture(scope="session")
def reference_dir():
    return HERE / "data" / "reference"


@pytest.fixture(scope="session")
def outside_data():
    """The folder of test data that is not ours: photos and a checkpoint."""
    folder = os.environ.get("LUCID_C_TEST_DATA")
    if not folder:
        pytest.skip("LUCID_C_TEST_DATA is not set")
    return Path(folder)
