"""Functions with the names, arguments and defaults of ``torch.nn.functional``.

They take tensors, arrays or nested lists, and return tensors. Floats of any width are computed as
float32; integers, bools and complex numbers are a `TypeError`. Where PyTorch takes one image
without the batch axis, (C, H, W), so does lucid_c.
"""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .._tensor import Tensor, as_tensor

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "cross_entropy",
    "drop_block",
    "drop_path",
    "dropout",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

Size = int | Sequence[int]


def pair(value: Size, name: str) -> tuple[int, int]:
    """Return two whole numbers from one or two."""
    items = value if isinstance(value, (tuple, list)) else (value,)
    if not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in items):
        raise TypeError(f"{name} must be one or two integers, not {value!r}")
    if len(items) not in (1, 2):
        raise ValueError(f"{name} must be one or two integers, got {value!r}")
    return operator.index(items[0]), operator.index(items[-1])


def whole(value: Any, name: str) -> int:
    """Return a whole number; anything else is an error that names the argument."""
    if isinstance(value, (bool, np.bool)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    return operator.index(value)


def real(value: Any, name: str) -> float:
    """Return a number; anything else is an error that names the argument."""
    if isinstance(value, str) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def _batch(x: Any) -> tuple[Any, bool]:
    """Return the input with a batch axis, and whether it had none."""
    if not isinstance(x, _core.Tensor):
        x = np.asarray(x)
    return (x[None], True) if len(x.shape) == 3 else (x, False)


def _same(y: Tensor, alone: bool) -> Tensor:
    return y[0] if alone else y


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve images with filters (without flipping them, as in PyTorch).

    Parameters
    ----------
    input : array_like
        (N, C, H, W) or (C, H, W).
    weight : array_like
        (OC, C / groups, KH, KW).
    bias : array_like, optional
        (OC,).
    stride, dilation : int or (int, int)
        Step between outputs, and between the taps of a filter.
    padding : int, (int, int), ``"same"`` or ``"valid"``
        Zeros on each side. ``"same"`` needs stride 1 and keeps height and width; an odd number of
        zeros has one more at the bottom and right.
    groups : int
        Parts that the channels are divided into, each convolved on its own.
    """
    steps, holes = pair(stride, "stride"), pair(dilation, "dilation")
    x, alone = _batch(input)
    if isinstance(padding, str):
        around = _named_padding(padding, steps, holes, weight)
    else:
        above, beside = pair(padding, "padding")
        around = (above, above, beside, beside)
    parts = whole(groups, "groups")
    return _same(_core.conv2d(x, weight, bias, steps, around, holes, parts), alone)


def _named_padding(name: str, stride: tuple, dilation: tuple, weight: Any) -> tuple:
    if name == "valid":
        return (0, 0, 0, 0)
    if name != "same":
        raise ValueError(f"padding must be integers, 'same' or 'valid', not {name!r}")
    if stride != (1, 1):
        raise ValueError(f"padding='same' needs stride 1, got {stride}")
    kernel = np.shape(weight)[2:] if not isinstance(weight, _core.Tensor) else weight.shape[2:]
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=False)]
    return tuple(n for t in total for n in (t // 2, t - t // 2)) or (0, 0, 0, 0)


def linear(input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Tensor:
    """Return ``input @ weight.T + bias``.

    Parameters
    ----------
    input : array_like
        (..., IN).
    weight : array_like
        (OUT, IN), or (IN,) for a single output without an axis of its own.
    bias : array_like, optional
        (OUT,), or a number.
    """
    if not isinstance(weight, _core.Tensor):
        weight = np.asarray(weight)
    if bias is not None and not isinstance(bias, _core.Tensor):
        bias = np.asarray(bias, np.float32 if isinstance(bias, (int, float)) else None)
    if len(weight.shape) == 1:
        y = _core.matmul(input, weight)
    elif bias is None or bias.shape:
        return _core.linear(input, weight, bias)
    else:
        y = _core.linear(input, weight, None)
    return y if bias is None else _core.binary("add", y, bias)


def batch_norm(
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1), then scale and shift it.

    Parameters
    ----------
    input : array_like
        (N, C, ...).
    running_mean, running_var : array_like, optional
        (C,). With ``training=True`` they are None, or buffers of a module, which are changed.
    weight, bias : array_like, optional
        (C,).
    training : bool
        Use the mean and variance of this input.
    momentum : float
        Share of this input in the running statistics.
    eps : float
        Added to the variance.
    """
    eps, momentum = real(eps, "eps"), real(momentum, "momentum")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must both be given or both be None")
    if not training and running_mean is None:
        raise ValueError("batch_norm needs running_mean and running_var unless training=True")
    return _core.batch_norm(
        input, running_mean, running_var, weight, bias, eps, bool(training), momentum
    )


def relu(input: ArrayLike, inplace: bool = False) -> Tensor:
    """Return the input with negative numbers as zero; NaN stays NaN.

    ``inplace`` is taken as a hint: the input is never changed.
    """
    return _core.unary("relu", input)


def sigmoid(input: ArrayLike) -> Tensor:
    """Return 1 / (1 + exp(-input))."""
    return _core.unary("sigmoid", input)


def tanh(input: ArrayLike) -> Tensor:
    """Return the hyperbolic tangent."""
    return _core.unary("tanh", input)


def softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Return exp(input) divided by its sum along an axis.

    Parameters
    ----------
    input : array_like
        Any shape.
    dim : int, optional
        The axis; by default 0 for 0, 1 or 3 dimensions, else 1.
    dtype : dtype, optional
        float32 or None.
    """
    return _softmax(input, dim, dtype, False)


def log_softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Return the logarithm of `softmax`, without loss of digits."""
    return _softmax(input, dim, dtype, True)


def _softmax(input: Any, dim: int | None, dtype: Any, log: bool) -> Tensor:
    if dtype is not None and np.dtype(dtype) != np.float32:
        raise TypeError(f"lucid_c computes in float32, not in {np.dtype(dtype)}")
    if dim is None:
        rank = len(input.shape) if isinstance(input, _core.Tensor) else np.ndim(input)
        dim = 0 if rank in (0, 1, 3) else 1
    return _core.softmax(input, whole(dim, "dim"), log)


def dropout(
    input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Set elements to zero at random and divide the others by ``1 - p``.

    Parameters
    ----------
    input : array_like
        Any shape.
    p : float
        The share of zeros.
    training : bool
        Otherwise the input is returned as it is.
    inplace : bool
        Not used.
    """
    share = _share(p, "p")
    return _core.dropout(input, share) if training and share else as_tensor(input)


def drop_path(
    input: ArrayLike, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True
) -> Tensor:
    """Set whole samples to zero at random (Huang et al. 2016, "stochastic depth").

    Parameters
    ----------
    input : array_like
        (N, ...).
    drop_prob : float
        The share of samples.
    training : bool
        Otherwise the input is returned as it is.
    scale_by_keep : bool
        Divide the others by ``1 - drop_prob``.
    """
    share = _share(drop_prob, "drop_prob")
    if not training or not share:
        return as_tensor(input)
    return _core.drop_path(input, share, bool(scale_by_keep))


def drop_block(
    input: ArrayLike, p: float = 0.1, block_size: int = 7, training: bool = True
) -> Tensor:
    """Set squares of each channel to zero at random (Ghiasi et al. 2018, "DropBlock", algorithm 1).

    What stays is multiplied by the number of elements over the number of those that stay.

    Parameters
    ----------
    input : array_like
        (N, C, H, W).
    p : float
        The share of zeros, about.
    block_size : int
        Height and width of the squares; at most the smaller side of the image is taken.
    training : bool
        Otherwise the input is returned as it is.
    """
    share, size = _share(p, "p"), whole(block_size, "block_size")
    if size < 1:
        raise ValueError(f"block_size must be positive, got {block_size}")
    return _core.drop_block(input, share, size) if training and share else as_tensor(input)


def _share(p: Any, name: str) -> float:
    if not 0 <= real(p, name) <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {p}")
    return float(p)


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy between logits and classes, or shares of classes.

    Parameters
    ----------
    input : array_like
        Logits, (N, C, ...) or (C,).
    target : array_like
        Class numbers, integers of shape (N, ...) or (); or shares (probabilities), floats of the
        input's shape.
    weight : array_like, optional
        (C,), what a class counts.
    size_average, reduce : None
        PyTorch's old spelling of ``reduction``; must be None.
    ignore_index : int
        A class number whose places have no loss.
    reduction : str
        ``"none"``: one loss per place; ``"sum"``; ``"mean"``: their sum divided by the weights of
        the places' classes, or with shares by the number of places.
    label_smoothing : float
        Share of every target that all classes have alike (Szegedy et al. 2016, "Rethinking the
        Inception architecture", section 7).

    Raises
    ------
    ValueError
        If shapes do not fit, or a class number is not in 0 .. C - 1 (and not ``ignore_index``).
    """
    how = check_reduction(size_average, reduce, reduction)
    smoothing = real(label_smoothing, "label_smoothing")
    index = whole(ignore_index, "ignore_index")
    return _core.cross_entropy(input, _numbers(target), weight, index, how, smoothing, False)


def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the negative log-likelihood of classes: `cross_entropy` after `log_softmax`.

    Parameters
    ----------
    input : array_like
        Logarithms of probabilities, (N, C, ...) or (C,).
    target : array_like
        Class numbers, integers of shape (N, ...) or ().
    weight, size_average, ignore_index, reduce, reduction
        As for `cross_entropy`.
    """
    how = check_reduction(size_average, reduce, reduction)
    index = whole(ignore_index, "ignore_index")
    return _core.cross_entropy(input, _numbers(target), weight, index, how, 0.0, True)


def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Tensor:
    """Return the cross-entropy between logits and independent probabilities.

    Parameters
    ----------
    input, target : array_like
        Of one shape; targets are floats from 0 to 1.
    weight : array_like, optional
        What an element counts; broadcast to the input's shape.
    size_average, reduce : None
        PyTorch's old spelling of ``reduction``; must be None.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``.
    pos_weight : array_like, optional
        What positive targets count; broadcast to the input's shape.
    """
    how = check_reduction(size_average, reduce, reduction)
    shape = _shape(input)
    if _shape(target) != shape:
        raise ValueError(
            f"target of shape {_shape(target)} must have the shape of the input, {shape}"
        )
    weights = [
        each if each is None or _shape(each) == shape else _core.expand(each, shape)
        for each in (weight, pos_weight)
    ]
    return _core.bce_with_logits(input, target, *weights, how)


def mse_loss(
    input: ArrayLike,
    target: ArrayLike,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the squared differences.

    Parameters
    ----------
    input, target : array_like
        Of one shape; other than in PyTorch they are not broadcast.
    size_average, reduce : None
        PyTorch's old spelling of ``reduction``; must be None.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``.
    """
    how = check_reduction(size_average, reduce, reduction)
    return _core.mse(input, target, how)


def check_reduction(size_average: Any, reduce: Any, reduction: Any) -> str:
    """Return the reduction of a loss; anything that is none is an error."""
    if size_average is not None or reduce is not None:
        raise TypeError("size_average and reduce are not taken; use reduction='mean' or 'sum'")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    return reduction


def _numbers(target: Any) -> Any:
    return target if isinstance(target, _core.Tensor) else np.asarray(target)


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if isinstance(x, _core.Tensor) else np.shape(x)


def max_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Return the largest number in each window.

    Parameters
    ----------
    input : array_like
        (N, C, H, W) or (C, H, W).
    kernel_size, stride, padding, dilation : int or (int, int)
        The window, its step (by default its size), what is added around the image (at most half
        a window, never the largest), the step inside of the window.
    ceil_mode : bool
        Whether the last window may reach beyond the image.
    return_indices : bool
        Must be False.
    """
    if return_indices:
        raise ValueError("max_pool2d does not give indices: return_indices must be False")
    return _pool("max", input, kernel_size, stride, padding, dilation, ceil_mode, False, 0)


def avg_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of each window.

    Parameters
    ----------
    input : array_like
        (N, C, H, W) or (C, H, W).
    kernel_size, stride, padding : int or (int, int)
        The window, its step (by default its size), zeros around the image.
    ceil_mode : bool
        Whether the last window may reach beyond the image.
    count_include_pad : bool
        Whether the zeros of the padding count as elements.
    divisor_override : int, optional
        What to divide by instead of the number of elements.
    """
    divisor = check_divisor(divisor_override)
    return _pool(
        "avg", input, kernel_size, stride, padding, 1, ceil_mode, count_include_pad, divisor
    )


def check_divisor(divisor_override: int | None) -> int:
    """Return the divisor of an average pool as the core takes it."""
    if divisor_override == 0:
        raise ValueError("divisor_override must not be zero")
    return 0 if divisor_override is None else whole(divisor_override, "divisor_override")


def pool_sizes(kernel_size: Size, stride: Size | None, padding: Size, dilation: Size) -> tuple:
    """Return kernel, stride, padding and dilation of a pool as pairs."""
    kernel = pair(kernel_size, "kernel_size")
    step = kernel if stride is None or stride in ((), []) else pair(stride, "stride")
    return kernel, step, pair(padding, "padding"), pair(dilation, "dilation")


def _pool(
    kind: str,
    input: Any,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    *options: Any,
) -> Tensor:
    sizes = pool_sizes(kernel_size, stride, padding, dilation)
    x, alone = _batch(input)
    return _same(_core.pool2d(kind, x, *sizes, *options), alone)


def adaptive_avg_pool2d(input: ArrayLike, output_size: int | None | Sequence[int | None]) -> Tensor:
    """Return the means over a grid of windows that cover the image.

    Parameters
    ----------
    input : array_like
        (N, C, H, W) or (C, H, W).
    output_size : int, None or pair of these
        Height and width of the result; None keeps the input's.
    """
    return _adaptive("avg", input, output_size)


def adaptive_max_pool2d(
    input: ArrayLike,
    output_size: int | None | Sequence[int | None],
    return_indices: bool = False,
) -> Tensor:
    """Return the largest numbers over a grid of windows that cover the image.

    Parameters
    ----------
    input : array_like
        (N, C, H, W) or (C, H, W).
    output_size : int, None or pair of these
        Height and width of the result; None keeps the input's.
    return_indices : bool
        Must be False.
    """
    if return_indices:
        raise ValueError("adaptive_max_pool2d does not give indices: return_indices must be False")
    return _adaptive("max", input, output_size)


def _adaptive(kind: str, input: Any, output_size: Any) -> Tensor:
    x, alone = _batch(input)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
    if len(given) != 2:
        raise ValueError(f"output_size must be one or two numbers, got {output_size!r}")
    size = [x.shape[i - 2] if s is None and len(x.shape) > 1 else s for i, s in enumerate(given)]
    return _same(_core.adaptive_pool2d(kind, x, pair(size, "output_size")), alone)


def pad(
    input: ArrayLike, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Put numbers around a tensor.

    Parameters
    ----------
    input : array_like
        Any shape.
    pad : sequence of int
        Two numbers for the last axis, two for the one before it, and so on. Negative ones cut.
    mode : str
        ``"constant"``, or what puts numbers of the tensor itself: ``"reflect"`` (mirrored at the
        edge element), ``"replicate"`` (the edge element again), ``"circular"`` (the other end).
    value : float, optional
        What ``"constant"`` puts there; 0 by default.
    """
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad must be a sequence of integers, not {pad!r}")
    pad = [whole(width, "pad") for width in pad]
    if not isinstance(input, _core.Tensor):
        input = np.asarray(input)
    rank = len(input.shape)
    if len(pad) % 2 or len(pad) > 2 * rank:
        raise ValueError(
            f"pad must be pairs of numbers for at most {rank} axes, got {len(pad)} numbers"
        )
    rest = (0,) * (rank - len(pad) // 2)
    before, after = (rest + tuple(reversed(pad[side::2])) for side in (0, 1))
    if mode == "constant":
        return _core.pad(input, before, after, 0.0 if value is None else real(value, "value"))
    x = as_tensor(input)
    for axis, widths in enumerate(zip(before, after, strict=True)):
        x = _pad_axis(x, axis, *widths, mode) if any(widths) else x
    return x


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Put elements of the tensor itself before and after an axis."""
    limits = {"reflect": x.shape[axis] - 1, "circular": x.shape[axis], "replicate": None}
    if mode not in limits:
        known = ", ".join(map(repr, ("constant", *limits)))
        raise ValueError(f"the mode of pad must be one of {known}, not {mode!r}")
    most = limits[mode]
    if min(before, after) < 0 or (most is not None and max(before, after) > most):
        room = "at least 0" if most is None else f"0 to {most}"
        raise ValueError(
            f"pad: with mode={mode!r} the widths along axis {axis} of shape {x.shape} must be "
            f"{room}, got {before} and {after}"
        )

    def part(*ends: int | None) -> Tensor:
        return x[(slice(None),) * axis + (slice(*ends),)]

    if mode == "reflect":
        head, tail = part(before, 0, -1), part(-2, -2 - after, -1)
    elif mode == "circular":
        head, tail = part(x.shape[axis] - before, None), part(0, after)
    else:
        sizes = list(x.shape)
        sizes[axis] = before
        head = part(0, 1).expand(sizes)
        sizes[axis] = after
        tail = part(-1, None).expand(sizes)
    return _core.cat([each for each in (head, x, tail) if each.shape[axis]], axis)
