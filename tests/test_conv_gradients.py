# SPDX-License-Identifier: MIT
"""Gradients of convolution: input, weight and bias, against float64 sums and PyTorch."""

import numpy as np
import pytest

import lucid_c
import oracle
from helpers import assert_close, assert_same_bits, draw
from lucid_c import Tensor
from lucid_c.nn import functional as F

# shape of x, shape of w, stride, padding, dilation, groups
ODD = {
    "3x3": ((2, 5, 9, 11), (7, 5, 3, 3), 1, 1, 1, 1),
    "3x3 without padding": ((1, 16, 12, 7), (9, 16, 3, 3), 1, 0, 1, 1),
    "3x3 in tiles": ((2, 32, 14, 13), (40, 32, 3, 3), 1, 1, 1, 1),
    "3x3 padding 2": ((2, 32, 10, 9), (32, 32, 3, 3), 1, 2, 1, 1),
    "3x3/2 odd": ((2, 8, 13, 15), (12, 8, 3, 3), 2, 1, 1, 1),
    "3x3/2 even": ((2, 8, 14, 16), (12, 8, 3, 3), 2, 1, 1, 1),
    "1x1": ((3, 20, 7, 7), (33, 20, 1, 1), 1, 0, 1, 1),
    "1x1 padded": ((1, 6, 5, 4), (3, 6, 1, 1), 1, (1, 2), 1, 1),
    "1x1/2 odd": ((2, 24, 7, 9), (16, 24, 1, 1), 2, 0, 1, 1),
    "1x1/2 even": ((2, 24, 8, 6), (16, 24, 1, 1), 2, 0, 1, 1),
    "1x1/3x2 padded": ((1, 5, 9, 8), (4, 5, 1, 1), (3, 2), 1, 1, 1),
    "7x7/2 of 3": ((2, 3, 25, 31), (16, 3, 7, 7), 2, 3, 1, 1),
    "3x3/2 of 3": ((1, 3, 24, 31), (32, 3, 3, 3), 2, 1, 1, 1),
    "of 1": ((2, 1, 9, 9), (4, 1, 3, 3), 1, 1, 1, 1),
    "2x5/3x1": ((1, 4, 11, 13), (6, 4, 2, 5), (3, 1), (1, 2), 1, 1),
    "dilated": ((1, 6, 15, 14), (5, 6, 3, 3), 1, 2, 2, 1),
    "dilated, strided": ((1, 6, 15, 17), (5, 6, 3, 2), (2, 4), (2, 3), (2, 6), 1),
    "stride beyond the kernel": ((1, 4, 17, 11), (8, 4, 2, 2), 5, 0, 1, 1),
    "padding beyond the kernel": ((1, 4, 5, 6), (8, 4, 3, 3), 1, (5, 4), 1, 1),
    "one pixel": ((1, 4, 1, 1), (8, 4, 3, 3), 1, 1, 1, 1),
    "groups of 4": ((2, 32, 9, 7), (32, 4, 3, 3), 1, 1, 1, 8),
    "groups of 4, /2": ((2, 32, 9, 7), (32, 4, 3, 3), 2, 1, 1, 8),
    "groups of 8": ((1, 32, 9, 7), (32, 8, 3, 3), 1, 1, 1, 4),
    "groups of 16": ((1, 64, 8, 8), (64, 16, 3, 3), 1, 1, 1, 4),
    "groups of 10 to 20": ((1, 40, 8, 9), (80, 10, 3, 3), 1, 1, 1, 4),
    "groups of 10 to 20, /2": ((1, 40, 8, 9), (80, 10, 3, 3), 2, 1, 1, 4),
    "two groups": ((2, 48, 9, 8), (96, 24, 3, 3), 1, 1, 1, 2),
    "depthwise": ((2, 20, 9, 8), (20, 1, 3, 3), 1, 1, 1, 20),
    "depthwise 5x5/2": ((1, 20, 9, 8), (20, 1, 5, 5), 2, 2, 1, 20),
    "depthwise, two each": ((1, 6, 9, 8), (12, 1, 3, 3), 1, 1, 1, 6),
}

