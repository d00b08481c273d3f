# SPDX-License-Identifier: MIT
"""Gradients from Python: accumulation, modes, hooks, functions with their own backward, errors."""

import threading

import numpy as np
import pytest

import lucid_c
from helpers import assert_close, assert_same_bits, draw
from lucid_c import Tensor, nn
from lucid_c.autograd import Function, grad, set_grad_enabled


def leaf(values):
    return Tensor(np.array(values, np.float32), requires_grad=True)


class Blocks(nn.Module):
    """A small network with batch norm and a residual."""

    def __init__(self):
        super().__init__()
        lucid_c.random.seed(3)
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = self.norm(self.first(x)).relu()
        y = y + self.second(y)
        return self.head(y.mean((2, 3)))


def all_gradients(model, x):
    """Those of the parameters and the input, in training mode."""
    given = Tensor(x, requires_grad=True)
    (model.train()(given) ** 2).sum().backward()
    return [p.grad.numpy() for p in model.parameters()] + [given.grad.numpy()]


# --- leaves and accumulation


def test_products_and_accumulation():
    x, y = leaf([1.0, -2.0, 3.0]), leaf([4.0, 5.0, -6.0])
    (x * y + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5, 6, -5])
    np.testing.assert_array_equal(y.grad.numpy(), [1, -2, 3])
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [7, 2, 1])


def test_an_inner_value_that_two_results_use():
    class Two(nn.Module):
        def forward(self, x):
            self.inner = x * 2
            return self.inner * self.inner

    module, x = Two(), leaf([1.0, -3.0])
    y = module(x)
    (y.sum() + module.inner.sum()).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10, -22])


PROGRAMS = {
    "broadcast": lambda x, y: (x * y[0] + y.sum(0)).sum(),
    "same-twice": lambda x, y: (x * x * x - x * y).sum(),
    "views": lambda x, y: (x.reshape(4, 3).t() * y.transpose(0, 1).reshape(3, 4)).sum(),
    "slices": lambda x, y: (x[1:, ::2] * y[:2, 1:3]).sum() + x[0, 0] * y[2, 3],
    "chunks": lambda x, y: sum(
        (a * b).sum() for a, b in zip(x.chunk(2, 1), y.chunk(2, 1), strict=True)
    ),
    "means": lambda x, y: ((x - x.mean(1, True)) ** 2).mean() + y.exp().mean(0).log().sum(),
    "matmul": lambda x, y: (x @ y.t()).tanh().sum(),
    "softmax": lambda x, y: (x.softmax(1) * y.log_softmax(1)).sum(),
    "extremes": lambda x, y: x.max(1).values.sum() + y.min() * x.maximum(y).sum(),
    "quotient": lambda x, y: (x / (y * y + 1)).sigmoid().sum(),
    "detached": lambda x, y: (x.detach() * x + y.detach() * x).sum() + (y * 0).sum(),
    "unsqueezed": lambda x, y: (x.unsqueeze(1) * y.unsqueeze(0)).clamp(-0.5, 0.7).sum(),
    "expanded": lambda x, y: (x[:1].expand(3, 4) * y).abs().sum(),
    "numbers": lambda x, y: (2 - 3 * x + 1 / (y.abs() + 1) - x / 4).pow(2).sum(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_against_torch(torch, name):
    arrays = [draw(f"{name}-{i}", (3, 4)) for i in range(2)]
    ours = [leaf(each) for each in arrays]
    theirs = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in arrays]
    y, wanted = PROGRAMS[name](*ours), PROGRAMS[name](*theirs)
    assert_close(y.item(), wanted.item(), 1e-5, dtype=None)
    y.backward()
    wanted.backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine.grad.numpy(), other.grad.numpy(), 1e-5)


