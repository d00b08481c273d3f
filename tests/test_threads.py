# SPDX-License-Identifier: MIT
"""Threads: Python's and ours, fork, other runtimes in the process, limits, Ctrl-C."""

import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import lucid_c
from conftest import package_env
from helpers import assert_same_bits, draw, reference_weights
from lucid_c import models
from lucid_c.models.blocks import BasicBlock, Bottleneck

# A small network, its input and its result; what most scripts below begin with.
PRELUDE = """
import os, sys, time
import numpy as np
{before}
import lucid_c
{after}
from lucid_c import models
from lucid_c.models.blocks import BasicBlock
lucid_c.random.seed(5)
model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(16, 24, 32, 40))
x = np.asarray(lucid_c.random.randn(2, 3, 96, 80))
"""


def prelude(before="", after=""):
    return PRELUDE.format(before=before, after=after)


def count_threads():
    return len(os.listdir("/proc/self/task"))


# --- Python threads --------------------------------------------------------------------------


def test_several_python_threads_use_one_model():
    model = models.ResNet(Bottleneck, [1, 1, 1, 1], 7, channels=(8, 16, 24, 32))
    reference_weights(model)
    inputs = [draw(f"x{i}", (1 + i % 3, 3, 48 + 9 * i, 64)) for i in range(6)]
    want = [np.array(model(x)) for x in inputs]
    problems, start = [], threading.Barrier(6)

    def work(i):
        try:
            start.wait()
            for k in range(8):
                j = (i + k) % 6
                assert_same_bits(model(inputs[j]), want[j])
        except BaseException as error:
            problems.append(error)

    crew = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in crew:
        t.start()
    for t in crew:
        t.join(60)
    assert not problems and not any(t.is_alive() for t in crew)


