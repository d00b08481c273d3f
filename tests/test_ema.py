# SPDX-License-Identifier: MIT
"""Averages of weights."""

import pickle

import numpy as np
import pytest

from lucid_c import nn, optim


def make_model():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(7, 2))


def change(model, seed):
    rng = np.random.default_rng(seed)
    model.load_state_dict(
        {name: rng.standard_normal(x.shape) for name, x in model.state_dict().items()}
    )
    return model.state_dict()


@pytest.mark.parametrize("decay,warmup", [(0.9, False), (0.9, True), (0.5, False), (0.0, False)])
def test_the_average_of_ten_updates(decay, warmup):
    model = make_model()
    change(model, 0)
    ema = optim.EMA(model, decay, warmup)
    want = {name: x.astype(np.float64) for name, x in model.state_dict().items()}
    for step in range(10):
        now = change(model, 1 + step)
        d = min(decay, (1 + step) / (10 + step)) if warmup else decay
        for name, x in now.items():
            buffer = "running" in name
            want[name] = x if buffer else want[name] + (x.astype(np.float64) - want[name]) * (1 - d)
        ema.update()
    got = ema.weights()
    assert got.keys() == want.keys() and ema.updates == 10
    for name, x in got.items():
        np.testing.assert_allclose(x, want[name], rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(got["1.running_mean"], model.state_dict()["1.running_mean"])


def test_apply_and_restore():
    model = make_model()
    change(model, 0)
    ema = optim.EMA(model, 0.5)
    change(model, 1)
    ema.update()
    last, average = model.state_dict(), ema.weights()
    assert not np.array_equal(last["3.weight"], average["3.weight"])
    with ema.applied() as same:
        assert same is model
        for name, x in model.state_dict().items():
            np.testing.assert_array_equal(x, average[name])
        assert np.shares_memory(model[3].weight.numpy(), average["3.weight"])
        with pytest.raises(RuntimeError, match="restore"):
            ema.update()
        with pytest.raises(RuntimeError, match="already"):
            ema.apply()
        # a step on the applied weights does not reach the average
        model[3].weight.grad = np.ones((2, 7), np.float32)
        optim.SGD(model.parameters(), 0.5).step()
        np.testing.assert_array_equal(ema.weights()["3.weight"], average["3.weight"])
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x, last[name])
    with pytest.raises(RuntimeError, match="not applied"):
        ema.restore()
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    np.testing.assert_array_equal(model[0].weight, last["0.weight"])


def test_the_forward_uses_the_applied_weights():
    model = nn.Linear(3, 2)
    x = np.ones((1, 3), np.float32)
    ema = optim.EMA(model, 0.9)
    first = np.array(model(x))
    model.weight.fill_(5.0)
    model(x)
    with ema.applied():
        np.testing.assert_array_equal(model(x), first)
    assert abs(model(x).numpy()[0, 0] - model.bias.numpy()[0] - 15) < 1e-4


def test_weights_that_were_read_keep_their_numbers():
    model = make_model()
    ema = optim.EMA(model, 0.5)
    held = ema.weights()
    copies = {name: np.array(x) for name, x in held.items()}
    for step in range(3):
        change(model, step)
        ema.update()
    for name, x in held.items():
        np.testing.assert_array_equal(x, copies[name])
        assert not x.flags.writeable


def test_a_loaded_state_continues_bit_for_bit():
    model = make_model()
    change(model, 0)
    ema = optim.EMA(model, 0.99, warmup=True)
    for step in range(8):
        if step == 4:
            saved = pickle.loads(pickle.dumps(ema.state_dict()))
            other_model = make_model()
            other = optim.EMA(other_model, 0.1)
            other.load_state_dict(saved)
        if step >= 4:
            change(other_model, step)
            other.update()
        change(model, step)
        ema.update()
    assert (other.decay, other.warmup, other.updates) == (0.99, True, 8)
    for name, x in ema.weights().items():
        assert x.tobytes() == other.weights()[name].tobytes()


def test_every_number_of_threads_gives_the_same_bits(threads):
    results = []
    for count in (1, 3):
        threads(count)
        model = nn.Linear(1001, 777)
        change(model, 0)
        ema = optim.EMA(model, 0.3)
        change(model, 1)
        ema.update()
        results.append(ema.weights()["weight"].tobytes())
    assert results[0] == results[1]


def test_bad_input_changes_nothing():
    model = make_model()
    for args, error in (((nn.Linear,), TypeError), ((model, 1.5), ValueError)):
        with pytest.raises(error):
            optim.EMA(*args)
    ema = optim.EMA(model)
    good = ema.state_dict()
    before = pickle.dumps(good)
    weights = good["weights"]
    for bad in (
        None,
        {},
        good | {"weights": {}},
        good | {"weights": [1]},
        good | {"updates": -1},
        good | {"updates": 1.5},
        good | {"decay": 2.0},
        good | {"weights": weights | {"3.bias": np.zeros(3, np.float32)}},
        good | {"weights": weights | {"3.bias": np.zeros(2, np.int64)}},
    ):
        with pytest.raises(ValueError):
            ema.load_state_dict(bad)
        assert pickle.dumps(ema.state_dict()) == before
    model[3] = nn.Linear(7, 3)
    with pytest.raises(RuntimeError, match=r"'3\.(weight|bias)' does not fit"):
        ema.update()
    del model[3]
    with pytest.raises(RuntimeError, match="does not fit"):
        ema.apply()