def test_what_a_leaf_is():
    x = leaf([1.0, 2.0])
    y = x * 2
    assert x.is_leaf and x.requires_grad and x.grad is None and x.grad_fn is None
    assert y.requires_grad and not y.is_leaf and y.grad_fn is not None
    assert Tensor(np.zeros(2, np.float32)).is_leaf
    z = Tensor(np.zeros(2, np.float32))
    assert z.requires_grad_() is z and z.requires_grad
    z.requires_grad = False
    assert not (z * 2).requires_grad
    with pytest.raises(RuntimeError):  # only a leaf can stop
        y.requires_grad = False
    for dtype in (np.int64, bool):
        with pytest.raises((RuntimeError, ValueError)):
            Tensor(np.zeros(2, dtype), requires_grad=True)


def test_a_gradient_can_be_set_and_taken_away():
    x = leaf([1.0, 2.0])
    x.grad = Tensor(np.array([3.0, 4.0], np.float32))
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5, 6])
    x.grad = None
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        x.grad = Tensor(np.zeros(3, np.float32))
    with pytest.raises(TypeError):
        x.grad = "nothing"
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


# --- modes


def test_the_memory_of_a_deleted_gradient_is_used_again_unless_somebody_reads_it():
    model = nn.Sequential(nn.Linear(600, 500)).train()
    x = draw("x", (4, 600))

    def gradient():
        model.zero_grad()
        (model(x) ** 2).sum().backward()
        return np.asarray(model[0].weight.grad)

    def address():
        return gradient().ctypes.data

    places = {address() for _ in range(4)}
    assert len(places) == 1
    held = gradient()
    before = held.copy()
    x = 2 * x
    assert address() not in places
    assert_same_bits(held, before)


def test_no_grad_and_detach():
    x = leaf([1.0, 2.0])
    with lucid_c.no_grad():
        y = x * 3
    with pytest.raises(RuntimeError):
        y.sum().backward()
    (x.detach() * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 2])
    with pytest.raises(RuntimeError):  # needs a gradient to start from
        (x * 2).backward()


def test_modes_nest_and_end_with_an_exception():
    x = leaf([1.0])
    with lucid_c.no_grad():
        assert not lucid_c.is_grad_enabled()
        with lucid_c.enable_grad():
            assert lucid_c.is_grad_enabled() and (x * 2).requires_grad
        assert not (x * 2).requires_grad
        with set_grad_enabled(True):
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    with pytest.raises(KeyError), lucid_c.no_grad():
        raise KeyError
    assert lucid_c.is_grad_enabled() and (x * 2).requires_grad

    @lucid_c.no_grad()
    def called():
        return (x * 2).requires_grad

    @lucid_c.no_grad
    def bare():
        return (x * 2).requires_grad

    assert not called() and not bare() and (x * 2).requires_grad


def test_a_mode_belongs_to_its_thread():
    x, seen = leaf([1.0]), []
    with lucid_c.no_grad():
        other = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        other.start()
        other.join()
        assert not (x * 2).requires_grad
    assert seen == [True]


def test_eval_mode_keeps_nothing_unless_asked():
    model, x = Blocks().eval(), draw("image", (2, 3, 6, 5))
    with pytest.raises(RuntimeError):
        model(x).sum().backward()
    with lucid_c.enable_grad():
        model(x).sum().backward()
    asked = {name: p.grad.numpy() for name, p in model.named_parameters()}
    model.zero_grad()
    given = Tensor(x, requires_grad=True)
    model(given).sum().backward()
    assert given.grad.shape == x.shape
    for name, p in model.named_parameters():
        assert_close(p.grad.numpy(), asked[name], 1e-6)


# --- backward twice, several results


def test_backward_twice_needs_to_be_asked_for():
    x = leaf([1.0, 3.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 12])
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 12])


def test_backward_of_several_results_at_once():
    x = leaf([1.0, 3.0])
    y = x * x
    lucid_c.autograd.backward([y.sum(), y], [None, [1.0, 10.0]])
    np.testing.assert_array_equal(x.grad.numpy(), [4, 66])
    with pytest.raises(ValueError, match="2 gradients"):
        lucid_c.autograd.backward([x * 2, x * 3], [[1.0, 1.0]])


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (np.ones(3, np.float32), (ValueError, RuntimeError)),
        (np.ones((2, 1), np.float32), (ValueError, RuntimeError)),
        ("one", (TypeError, ValueError)),
        (np.array([1j, 2j]), (TypeError, ValueError)),
        ({}, (TypeError, ValueError)),
    ],
)
def test_a_start_that_does_not_fit(seed, error):
    x = leaf([1.0, 2.0])
    y = x * 2
    with pytest.raises(error):
        y.backward(seed)
    assert x.grad is None
    y.backward(np.array([1.0, 3.0]))  # the failed one took nothing
    np.testing.assert_array_equal(x.grad.numpy(), [2, 6])


