# SPDX-License-Identifier: MIT
"""A slow, plain NumPy oracle of every operator, in float64.

It shares no code and no idea with the C core: windows are taken by index, sums are NumPy's.
Names and arguments are PyTorch's.  ``test_oracle.py`` holds it against hand-computed cases and,
where PyTorch is installed, against PyTorch in float64.
"""

import math

import numpy as np


def f64(x):
    return np.asarray(x).astype(np.float64)


def pair(v):
    if isinstance(v, (tuple, list)):
        if len(v) == 1:
            return int(v[0]), int(v[0])
        return int(v[0]), int(v[1])
    return int(v), int(v)


# --- convolution -----------------------------------------------------------------------------


def conv_padding(padding, kernel, dilation):
    """((top, bottom), (left, right)) of a ``padding`` argument: number, pair, 'same', 'valid'."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    ph, pw = pair(padding)
    return (ph, ph), (pw, pw)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """input (N, C, H, W) or (C, H, W), weight (OC, C/groups, KH, KW)."""
    x, w = f64(input), f64(weight)
    if x.ndim == 3:
        return conv2d(x[None], w, bias, stride, padding, dilation, groups)[0]
    n, c, _, _ = x.shape
    oc, cg, kh, kw = w.shape
    assert c == cg * groups and oc % groups == 0
    sh, sw = pair(stride)
    dh, dw = pair(dilation)
    rows, cols = conv_padding(padding, (kh, kw), (dh, dw))
    x = np.pad(x, ((0, 0), (0, 0), rows, cols))
    oh = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((n, oc, oh, ow))
    og = oc // groups
    for i in range(kh):
        for j in range(kw):
            part = x[
                :,
                :,
                i * dh : i * dh + (oh - 1) * sh + 1 : sh,
                j * dw : j * dw + (ow - 1) * sw + 1 : sw,
            ]
            for g in range(groups):
                mine = part[:, g * cg : (g + 1) * cg].transpose(0, 2, 3, 1).reshape(-1, cg)
                term = mine @ w[g * og : (g + 1) * og, :, i, j].T
                y[:, g * og : (g + 1) * og] += term.reshape(n, oh, ow, og).transpose(0, 3, 1, 2)
    if bias is not None:
        y += f64(bias)[None, :, None, None]
    return y


def linear(input, weight, bias=None):
    y = f64(input) @ f64(weight).T
    return y if bias is None else y + f64(bias)


def batch_norm(input, running_mean, running_var, weight=None, bias=None, eps=1e-5):
    x = f64(input)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    y = (x - f64(running_mean).reshape(shape)) / np.sqrt(f64(running_var).reshape(shape) + eps)
    if weight is not None:
        y = y * f64(weight).reshape(shape)
    if bias is not None:
        y = y + f64(bias).reshape(shape)
    return y


# --- pointwise -------------------------------------------------------------------------------


def relu(x):
    x = f64(x)
    return np.where(np.isnan(x), x, np.maximum(x, 0.0))


def sigmoid(x):
    x = f64(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def softmax(x, dim):
    x = f64(x)
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def log_softmax(x, dim):
    x = f64(x)
    s = x - x.max(axis=dim, keepdims=True)
    return s - np.log(np.exp(s).sum(axis=dim, keepdims=True))


def add(a, b):
    return f64(a) + f64(b)


def sub(a, b):
    return f64(a) - f64(b)


def mul(a, b):
    return f64(a) * f64(b)


def div(a, b):
    return f64(a) / f64(b)


def exp(x):
    return np.exp(f64(x))


def log(x):
    return np.log(f64(x))


def sqrt(x):
    return np.sqrt(f64(x))


def clamp(x, min=None, max=None):
    x = f64(x)
    if min is not None:
        x = np.where(x < min, float(min), x)
    if max is not None:
        x = np.where(x > max, float(max), x)
    return x


def dropout(x, p=0.5, training=False):
    assert not training
    return f64(x)


# --- pooling ---------------------------------------------------------------------------------


def pool_out(size, k, s, p, d=1, ceil_mode=False):
    """Output length of a pool; with ``ceil_mode`` no window starts beyond the input + left pad."""
    room = size + 2 * p - d * (k - 1) - 1
    out = (math.ceil(room / s) if ceil_mode else room // s) + 1
    if ceil_mode and (out - 1) * s >= size + p:
        out -= 1
    return out


def _pool(x, fn, kernel_size, stride, padding, dilation, ceil_mode):
    x = np.asarray(x)
    if x.ndim == 3:
        return _pool(x[None], fn, kernel_size, stride, padding, dilation, ceil_mode)[0]
    kh, kw = pair(kernel_size)
    sh, sw = pair(stride if stride is not None else kernel_size)
    (ph, pw), (dh, dw) = pair(padding), pair(dilation)
    n, c, h, w = x.shape
    oh, ow = pool_out(h, kh, sh, ph, dh, ceil_mode), pool_out(w, kw, sw, pw, dw, ceil_mode)
    y = np.empty((n, c, oh, ow), x.dtype)
    for i in range(oh):
        rows = [i * sh - ph + k * dh for k in range(kh)]
        for j in range(ow):
            cols = [j * sw - pw + k * dw for k in range(kw)]
            y[:, :, i, j] = fn(x, rows, cols, ph, pw)
    return y


def _inside(index, size):
    return [i for i in index if 0 <= i < size]


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Picks values and computes nothing, so it keeps the input's dtype: compare bit by bit."""

    def window(x, rows, cols, ph, pw):
        r, c = _inside(rows, x.shape[2]), _inside(cols, x.shape[3])
        return x[:, :, r][:, :, :, c].max(axis=(2, 3))  # NumPy's max hands NaN on, as PyTorch's

    return _pool(input, window, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):

    def window(x, rows, cols, ph, pw):
        h, w = x.shape[2:]
        r, c = _inside(rows, h), _inside(cols, w)
        if divisor_override is not None:
            count = divisor_override
        elif count_include_pad:  # what ceil_mode puts beyond the padding is never counted
            count = len([i for i in rows if i < h + ph]) * len([i for i in cols if i < w + pw])
        else:
            count = len(r) * len(c)
        return x[:, :, r][:, :, :, c].sum(axis=(2, 3)) / count

    return _pool(f64(input), window, kernel_size, stride, padding, 1, ceil_mode)


