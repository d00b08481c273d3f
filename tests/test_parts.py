# SPDX-License-Identifier: MIT
"""Parts of the batch: large activations are computed a few images at a time. Nobody can tell, but
for the memory that it takes. Sizes here are such that whole batches fit into no cache."""

import numpy as np
import pytest

import lucid_c
import lucid_c.nn.functional as F
from helpers import assert_close, assert_same_bits, draw, fill, reference_weights
from lucid_c import models, nn
from lucid_c.models.blocks import BasicBlock

pytestmark = pytest.mark.isa

MiB = 1 << 20


@pytest.fixture(autouse=True)
def two_threads():
    before = lucid_c.get_num_threads()
    lucid_c.set_num_threads(2)
    yield
    lucid_c.set_num_threads(before)


def image_by_image(model, x):
    each = [model(x[i : i + 1]) for i in range(len(x))]
    if isinstance(each[0], tuple):
        return tuple(np.concatenate([np.asarray(y) for y in ys]) for ys in zip(*each, strict=True))
    return np.concatenate([np.asarray(y) for y in each])


class Branches(nn.Module):
    """Whatever a user may write between two convolutions; 32 images are as many as channels."""

    def __init__(self, images, order=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.gate = nn.Conv2d(32, 32, 1)
        self.shift = nn.Parameter(np.zeros((1, 32, 1, 1), "float32"))
        self.map = nn.Parameter(np.zeros((32, 64, 64), "float32"))
        self.images = nn.Parameter(np.zeros((images, 1, 1, 1), "float32"))
        self.order = order

    def forward(self, x):
        a = F.relu(self.conv1(x))
        gate = F.sigmoid(self.gate(F.adaptive_avg_pool2d(a, 1)))
        b = F.relu(self.conv2(a) * gate + a + self.shift)
        if self.order:  # neither of these can be cut
            b = b.reshape((b.shape[0], 4, 8, *b.shape[2:])).transpose(1, 2).reshape(b.shape)
            b = b + self.images[: b.shape[0]]
        c = F.max_pool2d(F.relu(self.conv2(b)) + self.map, 2)
        return b, F.relu(c), F.avg_pool2d(c, 32).flatten(1)


@pytest.mark.parametrize("images", [32, 37])
def test_any_graph(images):
    model, x = Branches(images), draw("x", (images, 3, 64, 64))
    fill(model.eval(), "branches")
    got = model(x)
    for y, want in zip(got, image_by_image(model, x), strict=True):
        assert_same_bits(y, want)
    whole = images * 32 * 64 * 64 * 4  # bytes of `a`, next to which live a product and a sum
    assert lucid_c.profile(model, x, repeats=1).arena_bytes < 2.8 * whole


def test_steps_that_need_the_whole_batch():
    images = 34
    model, x = Branches(images, order=True), draw("x", (images, 3, 64, 64))
    fill(model.eval(), "branches")
    model.images = nn.Parameter(np.arange(images, dtype="float32").reshape(-1, 1, 1, 1))
    got = [np.asarray(y) for y in model(x)]
    for i in range(images):
        model.images = nn.Parameter(np.full((1, 1, 1, 1), i, "float32"))
        for y, want in zip(got, model(x[i : i + 1]), strict=True):
            assert_same_bits(y[i : i + 1], want)


class Scaled(nn.Module):
    """A computed factor whose shape begins with as many elements as there are images."""

    def __init__(self, shape):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.scale = nn.Parameter(np.zeros(shape, "float32"))

    def forward(self, x):
        scale = F.sigmoid(self.scale) * 3.0  # large enough to be run in parts itself
        return F.max_pool2d(self.conv2(F.relu(self.conv1(x)) * scale), 2)


@pytest.mark.parametrize("shape", [(32, 1, 1), (32, 64, 64)])
def test_factors_are_not_images(shape):
    model, x = Scaled(shape).eval(), draw("x", (32, 3, 64, 64))
    fill(model, "scaled")
    assert_same_bits(model(x), image_by_image(model, x))


class Pairs(nn.Module):
    """Every image with every other one: what is made in parts is read whole, through a view or as
    an operand of a lower rank."""

    def __init__(self, view):
        super().__init__()
        self.view = view

    def forward(self, x):
        n, k = x.shape
        a = F.sigmoid(F.relu(x) + 1.0)
        b = a.reshape((1, n, k)) if self.view else a
        return F.sigmoid((b + a.reshape((n, 1, k))) * 2.0)


@pytest.mark.parametrize("view", [True, False])
def test_what_is_made_in_parts_is_read_whole(view):
    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    x = draw("x", (3, 2_000_000))
    a = sigmoid(np.maximum(x, 0).astype(float) + 1)
    want = sigmoid((a[None] + a[:, None]) * 2)
    assert_close(Pairs(view).eval()(x), want, 1e-6)


class Rows(nn.Module):
    """A linear layer of one row, whose elements are as many as the images."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.row = nn.Parameter(draw("row", (32,)))
        self.weight = nn.Parameter(draw("weight", (32, 32)))

    def forward(self, x):
        row = F.linear(self.row, self.weight)
        return row, F.max_pool2d(self.conv2(F.relu(self.conv1(x))), 2)


def test_a_row_has_no_images():
    model, x = Rows().eval(), draw("x", (32, 3, 64, 64))
    row, y = model(x)
    assert_close(row, np.asarray(model.weight).astype(float) @ np.asarray(model.row), 1e-5)
    assert_same_bits(y, np.concatenate([model(x[i : i + 1])[1] for i in range(32)]))


@pytest.mark.parametrize("name", ["resnet_18", "resnext_50_32x4d", "resnest_50_1s4x24d"])
def test_models(name):
    """Any number of threads, too; 7 images make parts of different sizes."""
    model = lucid_c.create_model(name).eval()
    reference_weights(model)
    x = draw("x", (7, 3, 176, 208))
    want = image_by_image(model, x)
    for threads in (1, 2, 3):
        lucid_c.set_num_threads(threads)
        assert_same_bits(model(x), want)


def test_memory_grows_slower_than_the_batch():
    model = models.ResNet(BasicBlock, [1, 1, 1, 1], 7).eval()
    one, many = (
        lucid_c.profile(model, (n, 3, 224, 224), repeats=1, warmup=0).arena_bytes for n in (1, 48)
    )
    assert many < 48 / 2 * one
    handed = 64 * 56 * 56 * 4  # bytes of an image, from stem to layer1, and to layer2
    assert many - one < 48 * 2 * handed + 16 * MiB


def test_a_profile_counts_all_images():
    model = lucid_c.create_model("resnet_18").eval()
    one, many = (lucid_c.profile(model, (n, 3, 224, 224), repeats=1).rows for n in (1, 9))
    assert [row.layer for row in one] == [row.layer for row in many]
    for a, b in zip(one, many, strict=True):
        assert b.output_shape == (9, *a.output_shape[1:])
        assert b.multiply_adds == 9 * a.multiply_adds
        assert b.bytes > 4 * a.bytes or a.op in ("linear", "conv2d")
        assert b.seconds > 0


def test_stopping_and_failing_between_parts(run_python):
    """An interrupt in the midst of a section leaves model and memory as they were."""
    done = run_python("""
    import _thread, threading, numpy as np, lucid_c
    model = lucid_c.create_model("resnet_50").eval()
    x = np.ones((64, 3, 224, 224), "float32")
    want = np.asarray(model(x[:9]))
    threading.Timer(0.2, _thread.interrupt_main).start()
    try:
        while True:
            model(x)
    except KeyboardInterrupt:
        pass
    assert np.array_equal(np.asarray(model(x[:9])), want)
    print("done")
    """)
    assert "done" in done.stdout