def test_the_same_weight_in_two_places():
    shared = nn.Linear(4, 4).train()
    x = draw("x", (3, 4))
    (shared(shared(x).tanh()) ** 2).sum().backward()
    total = shared.weight.grad.numpy()

    a, b = nn.Linear(4, 4).train(), nn.Linear(4, 4).train()
    for each in (a, b):
        each.load_state_dict(shared.state_dict())
    (b(a(x).tanh()) ** 2).sum().backward()
    assert_close(total, a.weight.grad.numpy() + b.weight.grad.numpy(), 1e-5)


def test_frozen_parameters_get_no_gradient_and_change_none():
    x = draw("image", (2, 3, 6, 5))
    free, partly = Blocks().train(), Blocks().train()
    partly.first.weight.requires_grad = False
    partly.head.bias.requires_grad = False
    for model in (free, partly):
        (model(x) ** 2).sum().backward()
    assert partly.first.weight.grad is None and partly.head.bias.grad is None
    for name, p in partly.named_parameters():
        if p.requires_grad:
            wanted = dict(free.named_parameters())[name].grad.numpy()
            assert_close(p.grad.numpy(), wanted, 1e-6)
    for p in partly.parameters():
        p.requires_grad = False
    with pytest.raises(RuntimeError):
        partly(x).sum().backward()


# --- inner values and hooks


def test_retain_grad():
    x = leaf([1.0, 2.0])
    y = x * x
    y.retain_grad()
    assert y.retains_grad and not x.retains_grad
    (y * 3).sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), [3, 3])
    np.testing.assert_array_equal(x.grad.numpy(), [6, 12])
    with pytest.raises(RuntimeError):
        Tensor(np.zeros(2, np.float32)).retain_grad()


def test_hooks_see_and_replace_the_gradient():
    x = leaf([1.0, 2.0])
    y = x * x
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.numpy().copy()))
    y.register_hook(lambda g: g * 10)
    (y * 3).sum().backward(retain_graph=True)
    np.testing.assert_array_equal(seen, [[3, 3]])
    np.testing.assert_array_equal(x.grad.numpy(), [60, 120])
    handle.remove()
    (y * 3).sum().backward()
    assert len(seen) == 1


def test_a_hook_of_a_leaf_and_one_that_fails():
    x = leaf([1.0, 2.0])
    handle = x.register_hook(lambda g: g * 2)
    (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 6])
    handle.remove()

    def fails(_):
        raise KeyError("from the hook")

    x.register_hook(fails)
    with pytest.raises(KeyError, match="from the hook"):
        (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 6])


# --- grad()


def test_grad_leaves_the_slots_alone():
    x, w = leaf([1.0, 2.0]), leaf([3.0, -1.0])
    y = x * w
    dx, dw = grad(y, [x, w], [[1.0, 10.0]], retain_graph=True)
    np.testing.assert_array_equal(dx.numpy(), [3, -10])
    np.testing.assert_array_equal(dw.numpy(), [1, 20])
    assert x.grad is None and w.grad is None
    z = (y * y).sum()
    (dy,) = grad(z, y)  # with respect to a computed tensor
    np.testing.assert_array_equal(dy.numpy(), [6, -4])
    assert x.grad is None


def test_grad_of_what_is_not_used():
    x, other = leaf([1.0]), leaf([2.0])
    with pytest.raises(RuntimeError):
        grad((x * 2).sum(), [x, other])
    dx, nothing = grad((x * 2).sum(), [x, other], allow_unused=True)
    assert dx.item() == 2 and nothing is None
    with pytest.raises(ValueError, match="create_graph"):
        grad((x * 2).sum(), x, create_graph=True)
    with pytest.raises(TypeError):
        grad((x * 2).sum(), [1.0])
    with pytest.raises(ValueError, match="empty"):
        grad((x * 2).sum(), [])