def _adaptive(x, output_size, reduce):
    x = np.asarray(x)
    if x.ndim == 3:
        return _adaptive(x[None], output_size, reduce)[0]
    size = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    oh, ow = (x.shape[2 + k] if s is None else int(s) for k, s in enumerate(size))
    h, w = x.shape[2:]
    y = np.empty(x.shape[:2] + (oh, ow), x.dtype)
    for i in range(oh):
        top, bottom = i * h // oh, -(-(i + 1) * h // oh)
        for j in range(ow):
            left, right = j * w // ow, -(-(j + 1) * w // ow)
            y[:, :, i, j] = reduce(x[:, :, top:bottom, left:right])
    return y


def adaptive_avg_pool2d(input, output_size):
    return _adaptive(f64(input), output_size, lambda t: t.mean(axis=(2, 3)))


def adaptive_max_pool2d(input, output_size):
    return _adaptive(input, output_size, lambda t: t.max(axis=(2, 3)))


# --- shapes ----------------------------------------------------------------------------------


def reshape(x, shape):
    return np.ascontiguousarray(x).reshape(shape)


def flatten(x, start_dim=0, end_dim=-1):
    x = np.asarray(x)
    if x.ndim == 0:
        return x.reshape(1)
    start, end = start_dim % x.ndim, end_dim % x.ndim
    middle = int(np.prod(x.shape[start : end + 1]))
    return np.ascontiguousarray(x).reshape(x.shape[:start] + (middle,) + x.shape[end + 1 :])


def permute(x, dims):
    return np.asarray(x).transpose(dims)


def cat(tensors, dim=0):
    return np.concatenate([np.asarray(t) for t in tensors], axis=dim)


