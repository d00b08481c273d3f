# SPDX-License-Identifier: MIT
"""Memory: the whole process, allocations of a repeated call, many sizes, many models."""

import gc

import numpy as np
import pytest

import lucid_c
from helpers import draw, reference_weights
from lucid_c import _core, models, nn
from lucid_c.models.blocks import BasicBlock

MiB = 1 << 20


def test_the_whole_process_of_resnet_50(run_python, tmp_path):
    """Peak resident memory of import, model, weights from a file and two calls: VmHWM, because the
    figure of getrusage begins with the parent's. The packed forms alone take 226 MiB with AVX2."""
    path = tmp_path / "resnet_50.safetensors"
    lucid_c.create_model("resnet_50").save(path)
    done = run_python(f"""
    import numpy as np, lucid_c
    model = lucid_c.create_model("resnet_50", checkpoint_path={str(path)!r})
    x = np.asarray(lucid_c.random.randn(1, 3, 224, 224))
    for _ in range(2):
        y = model(x)
    assert y.shape == (1, 1000)
    print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    """)
    assert int(done.stdout) * 1024 <= 300 * MiB, f"{int(done.stdout) / 1024:.0f} MiB"


def small_model():
    model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(8, 16, 16, 24))
    reference_weights(model)
    return model


def test_memory_stats_count():
    before = lucid_c.memory_stats()
    layer = nn.Linear(1000, 1000)
    after = lucid_c.memory_stats()
    assert after["allocations"] > before["allocations"]
    assert after["bytes"] >= before["bytes"] + 4_000_000
    del layer
    gc.collect()
    assert lucid_c.memory_stats()["bytes"] <= before["bytes"] + 4096


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 57, 41)])
def test_a_second_call_allocates_nothing_but_its_result(shape):
    model, x = small_model(), draw("x", shape)
    first = model(x)
    for _ in range(4):
        before = lucid_c.memory_stats()
        result = model(x)
        after = lucid_c.memory_stats()
        assert after["allocations"] - before["allocations"] <= 1
        assert after["bytes"] - before["bytes"] <= result.numpy().nbytes + 256
        del result
    assert first.shape == (shape[0], 7)


def test_a_training_step_keeps_its_memory_for_the_next_one():
    """Above the bound for idle memory, too, and though the loss is the plan used last; until it has
    not been used for a while."""
    _core.clear_plans()
    model, x = nn.Conv2d(1, 16, 1).train(), np.ones((1, 1, 2100, 2000), "float32")
    target = np.zeros((1, 16), "float32")
    for _ in range(2):
        lucid_c.nn.functional.mse_loss(model(x).mean((2, 3)), target).backward()
        assert _core.plan_stats()["arena_bytes"] > 256 * MiB
    small, x = nn.Linear(3, 3).train(), np.ones((1, 3), "float32")
    for _ in range(70):
        small(x).sum().backward()
    assert _core.plan_stats()["arena_bytes"] <= 256 * MiB


@pytest.mark.slow
def test_200_sizes_stay_bounded():
    """The plan cache is bounded: live bytes do not grow with the number of sizes seen."""
    model = small_model()
    sizes = [(24 + i, 24 + (37 * i) % 61) for i in range(200)]
    largest = []
    for k, (h, w) in enumerate(sizes):
        x = draw("x", (1, 3, h, w))
        model(x)
        if k % 50 == 49:
            gc.collect()
            largest.append((lucid_c.memory_stats()["bytes"], resident()))
    # The sizes grow, so do the plans; a plan of the largest takes a few MiB at the most.
    weights = sum(p.numpy().nbytes for p in model.parameters())
    assert largest[-1][0] - largest[0][0] <= 64 * MiB + weights, largest
    assert largest[-1][1] - largest[0][1] <= 96 * MiB + weights, largest
    x = draw("x", (1, 3, 24, 24))
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(model(x)))


@pytest.mark.slow
def test_more_different_graphs_than_the_cache_holds():
    """Each operator on new shapes is a graph of its own."""
    x = np.ones((1, 1 << 16), np.float32)
    start = None
    for k in range(1, 600):
        lucid_c.ops.add(x[:, : 1000 + k], 1.0)
        if k == 300:
            gc.collect()
            start = lucid_c.memory_stats()["bytes"]
    gc.collect()
    assert lucid_c.memory_stats()["bytes"] <= start + 4 * MiB


def resident():
    with open("/proc/self/status") as status:
        return int(status.read().split("VmRSS:")[1].split()[0]) * 1024


def test_models_that_come_and_go_leave_nothing():
    x = draw("x", (1, 3, 48, 48))

    def once():
        model = small_model()
        result = np.array(model(x))
        state = model.state_dict()
        assert len(state) > 10
        return result

    for _ in range(3):
        want = once()
    gc.collect()
    before = lucid_c.memory_stats()["bytes"]
    for _ in range(10):
        np.testing.assert_array_equal(once(), want)
    gc.collect()
    # Plans may stay, weights may not: ten models have 10 * 0.6 MB.
    assert lucid_c.memory_stats()["bytes"] <= before + 100_000


def test_results_are_freed():
    x = np.ones((1 << 20,), np.float32)
    y = lucid_c.ops.add(x, 1.0)
    before = resident()
    for _ in range(100):
        y = lucid_c.ops.add(x, 1.0)
    assert resident() - before <= 40 * MiB
    assert y.numpy()[-1] == 2


def test_resident_memory_does_not_creep():
    model, x = small_model(), draw("x", (1, 3, 48, 48))
    for _ in range(50):
        model(x)
    before = resident()
    for _ in range(500):
        model(x)
    assert resident() - before <= 4 * MiB


def test_hooks_and_feature_tensors_are_freed():
    model, x = small_model(), draw("x", (1, 3, 96, 96))
    kept = {}
    model(x)
    handle = model.layer1.register_forward_hook(lambda m, i, o: kept.update(feature=o))
    model(x)
    before = lucid_c.memory_stats()["bytes"]
    for _ in range(20):
        model(x)
    assert lucid_c.memory_stats()["bytes"] <= before + 4096
    handle.remove()


def test_loading_weights_again_and_again_does_not_grow():
    model, x = small_model(), draw("x", (1, 3, 48, 48))
    weights = {k: np.array(v) for k, v in model.state_dict().items()}
    for _ in range(3):
        model.load_state_dict(weights)
        model(x)
    before = lucid_c.memory_stats()["bytes"]
    for _ in range(20):
        model.load_state_dict(weights)
        model(x)
    assert lucid_c.memory_stats()["bytes"] <= before + 4096