def test_grad_of_a_models_parameters_is_what_backward_gives():
    model, x = Blocks().train(), draw("image", (2, 3, 6, 5))
    parameters = list(model.parameters())
    found = grad((model(x) ** 2).sum(), parameters)
    assert all(p.grad is None for p in parameters)
    (model(x) ** 2).sum().backward()
    for p, each in zip(parameters, found, strict=True):
        assert_same_bits(p.grad.numpy(), each.numpy())


# --- changes in place


def test_changes_in_place_against_torch(torch):
    def program(x, w):
        y = x * 2
        y.add_(w)
        y.mul_(3)
        y += x
        return (y * w).sum()

    arrays = [draw(f"place-{i}", (3, 4)) for i in range(2)]
    ours = [leaf(each) for each in arrays]
    theirs = [torch.tensor(each, requires_grad=True) for each in arrays]
    program(*ours).backward()
    program(*theirs).backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine.grad.numpy(), other.grad.numpy(), 1e-6)


def test_a_leaf_changes_in_place_only_without_gradients():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError):
        x.add_(1)
    np.testing.assert_array_equal(x.detach().numpy(), [1, 2])
    with lucid_c.no_grad():
        x.add_(1)
    np.testing.assert_array_equal(x.detach().numpy(), [2, 3])
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 6])


def test_a_parameter_changed_between_forward_and_backward():
    layer = nn.Linear(3, 2, bias=False)
    x = Tensor(draw("x", (4, 3)), requires_grad=True)
    weight = layer.weight.detach().numpy().copy()
    y = layer(x)
    with lucid_c.no_grad():
        layer.weight.mul_(0)
    # either the old weight counts, or the change is told: never the new weight in silence
    try:
        y.backward(np.ones((4, 2), np.float32))
    except RuntimeError as error:
        assert "change" in str(error) or "modified" in str(error)
    else:
        assert_close(x.grad.numpy(), np.ones((4, 2)) @ weight, 1e-6)


# --- functions with their own backward


class Cube(Function):
    @staticmethod
    def forward(ctx, x, scale=1.0):
        ctx.save_for_backward(x)
        ctx.scale = scale
        return scale * x.numpy() ** 3

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return 3 * ctx.scale * x * x * dy, None