def pad(x, pad, mode="constant", value=0.0):
    """Pairs from the last dimension backwards; a negative number cuts."""
    assert mode == "constant"
    x = np.asarray(x)
    widths, cuts = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for k in range(len(pad) // 2):
        lo, hi = pad[2 * k], pad[2 * k + 1]
        axis = x.ndim - 1 - k
        widths[axis] = (max_of(lo, 0), max_of(hi, 0))
        cuts[axis] = slice(max_of(-lo, 0), x.shape[axis] - max_of(-hi, 0))
    return np.pad(x[tuple(cuts)], widths, constant_values=value)


# --- reductions and products -----------------------------------------------------------------


def _axes(dim):
    return tuple(dim) if isinstance(dim, (tuple, list)) else dim


def sum(x, dim=None, keepdim=False):
    return f64(x).sum(axis=_axes(dim), keepdims=keepdim)


def mean(x, dim=None, keepdim=False):
    return f64(x).mean(axis=_axes(dim), keepdims=keepdim)


def max(x, dim=None, keepdim=False):
    return np.asarray(x).max(axis=_axes(dim), keepdims=keepdim)


def argmax(x, dim=None, keepdim=False):
    return np.asarray(x).argmax(axis=dim, keepdims=keepdim)


def matmul(a, b):
    return f64(a) @ f64(b)


# --- split attention -------------------------------------------------------------------------


def attention_width(in_width, radix):
    """Width of split attention: a quarter of ``in_width * radix``, to a multiple of 8."""
    want = in_width * radix / 4
    width = 32 if want < 32 else int(want + 4) // 8 * 8
    return width + 8 if width < 0.9 * want else width


def radix_softmax(logits, cardinality, radix):
    """(N, cardinality * radix * width, 1, 1) -> weights in the order (radix, cardinality, width).

    ``radix == 1``: a sigmoid, in the order of the logits.
    """
    x = f64(logits)
    n = x.shape[0]
    if radix == 1:
        return sigmoid(x).reshape(n, -1)
    view = x.reshape(n, cardinality, radix, -1).transpose(0, 2, 1, 3)
    return softmax(view, 1).reshape(n, -1)


def radix_softmax_lucid2(logits, cardinality, radix):
    """lucid 2.x: softmax over a plain (N, radix, cardinality, width) view."""
    x = f64(logits)
    n = x.shape[0]
    if radix == 1:
        return sigmoid(x).reshape(n, -1)
    return softmax(x.reshape(n, radix, cardinality, -1), 1).reshape(n, -1)


def radix_sum(x, radix):
    """(N, radix * C, H, W) -> (N, C, H, W)."""
    x = f64(x)
    n, rc, h, w = x.shape
    return x.reshape(n, radix, rc // radix, h, w).sum(axis=1)


def split_attention(x, state, prefix, stride=1, padding=1, groups=1, radix=2, lucid2=False):
    """The split attention convolution with the parameters ``prefix + 'conv.weight'`` ... of
    ``state``.  ``groups`` is the cardinality."""
    x = conv2d(
        x,
        state[prefix + "conv.weight"],
        state.get(prefix + "conv.bias"),
        stride,
        padding,
        groups=groups * max_of(radix, 1),
    )
    x = relu(norm(x, state, prefix + "bn0."))
    gap = radix_sum(x, radix) if radix > 1 else x
    gap = gap.mean(axis=(2, 3), keepdims=True)
    gap = conv2d(gap, state[prefix + "fc1.weight"], state[prefix + "fc1.bias"], groups=groups)
    gap = relu(norm(gap, state, prefix + "bn1."))
    logits = conv2d(gap, state[prefix + "fc2.weight"], state[prefix + "fc2.bias"], groups=groups)
    weights = (radix_softmax_lucid2 if lucid2 else radix_softmax)(logits, groups, radix)
    return radix_sum(x * weights[:, :, None, None], radix)


def max_of(a, b):
    """The builtin, which the operator of that name hides here."""
    return a if a > b else b


def norm(x, state, prefix, eps=1e-5):
    """Batch norm with the parameters ``prefix + 'weight'`` ... of a state dict."""
    return batch_norm(
        x,
        state[prefix + "running_mean"],
        state[prefix + "running_var"],
        state[prefix + "weight"],
        state[prefix + "bias"],
        eps,
    )