def test_threads_with_models_of_their_own():
    """Recorders are per thread: graphs that are recorded at the same time do not mix."""
    results, problems = {}, []

    class Slow(lucid_c.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            for _ in range(5):
                x = x * self.factor
                time.sleep(0.002)
            return x

    def work(i):
        try:
            results[i] = np.array(Slow(i + 1.0)(np.ones((3, 4), np.float32)))
        except BaseException as error:
            problems.append(error)

    crew = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for t in crew:
        t.start()
    for t in crew:
        t.join(30)
    assert not problems
    for i in range(5):
        np.testing.assert_array_equal(results[i], np.full((3, 4), (i + 1.0) ** 5, np.float32))


def test_a_recording_tensor_in_another_thread_raises():
    caught = []

    class Leaks(lucid_c.nn.Module):
        def forward(self, x):
            y = x * 2

            def use():
                try:
                    np.asarray(y + 1)
                except Exception as error:
                    caught.append(error)

            t = threading.Thread(target=use)
            t.start()
            t.join(20)
            return y

    assert_same_bits(Leaks()(np.ones(3, np.float32)), np.full(3, 2, np.float32))
    assert len(caught) == 1 and isinstance(caught[0], RuntimeError) and str(caught[0])


def test_weights_changed_while_other_threads_run():
    """Each result belongs to one state of the weights or the other; nothing crashes."""
    model = models.ResNet(BasicBlock, [1, 1, 1, 1], 5, channels=(8, 8, 8, 8))
    one = reference_weights(model, 1)
    x = draw("x", (1, 3, 40, 40))
    first = np.array(model(x))
    two = reference_weights(model, 2)
    second = np.array(model(x))
    stop, results, problems = threading.Event(), [], []

    def work():
        try:
            while not stop.is_set():
                results.append(np.array(model(x)))
        except BaseException as error:
            problems.append(error)

    crew = [threading.Thread(target=work) for _ in range(2)]
    for t in crew:
        t.start()
    for k in range(20):
        model.load_state_dict(one if k % 2 else two)
        time.sleep(0.005)
    stop.set()
    for t in crew:
        t.join(60)
    assert not problems and len(results) > 2
    assert all(np.isfinite(r).all() for r in results)
    model.load_state_dict(one)
    assert_same_bits(model(x), first)
    model.load_state_dict(two)
    assert_same_bits(model(x), second)


def test_the_gil_is_released(threads):
    threads(1)
    model = lucid_c.create_model("resnet_18", num_classes=5)
    x = draw("x", (1, 3, 224, 224))
    start = time.perf_counter()
    model(x)
    model(x)
    once = (time.perf_counter() - start) / 2
    batch = np.repeat(x, int(np.clip(0.6 / once, 2, 64)), axis=0)
    done = threading.Event()

    def work():
        model(batch)
        done.set()

    t = threading.Thread(target=work)
    ticks = 0
    t.start()
    begin = time.perf_counter()
    while not done.is_set():
        time.sleep(0.005)
        ticks += 1
    t.join()
    took = time.perf_counter() - begin
    assert ticks > 0.1 * took / 0.005, f"{ticks} ticks of 5 ms in {took:.2f} s"


# --- fork and multiprocessing ----------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 3])
def test_fork_after_a_parallel_forward(run_python, rounds):
    run_python(
        prelude()
        + f"""
lucid_c.set_num_threads(4)
want = np.array(model(x))
for _ in range({rounds}):
    pid = os.fork()
    if pid == 0:
        ok = np.array_equal(np.asarray(model(x)), want)
        ok = ok and np.array_equal(np.asarray(model(x)), want)
        os._exit(0 if ok else 3)
    assert np.array_equal(np.asarray(model(x)), want)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
        timeout=30,
    )


def test_fork_while_other_threads_run(run_python):
    """Locks are taken over the fork, so that no child inherits one that nobody gives back."""
    run_python(
        prelude()
        + """
import threading
lucid_c.set_num_threads(2)
want = np.array(model(x))
stop = threading.Event()
def work():
    while not stop.is_set():
        model(x)
crew = [threading.Thread(target=work) for _ in range(2)]
for t in crew: t.start()
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(np.asarray(model(x)), want) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for t in crew: t.join()
""",
        timeout=30,
    )


def test_fork_of_a_fork(run_python):
    run_python(
        prelude()
        + """
lucid_c.set_num_threads(3)
want = np.array(model(x))
pid = os.fork()
if pid == 0:
    model(x)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(np.asarray(model(x)), want) else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if np.array_equal(np.asarray(model(x)), want) else 4)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
        timeout=30,
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method):
    script = tmp_path / "pool.py"
    script.write_text(
        prelude()
        + f"""
import multiprocessing

def work(seed):
    return np.asarray(model(x + np.float32(seed)))

if __name__ == "__main__":
    lucid_c.set_num_threads(2)
    want = [np.array(work(s)) for s in range(4)]
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        got = pool.map_async(work, range(4)).get(50)
    assert all(np.array_equal(a, b) for a, b in zip(got, want))
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=package_env(),
        cwd=tmp_path,
        timeout=60,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


# --- other runtimes in the process -----------------------------------------------------------

COMPANIONS = {
    "torch": "import torch; torch.set_num_threads(2)",
    "sklearn": "import sklearn.cluster, sklearn.ensemble",
}
COMPANION_WORK = {
    "torch": "torch.randn(300, 300) @ torch.randn(300, 300); torch.nn.functional.conv2d("
    "torch.randn(4, 8, 64, 64), torch.randn(8, 8, 3, 3))",
    "sklearn": "sklearn.cluster.KMeans(3, n_init=1).fit(np.random.rand(2000, 5))",
}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("other", COMPANIONS)
def test_with_another_threaded_library(run_python, other, order):
    pytest.importorskip(other)
    code = (
        prelude(**{order: COMPANIONS[other]})
        + f"""
lucid_c.set_num_threads(2)
want = np.array(model(x))
for _ in range(3):
    {COMPANION_WORK[other]}
    assert np.array_equal(np.asarray(model(x)), want)
pid = os.fork()
if pid == 0:
    os._exit(0 if np.array_equal(np.asarray(model(x)), want) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    )
    run_python(code, timeout=120)


def test_torch_does_not_slow_us_down(run_python):
    pytest.importorskip("torch")
    code = (
        prelude()
        + """
lucid_c.set_num_threads(2)
big = np.asarray(lucid_c.random.randn(4, 3, 224, 224))
def best(n=7):
    times = []
    for _ in range(n):
        t = time.perf_counter(); model(big); times.append(time.perf_counter() - t)
    return min(times)
best(2)
alone = best()
import torch
torch.set_num_threads(2)
torch.randn(500, 500) @ torch.randn(500, 500)
print(best() / alone)
"""
    )
    ratios = []
    for _ in range(3):
        ratios.append(float(run_python(code, timeout=120).stdout))
        if ratios[-1] < 1.5:
            return
    pytest.fail(f"slower beside torch, by {ratios}")


def test_threadpool_limits_reach_us(run_python):
    pytest.importorskip("threadpoolctl")
    run_python(
        prelude()
        + """
from threadpoolctl import threadpool_limits
lucid_c.set_num_threads(3)
before = len(os.listdir("/proc/self/task"))
with threadpool_limits(limits=1):
    want = np.array(model(x))
    assert len(os.listdir("/proc/self/task")) == before, "threads were started within the limit"
assert np.array_equal(np.asarray(model(x)), want)
""",
        env={"OPENBLAS_NUM_THREADS": "1"},
    )


# --- how many threads ------------------------------------------------------------------------


def default_count(run_python, env=None, before="", **popen):
    env = {
        "LUCID_C_NUM_THREADS": None,
        "OMP_NUM_THREADS": None,
        "OMP_THREAD_LIMIT": None,
        **(env or {}),
    }
    done = run_python(
        f"""
import os
{before}
import lucid_c
c = lucid_c.config()
assert c["num_threads"] == lucid_c.get_num_threads()
lucid_c.nn.functional.relu([1.0, -1.0])
print(c["num_threads"])
print(c["threads_rule"])
""",
        env=env,
        **popen,
    )
    count, rule = done.stdout.splitlines()
    return int(count), rule


def test_the_default_is_within_the_affinity_mask(run_python):
    count, rule = default_count(run_python)
    assert 1 <= count <= len(os.sched_getaffinity(0)) and rule
    one = f"os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})"
    count, rule = default_count(run_python, before=one)
    assert count == 1
    if len(os.sched_getaffinity(0)) > 1:
        assert "affinity" in rule.lower()


@pytest.mark.parametrize(
    "name,value",
    [
        ("LUCID_C_NUM_THREADS", 3),
        ("LUCID_C_NUM_THREADS", 1),
        ("OMP_NUM_THREADS", 1),
        ("OMP_THREAD_LIMIT", 1),
    ],
)
def test_environment_variables(run_python, name, value):
    count, rule = default_count(run_python, {name: value})
    assert count == value
    if name.startswith("LUCID_C") or len(os.sched_getaffinity(0)) > 1:
        assert name in rule


def test_our_variable_wins(run_python):
    env = {"OMP_NUM_THREADS": 1, "LUCID_C_NUM_THREADS": 3}
    assert default_count(run_python, env)[0] == 3


@pytest.mark.parametrize("value", ["zero", "0", "-2", "", "99999999999999999999"])
def test_senseless_variables_do_not_crash(run_python, value):
    done = run_python(
        "import lucid_c; lucid_c.nn.functional.relu([1.0]);print(lucid_c.get_num_threads())",
        env={"LUCID_C_NUM_THREADS": value},
        check=False,
    )
    assert done.returncode in (0, 1)
    assert done.returncode == 0 or "LUCID_C_NUM_THREADS" in done.stderr
    if done.returncode == 0:
        assert int(done.stdout) >= 1


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("quota,count", [("50000", 1), ("150000", 2), ("max", None)])
def test_a_cpu_quota(run_python, tmp_path, version, quota, count):
    """A mocked tree of control groups: LUCID_C_CGROUP_ROOT is put before every path."""
    root = tmp_path / "root"
    group = root / "sys/fs/cgroup/service"
    group.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    if version == "v2":
        (root / "proc/self/cgroup").write_text("0::/service\n")
        (root / "proc/self/mountinfo").write_text(
            "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
        )
        (group / "cpu.max").write_text(f"{quota} 100000\n")
        (group.parent / "cpu.max").write_text("max 100000\n")
    else:
        (root / "proc/self/cgroup").write_text("4:cpu,cpuacct:/service\n0::/\n")
        (root / "proc/self/mountinfo").write_text(
            "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
        )
        (group / "cpu.cfs_quota_us").write_text(f"{'-1' if quota == 'max' else quota}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
    free, _ = default_count(run_python, {"LUCID_C_CGROUP_ROOT": tmp_path / "nothing"})
    got, rule = default_count(run_python, {"LUCID_C_CGROUP_ROOT": root})
    assert got == (free if count is None else min(free, count))
    if count is not None and count < free:
        assert "quota" in rule.lower()


def test_set_num_threads_starts_that_many(run_python):
    run_python(
        prelude()
        + """
def tasks(): return len(os.listdir("/proc/self/task"))
before = tasks()
lucid_c.set_num_threads(1)
model(x)
assert tasks() == before, "one thread means no new thread"
lucid_c.set_num_threads(3)
model(x)
assert before < tasks() <= before + 2, (before, tasks())
"""
    )


def test_importing_starts_no_thread(run_python):
    run_python("""
import os, numpy
before = len(os.listdir("/proc/self/task"))
import lucid_c
model = lucid_c.models.resnet_18(num_classes=3)
assert len(os.listdir("/proc/self/task")) == before
""")


def test_no_affinity_is_set(run_python):
    run_python(
        prelude()
        + """
before = os.sched_getaffinity(0)
lucid_c.set_num_threads(2)
model(x)
assert all(os.sched_getaffinity(int(t)) == before for t in os.listdir("/proc/self/task"))
"""
    )


# --- when threads cannot be had --------------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
/* How many more threads may be alive; negative: any number.  One that ends makes room. */
int threads_left = -1;
typedef struct { void *(*f)(void *); void *x; } job;
static void ended(void *unused)
{
    (void)unused;
    if (__atomic_load_n(&threads_left, __ATOMIC_SEQ_CST) >= 0)
        __atomic_add_fetch(&threads_left, 1, __ATOMIC_SEQ_CST);
}
static void *run(void *given)
{
    job j = *(job *)given;
    void *result;
    free(given);
    pthread_cleanup_push(ended, NULL);
    result = j.f(j.x);
    pthread_cleanup_pop(1);
    return result;
}
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "pthread_create");
        __builtin_memcpy(&real, &symbol, sizeof real);
    }
    if (threads_left == 0)
        return EAGAIN;
    if (threads_left > 0)
        __atomic_sub_fetch(&threads_left, 1, __ATOMIC_SEQ_CST);
    job *j = malloc(sizeof *j);
    j->f = f;
    j->x = x;
    return real(t, a, run, j);
}
"""


@pytest.fixture(scope="module")
def failing_threads(tmp_path_factory):
    """A library to preload whose pthread_create fails when told to."""
    cc = shutil.which("cc") or shutil.which("gcc")
    if cc is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        [cc, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True
    )
    return folder / "shim.so"


@pytest.mark.parametrize("allowed", [0, 1, 2, 4])
@pytest.mark.parametrize("warm", [False, True])
def test_thread_creation_fails(run_python, failing_threads, allowed, warm):
    """libgomp would end the process.  ``allowed`` new threads may be alive, then no more."""
    run_python(
        prelude()
        + f"""