class Both(Function):
    """Two results of two arguments."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x + y, x * y

    @staticmethod
    def backward(ctx, ds, dp):
        x, y = ctx.saved_tensors
        return ds + dp * y, ds + dp * x


def test_a_function_with_its_own_backward():
    x = leaf([1.0, -2.0])
    (Cube.apply(x * 2, 0.5) * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [36, 144])


def test_a_function_with_two_results():
    x, y = leaf([1.0, -2.0]), leaf([5.0, 7.0])
    s, p = Both.apply(x, y)
    (s * s).sum().backward(retain_graph=True)  # the other result's gradient is zero
    np.testing.assert_array_equal(x.grad.numpy(), [12, 10])
    x.grad = y.grad = None
    (s + 10 * p).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [51, 71])
    np.testing.assert_array_equal(y.grad.numpy(), [11, -19])


def test_a_function_within_a_model():
    class Model(nn.Module):
        def __init__(self, own):
            super().__init__()
            lucid_c.random.seed(1)
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
            self.own = own

        def forward(self, x):
            y = self.first(x)
            y = Cube.apply(y, 1.0) if self.own else y * y * y
            return self.last(y)

    x = draw("image", (2, 3, 6, 5))
    own, written_out = all_gradients(Model(True), x), all_gradients(Model(False), x)
    for mine, plain in zip(own, written_out, strict=True):
        assert_close(mine, plain, 1e-5)


def test_a_function_that_returns_what_does_not_fit():
    class Wrong(Function):
        what = None

        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, dy):
            return Wrong.what(dy)

    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    for what, error in (
        (lambda dy: dy, RuntimeError),  # one gradient for two arguments
        (lambda dy: (dy, dy, dy), RuntimeError),
        (lambda dy: (dy, dy[:1]), (ValueError, RuntimeError)),
        (lambda dy: (dy, "x"), (TypeError, ValueError)),
        (lambda dy: 1 / 0, ZeroDivisionError),
    ):
        Wrong.what = what
        with pytest.raises(error):
            Wrong.apply(x, y).sum().backward()
        assert x.grad is None and y.grad is None
    Wrong.what = lambda dy: (dy, None)
    Wrong.apply(x, y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])
    assert y.grad is None


def test_a_function_knows_what_is_wanted():
    seen = []

    class Asks(Function):
        @staticmethod
        def forward(ctx, x, y):
            seen.append(ctx.needs_input_grad)
            return x * y

        @staticmethod
        def backward(ctx, dy):
            return dy, dy

    x, y = leaf([1.0]), Tensor(np.ones(1, np.float32))
    Asks.apply(x, y)
    Asks.apply(y, x)
    with lucid_c.no_grad():
        assert not Asks.apply(x, x).requires_grad
    assert seen == [(True, False), (False, True), (False, False)]


# --- models


def test_values_that_python_reads_in_mid_forward():
    class Reads(Blocks):
        def forward(self, x):
            y = self.norm(self.first(x)).relu()
            if y.max().item() > 0:  # ends the recording: the rest is another one
                y = y + self.second(y)
            return self.head(y.mean((2, 3)))

    x = draw("image", (2, 3, 6, 5))
    for whole, parts in zip(all_gradients(Blocks(), x), all_gradients(Reads(), x), strict=True):
        assert_close(parts, whole, 1e-5)


def test_gradients_of_a_batch_are_the_sum_of_those_of_its_parts():
    model, x = Blocks().train(), draw("image", (4, 3, 6, 5))
    model.norm.eval()  # batch statistics do not add up
    (model(x) ** 2).sum().backward()
    whole = [p.grad.numpy() for p in model.parameters()]
    model.zero_grad()
    for i in range(4):
        (model(x[i : i + 1]) ** 2).sum().backward()
    for p, wanted in zip(model.parameters(), whole, strict=True):
        assert_close(p.grad.numpy(), wanted, 1e-5)


def test_recomputed_blocks_give_the_same_gradients():
    x = draw("image", (2, 3, 32, 32))
    grads = []
    for on in (False, True):
        lucid_c.random.seed(0)
        model = lucid_c.create_model("resnet_18", num_classes=7).train()
        model.set_grad_checkpointing(on)
        (model(x) ** 2).sum().backward()
        grads.append({name: p.grad.numpy() for name, p in model.named_parameters()})
        running = {k: v for k, v in model.state_dict().items() if "running" in k}
        grads[-1].update({k: np.asarray(v) for k, v in running.items()})
    for name, wanted in grads[0].items():
        assert_close(grads[1][name], wanted, 1e-5)


def test_models_in_two_threads_do_not_mix():
    x = draw("image", (2, 3, 6, 5))
    alone = Blocks().train()
    (alone(x) ** 2).sum().backward()
    wanted = [p.grad.numpy() for p in alone.parameters()]
    models = [Blocks().train() for _ in range(4)]

    def work(model):
        for _ in range(5):
            model.zero_grad()
            (model(x) ** 2).sum().backward()

    threads = [threading.Thread(target=work, args=(each,)) for each in models]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for model in models:
        for p, each in zip(model.parameters(), wanted, strict=True):
            assert_close(p.grad.numpy(), each, 1e-6)


def test_what_backward_keeps_is_given_back():
    model, x = Blocks().train(), draw("image", (2, 3, 40, 40))

    def step():
        model.zero_grad()
        (model(x) ** 2).sum().backward()

    def forgotten():
        model(x)

    for run in (step, forgotten):
        run()
        run()
        before = lucid_c.memory_stats()["bytes"]
        for _ in range(10):
            run()
        assert lucid_c.memory_stats()["bytes"] <= before
