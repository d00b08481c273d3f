# SPDX-License-Identifier: MIT
"""Optimizers: gradients on parameters, updates against PyTorch and the papers, state."""

import pickle
import re

import numpy as np
import pytest

from lucid_c import Tensor, nn, optim
from lucid_c.autograd import no_grad


def test_the_gradient_of_a_parameter():
    p = nn.Parameter(np.ones((2, 3), np.float32))
    assert p.grad is None
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    p.grad = source
    source[0, 0] = 100  # copied in
    kept = p.grad
    assert isinstance(kept, Tensor) and kept.shape == (2, 3)
    np.testing.assert_array_equal(kept, np.arange(6).reshape(2, 3))
    kept[0, 1] = -1  # the gradient's own memory
    assert p.grad.numpy()[0, 1] == -1
    p.grad = Tensor(np.zeros((3, 2), np.float32).T)  # not contiguous
    assert not p.grad.numpy().any() and kept.numpy()[0, 1] == -1
    for bad, error in [
        (np.zeros((3, 2), np.float32), ValueError),
        (np.zeros(6, np.float32), ValueError),
        (np.zeros((2, 3)), TypeError),
        (np.zeros((2, 3), np.int64), TypeError),
        ([[0.0] * 3] * 2, TypeError),
        (1.0, TypeError),
    ]:
        with pytest.raises(error, match="grad"):
            p.grad = bad
        assert p.grad is not None
    p.grad = None
    assert p.grad is None
    p.grad = source
    del p.grad
    assert p.grad is None
    x = Tensor([1.0])
    assert x.grad is None
    x.grad = None
    with pytest.raises(RuntimeError):
        x.grad = Tensor([1.0])


def test_two_wrappers_of_a_parameter_share_the_gradient():
    layer = nn.Linear(3, 2)
    layer.weight.grad = np.ones((2, 3), np.float32)
    same = dict(layer.named_parameters())["weight"]
    assert same.grad.numpy().sum() == 6


# --- against PyTorch and the papers

SHAPES = [(7,), (3, 5, 2), (1,), (129, 31), ()]
STEPS = 10


def numbers(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def gradients(step, shapes=SHAPES):
    return numbers(100 + step, shapes)


def groups_of(params):
    """Two groups, the second with options of its own."""
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.03, "weight_decay": 0.2}]


def train(make, steps=STEPS, missing=(), params=None, optimizer=None, first=0):
    """Parameters after some steps; parameter 1 has no gradient in the steps `missing`."""
    params = [nn.Parameter(x) for x in numbers(0)] if params is None else params
    optimizer = make(groups_of(params)) if optimizer is None else optimizer
    for step in range(first, steps):
        optimizer.zero_grad()
        for i, (p, g) in enumerate(zip(params, gradients(step), strict=True)):
            if not (i == 1 and step in missing):
                p.grad = g
        optimizer.step()
    return params, optimizer


def train_torch(make, missing=()):
    torch = pytest.importorskip("torch")
    params = [torch.nn.Parameter(torch.tensor(x)) for x in numbers(0)]
    optimizer = make(torch.optim, groups_of(params))
    for step in range(STEPS):
        optimizer.zero_grad()
        for i, (p, g) in enumerate(zip(params, gradients(step), strict=True)):
            if not (i == 1 and step in missing):
                p.grad = torch.tensor(g)
        optimizer.step()
    return params, optimizer


def compare_states(mine, theirs):
    assert mine["state"].keys() == theirs["state"].keys()
    for i, state in theirs["state"].items():
        state = {name: value for name, value in state.items() if value is not None}
        assert mine["state"][i].keys() == state.keys()
        for name, value in state.items():
            got = mine["state"][i][name]
            assert isinstance(got, np.ndarray) and got.shape == tuple(value.shape), name
            np.testing.assert_allclose(got, value.numpy(), rtol=2e-5, atol=2e-6, err_msg=name)
    for a, b in zip(mine["param_groups"], theirs["param_groups"], strict=True):
        for name, value in a.items():
            assert b[name] == value, name