import ctypes
lucid_c.set_num_threads(1)
want = np.array(model(x))
if {warm}:
    lucid_c.set_num_threads(2)
    model(x)
left = ctypes.c_int.in_dll(ctypes.CDLL(None), "threads_left")
left.value = {allowed}
lucid_c.set_num_threads(5)
for _ in range(3):
    assert np.array_equal(np.asarray(model(x)), want)
left.value = 0
assert np.array_equal(np.asarray(model(x)), want)
left.value = -1
assert np.array_equal(np.asarray(model(x)), want)
""",
        env={"LD_PRELOAD": failing_threads, "OPENBLAS_NUM_THREADS": "1"},
    )


def test_rlimit_nproc(run_python):
    """As an unprivileged user, because root is exempt: all is imported before root is left."""
    done = run_python(
        prelude()
        + """
import resource, threading
lucid_c.set_num_threads(1)
want = np.array(model(x))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=print).start()
    print("no limit")
except RuntimeError:
    pass
lucid_c.set_num_threads(4)
for _ in range(2):
    assert np.array_equal(np.asarray(model(x)), want)
""",
        env={"OPENBLAS_NUM_THREADS": "1"},
    )
    if "no limit" in done.stdout:
        pytest.skip("RLIMIT_NPROC does not limit here")


# --- Ctrl-C ----------------------------------------------------------------------------------

INTERRUPT = """
import os, signal, threading, time
import numpy as np, lucid_c
lucid_c.set_num_threads({threads})
model = lucid_c.create_model("resnet_18", num_classes=5)
small = np.ones((1, 3, 224, 224), np.float32)
want = np.array(model(small))
t = time.perf_counter(); model(small); once = time.perf_counter() - t
batch = int(min(max(4 / once, 8), 400))
large = np.ones((batch, 3, 224, 224), np.float32)
sent = []
def press():
    time.sleep(0.5)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    model(large)
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
else:
    raise SystemExit("the run ended without a KeyboardInterrupt")