# What networks are made of.
REAL = {
    "stem": ((1, 3, 224, 224), (64, 3, 7, 7), 2, 3, 1, 1),
    "deep stem": ((2, 3, 224, 224), (32, 3, 3, 3), 2, 1, 1, 1),
    "3x3 64@56": ((4, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1, 1),
    "3x3 128@28": ((4, 128, 28, 28), (128, 128, 3, 3), 1, 1, 1, 1),
    "3x3 256@14": ((4, 256, 14, 14), (256, 256, 3, 3), 1, 1, 1, 1),
    "3x3 512@7": ((8, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1),
    "1x1 256-64@56": ((2, 256, 56, 56), (64, 256, 1, 1), 1, 0, 1, 1),
    "1x1 256-1024@14": ((2, 256, 14, 14), (1024, 256, 1, 1), 1, 0, 1, 1),
    "3x3/2 128@56": ((2, 128, 56, 56), (128, 128, 3, 3), 2, 1, 1, 1),
    "1x1/2 256-512@56": ((2, 256, 56, 56), (512, 256, 1, 1), 2, 0, 1, 1),
    "resnext 128@56": ((2, 128, 56, 56), (128, 4, 3, 3), 1, 1, 1, 32),
    "resnext/2 256@56": ((2, 256, 56, 56), (256, 8, 3, 3), 2, 1, 1, 32),
    "resnest 128@28": ((2, 128, 28, 28), (256, 64, 3, 3), 1, 1, 1, 2),
    "resnest 4s2x40d": ((2, 80, 28, 28), (320, 40, 3, 3), 1, 1, 1, 2),
}


def conv2d_grad(x, w, dy, stride, padding, dilation, groups):
    """dx, dw, db in float64: what each tap gives."""
    (sh, sw), (dh, dv), (ph, pw) = map(oracle.pair, (stride, dilation, padding))
    x, w, dy = map(oracle.f64, (x, w, dy))
    (h, v), (oc, icg, kh, kw) = x.shape[2:], w.shape
    oh, ow = dy.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for g in range(groups):
        ins = slice(g * icg, (g + 1) * icg)
        outs = slice(g * oc // groups, (g + 1) * oc // groups)
        for i, j in np.ndindex(kh, kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dv, j * dv + (ow - 1) * sw + 1, sw)
            axes = [0, 2, 3]
            dw[outs, :, i, j] = np.tensordot(dy[:, outs], xp[:, ins, rows, columns], (axes, axes))
            tap = np.tensordot(w[outs, :, i, j], dy[:, outs], (0, 1))
            dxp[:, ins, rows, columns] += tap.transpose(1, 0, 2, 3)
    return dxp[..., ph : ph + h, pw : pw + v], dw, dy.sum((0, 2, 3))


def arrays(case):
    xs, ws, stride, padding, dilation, groups = case
    x, w, b = draw("x", xs), draw("w", ws, 0.1), draw("b", ws[:1])
    y = F.conv2d(Tensor(x), Tensor(w), None, stride, padding, dilation, groups)
    return x, w, b, draw("dy", y.shape)


def gradients(x, w, b, dy, args):
    x, w, b = (Tensor(a, requires_grad=True) for a in (x, w, b))
    F.conv2d(x, w, b, *args).backward(Tensor(dy))
    return [t.grad.numpy() for t in (x, w, b)]


@pytest.mark.parametrize("name", ODD)
def test_odd_shapes(name):
    case = ODD[name]
    x, w, b, dy = arrays(case)
    expected = conv2d_grad(x, w, dy, *case[2:])
    for got, want in zip(gradients(x, w, b, dy, case[2:]), expected, strict=True):
        assert_close(got, want, rel=5e-6)


@pytest.mark.parametrize("name", ["3x3/2 odd", "dilated, strided", "groups of 10 to 20, /2"])
def test_the_oracle_against_differences(name):
    """A convolution is linear in x and in w: one difference is exact but for rounding."""
    case = ODD[name]
    x, w, _, dy = arrays(case)
    dx, dw, _ = conv2d_grad(x, w, dy, *case[2:])
    step_x, step_w = draw("step x", x.shape), draw("step w", w.shape)

    def loss(x, w):
        return (oracle.conv2d(x, w, None, *case[2:]) * dy).sum()

    x64, w64 = oracle.f64(x), oracle.f64(w)
    along_x = (loss(x64 + step_x, w64) - loss(x64 - step_x, w64)) / 2
    along_w = (loss(x64, w64 + step_w) - loss(x64, w64 - step_w)) / 2
    assert np.isclose(along_x, (dx * step_x).sum(), rtol=1e-9)
    assert np.isclose(along_w, (dw * step_w).sum(), rtol=1e-9)


@pytest.mark.parametrize("name", REAL)
def test_real_shapes_against_pytorch(name):
    torch = pytest.importorskip("torch")
    case = REAL[name]
    x, w, b, dy = arrays(case)
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, b)]
    torch.nn.functional.conv2d(*leaves, *case[2:]).backward(torch.tensor(dy, dtype=torch.float64))
    for got, leaf in zip(gradients(x, w, b, dy, case[2:]), leaves, strict=True):
        assert_close(got, leaf.grad.numpy(), rel=1e-5)


# Channels of x and y, height and width, kernel, stride.
LARGE = {
    "direct": (64, 64, 56, 1, 1),
    "strassen": (128, 128, 28, 1, 1),
    "strassen twice": (512, 512, 14, 1, 1),
    "winograd": (64, 64, 56, 3, 1),
    "winograd late": (256, 256, 14, 3, 1),
    "winograd, stride 2": (64, 64, 56, 3, 2),
    "winograd, stem": (3, 64, 112, 7, 2),
    "direct, stride 2": (64, 64, 56, 1, 2),
}


@pytest.mark.parametrize("name", LARGE)
def test_results_larger_than_the_caches(name):
    """They come from memory and go past the caches; image by image, not: with the same bits."""
    ic, oc, size, kernel, stride = LARGE[name]
    out = size // stride
    image = 4 * min(ic * size**2, oc * out**2)
    n = min(lucid_c.config()["l3"] // 2, 48 << 20) // image + 2
    x, dy = draw("x", (n, ic, size, size)), draw("dy", (n, oc, out, out))
    w = draw("w", (oc, ic, kernel, kernel), 0.1)

    def both(x, dy):
        x = Tensor(x, requires_grad=True)
        y = F.conv2d(x, Tensor(w), None, stride, kernel // 2)
        y.backward(Tensor(dy))
        return y.detach().numpy(), x.grad.numpy()

    y, dx = both(x, dy)
    for i in (0, n // 2, n - 1):
        one_y, one_dx = both(x[i : i + 1], dy[i : i + 1])
        assert_same_bits(y[i : i + 1], one_y)
        assert_same_bits(dx[i : i + 1], one_dx)


def test_sums_over_a_batch_stay_accurate():
    """16 images of 56x56: 50176 terms, of inputs that are not centred."""
    x = np.maximum(draw("x", (16, 16, 56, 56)), 0)
    dy = draw("dy", (16, 16, 56, 56)) + np.float32(0.1)
    w = draw("w", (16, 16, 3, 3), 0.1)
    want = conv2d_grad(x, w, dy, 1, 1, 1, 1)
    for got, expected in zip(
        gradients(x, w, np.zeros(16, np.float32), dy, (1, 1)), want, strict=True
    ):
        assert_close(got, expected, rel=5e-6)


@pytest.mark.parametrize(
    "name", ["3x3 in tiles", "3x3/2 odd", "1x1/2 even", "7x7/2 of 3", "groups of 4", "two groups"]
)
def test_any_number_of_threads_gives_the_same_bits(name, threads):
    case = ODD[name]
    arguments = arrays(case)
    threads(1)
    expected = gradients(*arguments, case[2:])
    for count in (2, 3, 5):
        threads(count)
        for got, want in zip(gradients(*arguments, case[2:]), expected, strict=True):
            assert_same_bits(got, want)


def test_only_what_is_asked_for():
    x, w, b, dy = arrays(ODD["3x3"])
    alone = gradients(x, w, b, dy, (1, 1))
    for i in range(3):
        leaves = [Tensor(a, requires_grad=k == i) for k, a in enumerate((x, w, b))]
        F.conv2d(*leaves, 1, 1).backward(Tensor(dy))
        assert [t.grad is None for t in leaves] == [k != i for k in range(3)]
        assert_same_bits(leaves[i].grad.numpy(), alone[i])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_meets_the_input_gradient(stride):
    """The sum of two gradients is part of the later convolution."""
    x, w = draw("x", (2, 16, 10, 10)), draw("w", (16, 16, 3, 3), 0.1)
    v = draw("v", (16, 16, 1, 1), 0.1)
    leaf = Tensor(x, requires_grad=True)
    y = F.conv2d(leaf, Tensor(w), None, stride, 1) + F.conv2d(leaf, Tensor(v), None, stride)
    dy = draw("dy", y.shape)
    y.backward(Tensor(dy))
    want = conv2d_grad(x, w, dy, stride, 1, 1, 1)[0] + conv2d_grad(x, v, dy, stride, 0, 1, 1)[0]
    assert_close(leaf.grad.numpy(), want, rel=5e-6)


def test_an_empty_batch():
    x, w, b = Tensor(np.zeros((0, 4, 6, 6), np.float32)), draw("w", (8, 4, 3, 3)), np.zeros(8)
    x.requires_grad = True
    w, b = Tensor(w, requires_grad=True), Tensor(b.astype(np.float32), requires_grad=True)
    y = F.conv2d(x, w, b, 2, 1)
    y.backward(Tensor(np.zeros(y.shape, np.float32)))
    assert x.grad.shape == (0, 4, 6, 6)
    assert not w.grad.numpy().any() and not b.grad.numpy().any()


GRADIENTS = """
import sys
import numpy as np
from lucid_c import Tensor
from lucid_c.nn import functional as F

x, w, dy = (Tensor(a, requires_grad=True) for a in np.load(sys.argv[1]).values())
F.conv2d(x, w, None, 1, 1).backward(dy.detach())
np.savez(sys.argv[1], x.grad.numpy(), w.grad.numpy())
"""


def test_direct_sums_on_demand(tmp_path, run_python):
    """LUCID_C_CONV=direct holds for both gradients; without it both use Winograd's algorithm."""
    x, w, _, dy = arrays(ODD["3x3 in tiles"])
    exact, results = conv2d_grad(x, w, dy, 1, 1, 1, 1), {}
    for mode in ("direct", None):
        file = tmp_path / f"{mode}.npz"
        np.savez(file, x, w, dy)
        run_python(GRADIENTS, env={"LUCID_C_CONV": mode}, args=[file])
        results[mode] = list(np.load(file).values())
    for direct, fast, want in zip(results["direct"], results[None], exact, strict=False):
        assert_close(direct, want, rel=1e-6)
        assert_close(fast, want, rel=5e-6)
        assert (direct != fast).any()