CONFIGS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd-decay-max": ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    "sgd-momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd-nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "sgd-fused": ("SGD", {"lr": 0.1, "momentum": 0.9, "foreach": False}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam-decay": ("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "adam-amsgrad": ("Adam", {"lr": 0.01, "betas": (0.5, 0.6), "amsgrad": True, "maximize": True}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw-decay": ("AdamW", {"lr": 0.02, "weight_decay": 0.3, "amsgrad": True}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_ten_steps_as_in_torch(name):
    cls, options = CONFIGS[name]
    missing = (0, 4, 5)
    mine, optimizer = train(lambda groups: getattr(optim, cls)(groups, **options), missing=missing)
    theirs, other = train_torch(lambda lib, groups: getattr(lib, cls)(groups, **options), missing)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=2e-5, atol=2e-6)
    compare_states(optimizer.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", ["sgd-momentum", "adam-amsgrad", "adamw"])
def test_a_state_dict_of_torch_continues(name):
    torch = pytest.importorskip("torch")
    cls, options = CONFIGS[name]
    theirs, other = train_torch(lambda lib, groups: getattr(lib, cls)(groups, **options))
    params = [nn.Parameter(x.detach().numpy()) for x in theirs]
    optimizer = getattr(optim, cls)(groups_of(params), lr=1.0)
    optimizer.load_state_dict(other.state_dict())
    compare_states(optimizer.state_dict(), other.state_dict())
    for p, q, g in zip(params, theirs, gradients(77), strict=True):
        p.grad, q.grad = g, torch.tensor(g)
    optimizer.step()
    other.step()
    for a, b in zip(params, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=2e-5, atol=2e-6)


def lamb_oracle(p, grads, lr, betas, eps, decay, correct, always):
    p, (b1, b2) = p.astype(np.float64), betas
    m = v = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g.astype(np.float64) ** 2
        c1, c2 = (1 - b1**t, 1 - b2**t) if correct else (1, 1)
        u = (m / c1) / (np.sqrt(v / c2) + eps) + decay * p
        norms = np.linalg.norm(p), np.linalg.norm(u)
        adapt = (decay or always) and min(norms) > 0
        p = p - lr * (norms[0] / norms[1] if adapt else 1) * u
    return p


def lars_oracle(p, grads, lr, momentum, decay, trust, always, sign=1):
    p = p.astype(np.float64)
    v = np.zeros_like(p)
    for g in grads:
        g = sign * g.astype(np.float64)
        norms = np.linalg.norm(p), np.linalg.norm(g)
        adapt = (decay or always) and min(norms) > 0
        ratio = trust * norms[0] / (norms[1] + decay * norms[0] + 1e-8) if adapt else 1
        v = momentum * v + lr * ratio * (g + decay * p)
        p = p - v
    return p


ODD = [(40, 1000), (5,), (0, 3), (9,)]


def run_paper(optimizer, params):
    for step in range(STEPS):
        for p, g in zip(params, gradients(step, ODD), strict=True):
            p.grad = g
        optimizer.step()


@pytest.mark.parametrize("correct,always", [(True, False), (False, True)])
def test_lamb_is_the_paper_s(correct, always):
    start = numbers(1, ODD)
    start[3][:] = 0  # the ratio is 1 there in the first step
    params = [nn.Parameter(x) for x in start]
    groups = [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0, "lr": 0.02}]
    optimizer = optim.LAMB(
        groups, 0.05, (0.8, 0.95), 1e-6, 0.1, bias_correction=correct, always_adapt=always
    )
    run_paper(optimizer, params)
    for i, (p, x) in enumerate(zip(params, start, strict=True)):
        grads = [gradients(step, ODD)[i] for step in range(STEPS)]
        lr, decay = (0.02, 0.0) if i else (0.05, 0.1)
        want = lamb_oracle(x, grads, lr, (0.8, 0.95), 1e-6, decay, correct, always)
        np.testing.assert_allclose(p, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum,always", [(0.9, False), (0.0, True)])
def test_lars_is_the_paper_s(momentum, always):
    start = numbers(1, ODD)
    start[3][:] = 0
    params = [nn.Parameter(x) for x in start]
    groups = [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0, "lr": 0.02}]
    optimizer = optim.LARS(groups, 3.0, momentum, 0.1, 0.02, always_adapt=always, maximize=True)
    run_paper(optimizer, params)
    for i, (p, x) in enumerate(zip(params, start, strict=True)):
        grads = [gradients(step, ODD)[i] for step in range(STEPS)]
        lr, decay = (0.02, 0.0) if i else (3.0, 0.1)
        want = lars_oracle(x, grads, lr, momentum, decay, 0.02, always, sign=-1)
        np.testing.assert_allclose(p, want, rtol=1e-5, atol=1e-6)


def small_net(lib):
    layers = lib.Conv2d(3, 8, 3, padding=1), lib.ReLU(), lib.AdaptiveAvgPool2d(1)
    return lib.Sequential(*layers, lib.Flatten(), lib.Linear(8, 4)).train()


def test_training_a_network_as_in_torch():
    torch = pytest.importorskip("torch")
    mine, theirs = small_net(nn), small_net(torch.nn)
    theirs.load_state_dict({k: torch.tensor(x) for k, x in mine.state_dict().items()})
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
    a = optim.SGD(mine.parameters(), **options)
    b = torch.optim.SGD(theirs.parameters(), **options)
    rng = np.random.default_rng(0)
    places = []
    for _ in range(STEPS):
        x = rng.standard_normal((6, 3, 9, 9)).astype(np.float32)
        y = rng.standard_normal((6, 4)).astype(np.float32)
        a.zero_grad()
        b.zero_grad()
        error = mine(x) - y
        loss = (error * error).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(mine.parameters(), 0.5)
        a.step()
        want = ((theirs(torch.tensor(x)) - torch.tensor(y)) ** 2).mean()
        want.backward()
        want_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        b.step()
        np.testing.assert_allclose(float(loss), want.item(), rtol=1e-5)
        np.testing.assert_allclose(float(norm), want_norm.item(), rtol=1e-5)
        places.append(mine[0].weight.numpy().ctypes.data)
    assert len(set(places)) == 1  # in place: nothing of a finished backward holds the weights
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-4, atol=1e-6)