assert np.array_equal(np.asarray(model(small)), want)
assert np.array_equal(np.asarray(model(large[:2]))[1], np.asarray(model(small))[0])
"""


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_during_a_long_run(run_python, count):
    """Aimed at 100 ms; the bound here leaves room for a busy machine."""
    delays = []
    for _ in range(3):
        done = run_python(INTERRUPT.format(threads=count), timeout=120)
        delays.append(float(done.stdout.split()[-1]))
        if delays[-1] <= 0.25:
            return
    pytest.fail(f"KeyboardInterrupt came after {delays} s")


def test_a_signal_handler_of_ones_own_runs_during_a_long_run(run_python):
    run_python(
        """
import signal, time
import numpy as np, lucid_c
model = lucid_c.create_model("resnet_18", num_classes=5)
x = np.ones((1, 3, 224, 224), np.float32)
model(x)
t = time.perf_counter(); want = np.array(model(x)); once = time.perf_counter() - t
large = np.repeat(x, int(min(max(2 / once, 8), 200)), axis=0)
class Mine(Exception): pass
seen = []
def handler(*_):
    seen.append(time.perf_counter())
    if len(seen) == 2:
        raise Mine
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
try:
    model(large)
except Mine:
    signal.setitimer(signal.ITIMER_REAL, 0)
else:
    raise SystemExit("the handler's exception was lost")
assert len(seen) == 2 and seen[1] - seen[0] < 1
assert np.array_equal(np.asarray(model(x)), want)
""",
        timeout=120,
    )
