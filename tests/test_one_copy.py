# SPDX-License-Identifier: MIT
"""One copy of the weights: packing gives up their arrays, and nobody can tell by the numbers."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest

import lucid_c
from helpers import draw, reference_weights
from lucid_c import models, nn
from lucid_c.models.blocks import BasicBlock, Bottleneck

MiB = 1 << 20


def live():
    gc.collect()
    return lucid_c.memory_stats()["bytes"]


def wide(channels=768):
    """Two layers whose weights are nearly all of what it takes to run them."""
    model = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Linear(4, channels))
    reference_weights(model)
    return model[0], draw("x", (1, channels, 2, 2))


def bits_of(module):
    return {name: np.array(a).view(np.uint32) for name, a in module.state_dict().items()}


def assert_bits(module, bits):
    state = module.state_dict()
    assert list(state) == list(bits)
    for name, want in bits.items():
        np.testing.assert_array_equal(np.asarray(state[name]).view(np.uint32), want, err_msg=name)


CASES = {
    "3x3 and 1x1": lambda: models.ResNet(Bottleneck, [1, 1, 1, 1], 10, channels=(32, 32, 48, 64)),
    "stride 1 and 2": lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 72, 80, 96)),
    "groups": lambda: lucid_c.create_model("resnext_50_32x4d", num_classes=11, init=False),
    "split attention": lambda: lucid_c.create_model("resnest_14", num_classes=11, init=False),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_bit_by_bit(case):
    model = CASES[case]()
    reference_weights(model)
    before = bits_of(model)
    x = draw("x", (1, 3, 96, 80))
    first = np.array(model(x))
    held = live()
    assert_bits(model, before)
    np.testing.assert_array_equal(model(x), first)
    # nothing stays of what state_dict() brought back
    assert live() <= held + 4096


def test_packing_takes_the_memory_of_the_weights():
    layer, x = wide()
    size = layer.weight.numpy().nbytes
    before = live()
    y = np.array(layer(x))
    assert live() - before <= size / 8 + 200_000
    state = layer.state_dict()
    assert live() - before >= size - 4096
    del state
    assert live() - before <= size / 8 + 200_000
    np.testing.assert_array_equal(layer(x), y)


def test_an_array_that_is_held_keeps_its_memory():
    layer, x = wide()
    held = layer.weight.numpy()
    want = held.copy()
    layer(x)
    address = held.ctypes.data
    np.testing.assert_array_equal(held, want)
    assert layer.weight.numpy().ctypes.data == address


def test_odd_weights_come_back_too():
    """Channels that batch norm switches off, zeros of both signs, tiny and infinite numbers."""
    layer = nn.ConvBNReLU2d(128, 160, 3, padding=1)
    reference_weights(layer)
    state = {name: np.array(array) for name, array in layer.state_dict().items()}
    weight = next(array for array in state.values() if array.ndim == 4)
    flat = weight.reshape(-1)
    flat[5::97] = 0.0
    flat[6::97] = -0.0
    flat[7::97] *= 1e-38
    scale = next(a for n, a in state.items() if a.ndim == 1 and n.endswith("weight"))
    scale[3] = 0.0
    scale[7] = -2.0
    layer.load_state_dict(state)
    before = bits_of(layer)
    layer(draw("x", (1, 128, 12, 12)))
    assert_bits(layer, before)
    flat[11] = np.inf
    flat[4000] = np.nan
    layer.load_state_dict(state)
    before = bits_of(layer)
    layer(draw("x", (1, 128, 12, 12)))
    assert_bits(layer, before)


def test_other_sizes_batch_norm_and_new_weights():
    """Other packed forms of the same weights, and forms of changed ones."""
    model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 64, 64, 64))
    reference_weights(model)
    before = bits_of(model)
    fresh = copy.deepcopy(model)
    for size in (96, 40, 33, 96):
        x = draw("x", (1, 3, size, size))
        np.testing.assert_array_equal(model(x), copy.deepcopy(fresh)(x))
    assert_bits(model, before)
    held = live()
    for k in range(8):
        model.layer1[0].bn1.running_mean.copy_(np.full(64, 0.1 * k, np.float32))
        fresh.layer1[0].bn1.running_mean.copy_(np.full(64, 0.1 * k, np.float32))
        np.testing.assert_array_equal(model(x), copy.deepcopy(fresh)(x))
    # the forms of the last four values in whole pages, and a residue of 4 bits rather than 2
    assert live() <= held + 4 * (64 * 64 * 36 * 4 + 4096) + 64 * 64 * 9 // 4 + 8192
    model.layer1[0].conv1.weight[0] = 0.25
    fresh.layer1[0].conv1.weight[0] = 0.25
    np.testing.assert_array_equal(model(x), fresh(x))
    reference_weights(model, seed=2)
    other = copy.deepcopy(fresh)
    reference_weights(other, seed=2)
    np.testing.assert_array_equal(model(x), other(x))
    assert_bits(model, bits_of(other))


def test_copies_pickles_and_files(tmp_path):
    """The file that the weights came from may change or go: nothing is read from it again."""
    first = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 64, 64, 64))
    reference_weights(first)
    before = bits_of(first)
    path = tmp_path / "weights.safetensors"
    first.save(path)
    model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 64, 64, 64))
    twin = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 64, 64, 64))
    model.load(path)
    twin.load(path)
    x = draw("x", (1, 3, 64, 64))
    want = np.array(model(x))
    path.write_bytes(b"truncated")
    assert_bits(model, before)
    for other in (twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x), want)
        assert_bits(other, before)
    model.save(path)
    twin.load(path)
    np.testing.assert_array_equal(twin(x), want)
    path.unlink()
    assert_bits(twin, before)


def test_loading_fills_the_parameters_own_memory(tmp_path):
    """No array of the loaded file is alive beside the parameters, before packing and after."""
    layer, x = wide()
    path = tmp_path / "weights.safetensors"
    layer.save(path)
    want = np.array(layer(x))
    before = live()
    layer.load(path)
    size = layer.weight.numpy().nbytes
    assert live() <= before + 4096  # the old packed form went
    np.testing.assert_array_equal(layer(x), want)
    assert live() <= before + 4096
    layer.load_state_dict({name: np.array(a) for name, a in layer.state_dict().items()})
    np.testing.assert_array_equal(layer(x), want)
    assert live() <= before + 4096
    assert size > 2 * MiB


def test_threads_that_pack_and_read_at_the_same_time():
    for _ in range(5):
        model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 64, 64, 64))
        reference_weights(model)
        before = bits_of(model)
        x = [draw(f"x{k}", (1, 3, 48 + 8 * k, 40)) for k in range(3)]
        want = [np.array(copy.deepcopy(model)(each)) for each in x]
        errors = []

        def work(job, errors=errors):
            try:
                job()
            except BaseException as error:
                errors.append(error)

        jobs = [
            lambda k=k, m=model, x=x, want=want: np.testing.assert_array_equal(m(x[k]), want[k])
            for k in range(3)
        ] + [lambda m=model, b=before: assert_bits(m, b)] * 3
        threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert_bits(model, before)


def test_constants_are_made_once_with_few_allocations():
    """One block for all packed forms of a plan; none of it again for a second model's plan."""
    model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7, channels=(64, 64, 64, 64))
    reference_weights(model)
    x = draw("x", (1, 3, 64, 64))
    model(x)
    before = lucid_c.memory_stats()["allocations"]
    other = copy.deepcopy(model)
    made = lucid_c.memory_stats()["allocations"]
    other(x)
    first = lucid_c.memory_stats()["allocations"] - made
    model(x)
    assert lucid_c.memory_stats()["allocations"] - made - first <= 1
    assert first <= 12 * 14 + 40 and made > before  # 14 layers