# --- state, copies, threads

MAKERS = {
    "SGD": lambda groups: optim.SGD(groups, 0.1, 0.9, nesterov=True),
    "Adam": lambda groups: optim.Adam(groups, 0.01, amsgrad=True),
    "AdamW": lambda groups: optim.AdamW(groups, 0.01),
    "LAMB": lambda groups: optim.LAMB(groups, 0.01),
    "LARS": lambda groups: optim.LARS(groups, 1.0),
}


def same_bits(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_loaded_state_dict_continues_bit_for_bit(name):
    make = MAKERS[name]
    straight, whole = train(make, missing=(6,))
    half, optimizer = train(make, steps=5)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    params = [nn.Parameter(p.numpy()) for p in half]
    optimizer = make(groups_of(params))
    optimizer.param_groups[0]["lr"] = 123.0  # the saved options count
    optimizer.load_state_dict(saved)
    train(None, missing=(6,), params=params, optimizer=optimizer, first=5)
    assert same_bits(straight, params)
    a, b = whole.state_dict(), optimizer.state_dict()
    assert a["param_groups"] == b["param_groups"] and a["state"].keys() == b["state"].keys()
    for i, state in a["state"].items():
        assert state.keys() == b["state"][i].keys()
        assert same_bits(state.values(), b["state"][i].values())


@pytest.mark.parametrize("name", MAKERS)
def test_arrays_that_were_read_keep_their_numbers(name):
    params, optimizer = train(MAKERS[name], steps=2)
    source = params[3].numpy()
    given = np.array(source)
    params[3].copy_(given)
    kept = [p.numpy() for p in params]
    state = optimizer.state_dict()["state"]
    arrays = [each for row in state.values() for each in row.values()]
    before = [np.array(x) for x in (*kept, *arrays)]
    stamp = params[3]._stamp()
    train(None, steps=4, params=params, optimizer=optimizer, first=2)
    assert same_bits(before, (*kept, *arrays)) and params[3]._stamp() != stamp
    assert not same_bits(kept[3:4], params[3:4])
    np.testing.assert_array_equal(given, source)
    # an array that was given to a parameter is not written to either
    linear = nn.Linear(31, 129)
    weights = {"weight": np.array(source), "bias": np.zeros(129, np.float32)}
    linear.load_state_dict(weights)
    linear.weight.grad = np.ones((129, 31), np.float32)
    MAKERS[name](linear.parameters()).step()
    np.testing.assert_array_equal(weights["weight"], source)
    assert not np.array_equal(linear.weight, source)


@pytest.mark.parametrize("name", MAKERS)
def test_every_number_of_threads_gives_the_same_bits(name, threads):
    shapes = [(333, 1001), (17,), (5, 70001)]
    results = []
    for count in (1, 2, 3):
        threads(count)
        params = [nn.Parameter(x) for x in numbers(3, shapes)]
        optimizer = MAKERS[name]([{"params": params, "weight_decay": 0.1}])
        for step in range(2):
            for p, g in zip(params, gradients(step, shapes), strict=True):
                p.grad = g
            norm = nn.utils.clip_grad_norm_(params, 100.0)
            optimizer.step()
        results.append([*params, norm])
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])


@pytest.mark.isa
def test_every_instruction_set_gives_the_same_bits(run_python):
    code = """
        import hashlib
        import numpy as np
        import lucid_c
        from lucid_c import nn, optim
        rng = np.random.default_rng(0)
        digest = hashlib.sha256()
        for cls in (optim.SGD, optim.Adam, optim.LAMB, optim.LARS):
            p = nn.Parameter(rng.standard_normal((37, 1001)))
            optimizer = cls([p], lr=0.1, weight_decay=0.1)
            for _ in range(3):
                p.grad = rng.standard_normal((37, 1001)).astype(np.float32)
                optimizer.step()
            digest.update(p.numpy().tobytes())
        print(lucid_c.config()["isa"], digest.hexdigest())
    """
    lines = [run_python(code, env={"LUCID_C_ISA": isa}).stdout for isa in ("scalar", "avx2")]
    assert lines[0].split()[1] == lines[1].split()[1], lines


# --- the interface of the base class


def test_parameters_without_a_gradient_are_left_alone():
    params = [nn.Parameter(x) for x in numbers(0)]
    optimizer = optim.Adam(params)
    params[0].grad = np.ones(7, np.float32)
    stamps = [p._stamp() for p in params]
    assert optimizer.step() is None
    assert [p._stamp() == s for p, s in zip(params, stamps, strict=True)] == [False] + [True] * 4
    assert list(optimizer.state) == [params[0]] and list(optimizer.state_dict()["state"]) == [0]
    optimizer.zero_grad(set_to_none=False)
    assert params[0].grad.numpy().tolist() == [0] * 7 and params[1].grad is None
    optimizer.zero_grad()
    assert params[0].grad is None


def test_step_calls_the_closure():
    p = nn.Parameter(np.ones(3))
    optimizer = optim.SGD([p], 0.5)

    def closure():
        p.grad = 2 * p.numpy()
        return "loss"

    assert optimizer.step(closure) == "loss"
    assert p.numpy().tolist() == [0, 0, 0]

    model = nn.Linear(3, 1)  # in eval mode
    optimizer = optim.SGD(model.parameters(), 0.1)

    def squared():
        optimizer.zero_grad()
        y = model(np.ones((1, 3), np.float32))
        loss = (y * y).sum()
        loss.backward()
        return loss

    with no_grad():
        losses = [float(optimizer.step(squared)) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2] > 0

    def fails():
        raise OSError("no data")

    with pytest.raises(OSError):
        optimizer.step(fails)


def test_groups():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))
    model[1].bias.requires_grad = False
    still, decaying = optim.param_groups_weight_decay(model, 0.05, ["2.weight"])
    assert still["weight_decay"] == 0 and decaying["weight_decay"] == 0.05
    assert [p.shape for p in still["params"]] == [(4,), (4,), (2, 4, 1, 1)]
    assert [p.shape for p in decaying["params"]] == [(4, 3, 3, 3)]
    optimizer = optim.SGD([still, decaying], 0.1)
    assert optimizer.param_groups[1]["lr"] == 0.1
    assert optimizer.param_groups[1]["weight_decay"] == 0.05
    optimizer.add_param_group({"params": model[1].bias, "lr": 1.0, "name": "rest"})
    assert optimizer.state_dict()["param_groups"][2] == {
        **optimizer.defaults,
        "lr": 1.0,
        "name": "rest",
        "params": [4],
    }
    assert "Parameter Group 2" in repr(optimizer) and "lr: 1.0" in repr(optimizer)
    assert model[0].weight in optimizer.param_groups[1]["params"]


@pytest.mark.parametrize(
    "cls,options,text",
    [
        ("SGD", {"lr": -1}, "Invalid learning rate: -1"),
        ("SGD", {"lr": float("nan")}, "Invalid learning rate: nan"),
        ("SGD", {"momentum": -0.1}, "Invalid momentum value: -0.1"),
        ("SGD", {"weight_decay": -2}, "Invalid weight_decay value: -2"),
        ("SGD", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        ("Adam", {"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        ("AdamW", {"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
        ("Adam", {"betas": 0.9}, "betas must be two numbers"),
        ("Adam", {"eps": -1e-8}, "Invalid epsilon value: -1e-08"),
        ("LAMB", {"weight_decay": -1}, "Invalid weight_decay value: -1"),
        ("LARS", {"trust_coeff": float("inf")}, "Invalid trust_coeff value: inf"),
    ],
)
def test_options_out_of_range(cls, options, text):
    p = nn.Parameter(np.ones(3))
    with pytest.raises(ValueError, match=re.escape(text)):
        getattr(optim, cls)([p], **options)
    group = {"params": [p], **options}
    with pytest.raises(ValueError, match=re.escape(text)):
        getattr(optim, cls)([group])


def test_what_is_no_list_of_parameters():
    p, q = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(2))
    with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
        optim.SGD([])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([{"params": [p]}, {"params": [q, p]}])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="needs its parameters"):
        optim.SGD([{"lr": 0.1}])
    with pytest.raises(ValueError, match="SGD has no option 'weigth_decay'; it has lr, momentum"):
        optim.SGD([{"params": [p], "weigth_decay": 0.1}])
    for bad in (p, "p", 3, {"params": [p]}):
        with pytest.raises(TypeError, match="iterable of parameters"):
            optim.SGD(bad)
    for bad in ([np.ones(3)], [Tensor([1.0])], [p, "q"], [{"params": {p}}], [p, {"params": [q]}]):
        with pytest.raises(TypeError):
            optim.SGD(bad)
    with pytest.raises(TypeError):
        optim.SGD([p], momentun=0.9)
    with pytest.raises(TypeError, match="learning rate must be a number"):
        optim.SGD([p], lr="0.1")
    optimizer = optim.SGD([p])
    with pytest.raises(TypeError):
        optimizer.add_param_group([q])
    with pytest.raises(ValueError):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1


def test_state_dicts_that_do_not_fit_change_nothing():
    _, optimizer = train(MAKERS["Adam"], steps=2)
    good = optimizer.state_dict()
    before = pickle.dumps(good)

    def broken(change):
        state = pickle.loads(before)
        change(state)
        return state

    def at(path, value):
        def change(state):
            for key in path[:-1]:
                state = state[key]
            if value is KeyError:
                del state[path[-1]]
            else:
                state[path[-1]] = value

        return change

    for change in (
        at(["state"], KeyError),
        at(["state"], []),
        at(["param_groups"], []),
        at(["param_groups"], None),
        at(["param_groups", 0, "params"], [0]),
        at(["param_groups", 0, "params"], 0),
        at(["param_groups", 1, "lr"], -1.0),
        at(["param_groups", 1, "betas"], [0.5]),
        at(["param_groups", 1, "lr"], [0.1, 0.2]),
        at(["state", 0], 3),
        at(["state", 0, "exp_avg"], np.zeros(3, np.float32)),
        at(["state", 0, "exp_avg"], np.zeros(7, np.int32)),
        at(["state", 0, "exp_avg"], KeyError),
        at(["state", 0, "step"], KeyError),
        at(["state", 0, "step"], -1),
        at(["state", 0, "step"], "x"),
        at(["state", 4, "momentum_buffer"], np.zeros((), np.float32)),
    ):
        with pytest.raises((ValueError, TypeError)):
            optimizer.load_state_dict(broken(change))
        assert pickle.dumps(optimizer.state_dict()) == before
    for bad in (None, {}, [1]):
        with pytest.raises(ValueError):
            optimizer.load_state_dict(bad)
    other = optim.SGD(groups_of([nn.Parameter(x) for x in numbers(0)]))
    with pytest.raises(ValueError, match="'exp_avg', which SGD has not|'step', which SGD has not"):
        other.load_state_dict(good)


# --- clipping


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clip_grad_norm_as_in_torch(norm_type, max_norm):
    torch = pytest.importorskip("torch")
    mine = [nn.Parameter(x) for x in numbers(0)]
    theirs = [torch.nn.Parameter(torch.tensor(x)) for x in numbers(0)]
    for i, g in enumerate(gradients(0)):
        if i != 2:
            mine[i].grad, theirs[i].grad = g, torch.tensor(g)
    kept = mine[0].grad
    a = nn.utils.clip_grad_norm_(mine, max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert isinstance(a, Tensor) and a.shape == ()
    np.testing.assert_allclose(a, b.numpy(), rtol=1e-6)
    for p, q in zip(mine, theirs, strict=True):
        if q.grad is None:
            assert p.grad is None
        else:
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(kept, gradients(0)[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_clip_grad_norm_of_what_is_not_finite(bad):
    torch = pytest.importorskip("torch")
    grad = np.array([1.0, bad, 0.0], np.float32)
    p, q = nn.Parameter(np.ones(3)), torch.nn.Parameter(torch.ones(3))
    p.grad, q.grad = grad, torch.tensor(grad)
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(p.grad, grad)
    nn.utils.clip_grad_norm_([p], 1.0)
    torch.nn.utils.clip_grad_norm_([q], 1.0)
    np.testing.assert_array_equal(p.grad, q.grad.numpy())


def test_clip_grad_value_as_in_torch():
    p = nn.Parameter(np.ones(5))
    p.grad = np.array([-3, -0.5, np.nan, 0.25, np.inf], np.float32)
    nn.utils.clip_grad_value_(p, 0.5)
    np.testing.assert_array_equal(p.grad, np.array([-0.5, -0.5, np.nan, 0.25, 0.5], np.float32))
    assert float(nn.utils.clip_grad_norm_([], 1.0)) == 0
    huge = nn.Parameter(np.ones(50))
    huge.grad = np.array([3e30, 4e30] + 48 * [0], np.float32)  # their squares are beyond float32
    assert float(nn.utils.clip_grad_norm_(huge, 5.0)) == pytest.approx(5e30)
    np.testing.assert_allclose(huge.grad.numpy()[:3], [3, 4, 0], rtol=1e-6)
    for call in (
        lambda: nn.utils.clip_grad_value_(p, -1),
        lambda: nn.utils.clip_grad_norm_(p, 1, norm_type=0),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError):
        nn.utils.clip_grad_norm_([Tensor([1.0])], 1.0)
