"""Layers, with PyTorch's arguments, defaults and names of parameters. What they compute is C."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .functional import check_divisor, pair, pool_sizes, real, whole
from .module import NativeModule

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvBNReLU2d",
    "DropBlock2d",
    "DropPath",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Softmax",
]

Size = int | Sequence[int]


def _check_place(device: Any, dtype: Any) -> None:
    """Refuse what PyTorch's ``device`` and ``dtype`` could ask for and is not there."""
    if device is not None and str(device) != "cpu":
        raise ValueError(f"lucid_c computes on CPUs only, not on {str(device)!r}")
    if dtype is not None and np.dtype(dtype) != np.float32:
        raise ValueError(f"lucid_c computes in float32 only, not in {np.dtype(dtype)}")


def _padding(padding: Any) -> Any:
    if isinstance(padding, str) or np.size(padding) == 4:
        return padding
    return pair(padding, "padding")


class Conv2d(NativeModule):
    """Convolution of images, (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int or (int, int)
        Height and width of the filters.
    stride, dilation : int or (int, int), optional
        Step between outputs, and between the taps of a filter.
    padding : int, (int, int), (int, int, int, int), ``"same"`` or ``"valid"``, optional
        Zeros on each side; four numbers are top, bottom, left, right.
    groups : int, optional
        Parts that the channels are divided into, each convolved on its own.
    bias : bool, optional
        Whether a number per output channel is added.
    padding_mode, device, dtype : optional
        As in PyTorch; only ``"zeros"``, the CPU and float32.
    """

    padding_mode = "zeros"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"Conv2d has padding_mode 'zeros' only, not {padding_mode!r}")
        _check_place(device, dtype)
        _core.init_conv2d(
            self,
            whole(in_channels, "in_channels"),
            whole(out_channels, "out_channels"),
            pair(kernel_size, "kernel_size"),
            pair(stride, "stride"),
            _padding(padding),
            pair(dilation, "dilation"),
            whole(groups, "groups"),
            bias,
        )
        self._made()

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        if self.padding not in ((0, 0), "valid"):
            text += f", padding={self.padding!r}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + (", bias=False" if self.bias is None else "")


class BatchNorm2d(NativeModule):
    """Normalisation of each channel of images (N, C, H, W) by its running statistics.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float, optional
        Added to the variance.
    momentum : float or None, optional
        Share of a new batch in the running statistics; None is the mean of all batches.
    affine : bool, optional
        Whether there are ``weight`` and ``bias``.
    track_running_stats : bool, optional
        Whether there are ``running_mean`` and ``running_var``; else each batch has its own.
    device, dtype : optional
        As in PyTorch; only the CPU and float32.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_place(device, dtype)
        _core.init_batch_norm2d(
            self,
            whole(num_features, "num_features"),
            real(eps, "eps"),
            _momentum(momentum),
            affine,
            track_running_stats,
        )
        self._made()

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


def _momentum(momentum: float | None) -> float:
    if momentum is None:
        return -1.0
    if not 0 <= real(momentum, "momentum") <= 1:
        raise ValueError(f"momentum must be between 0 and 1 or None, got {momentum}")
    return momentum


class Linear(NativeModule):
    """``x @ weight.T + bias`` along the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis before and after.
    bias : bool, optional
        Whether a number per output is added.
    device, dtype : optional
        As in PyTorch; only the CPU and float32.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_place(device, dtype)
        sizes = whole(in_features, "in_features"), whole(out_features, "out_features")
        _core.init_linear(self, *sizes, bias)
        self._made()

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


def _one(value: Any) -> Any:
    """Return a pair of equal numbers as one, for `repr`."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


class _Pool2d(NativeModule):
    def extra_repr(self) -> str:
        names = ["kernel_size", "stride", "padding"]
        if isinstance(self, MaxPool2d):
            names += ["dilation", "ceil_mode"]
        return ", ".join(f"{name}={_one(getattr(self, name))}" for name in names)


class MaxPool2d(_Pool2d):
    """The largest number in each window of images (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or (int, int)
        The window, its step (by default its size), what is added around the image (at most half
        a window, never the largest), the step inside of the window.
    return_indices : bool, optional
        Must be False.
    ceil_mode : bool, optional
        Whether the last window may reach beyond the image.
    """

    return_indices = False

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        if return_indices:
            raise ValueError("MaxPool2d does not give indices: return_indices must be False")
        sizes = pool_sizes(kernel_size, stride, padding, dilation)
        _core.init_pool2d(self, "max", *sizes, ceil_mode, False, 0)
        self._made(False)


class AvgPool2d(_Pool2d):
    """The mean of each window of images (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    kernel_size, stride, padding : int or (int, int)
        The window, its step (by default its size), zeros around the image.
    ceil_mode : bool, optional
        Whether the last window may reach beyond the image.
    count_include_pad : bool, optional
        Whether the zeros of the padding count as elements.
    divisor_override : int, optional
        What to divide by instead of the number of elements.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        sizes = pool_sizes(kernel_size, stride, padding, 1)
        divisor = check_divisor(divisor_override)
        _core.init_pool2d(self, "avg", *sizes, ceil_mode, count_include_pad, divisor)
        self._made(False)


class AdaptiveAvgPool2d(NativeModule):
    """The means over a grid of windows that cover the image, (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    output_size : int, None or pair of these
        Height and width of the result; None keeps the input's.
    """

    def __init__(self, output_size: int | None | Sequence[int | None]) -> None:
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
        if len(sizes) != 2:
            raise ValueError(f"output_size must be one or two numbers, got {output_size!r}")
        _core.init_adaptive_avg_pool2d(self, tuple(sizes))
        self._made(False)

    def extra_repr(self) -> str:
        return f"output_size={_one(self.output_size)}"


class GlobalAvgPool2d(NativeModule):
    """The mean of each plane: (N, C, H, W) becomes (N, C). The models end with it."""

    def __init__(self) -> None:
        _core.restore(self, "GlobalAvgPool2d", b"")
        self._made(False)


class ReLU(NativeModule):
    """Negative numbers become zero.

    Parameters
    ----------
    inplace : bool, optional
        Taken as a hint: the input is never changed.
    """

    def __init__(self, inplace: bool = False) -> None:
        _core.init_relu(self, inplace)
        self._made(False)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Sigmoid(NativeModule):
    """1 / (1 + exp(-x))."""

    def __init__(self) -> None:
        _core.init_sigmoid(self)
        self._made(False)


class Softmax(NativeModule):
    """exp(x) divided by its sum along an axis.

    Parameters
    ----------
    dim : int, optional
        The axis; by default 0 for 0, 1 or 3 dimensions, else 1.
    """

    def __init__(self, dim: int | None = None) -> None:
        _core.init_softmax(self, dim)
        self._made(False)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Dropout(NativeModule):
    """Zeros at random in training; nothing in eval mode.

    Parameters
    ----------
    p : float, optional
        The share of zeros.
    inplace : bool, optional
        Not used.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        _core.init_dropout(self, real(p, "p"), inplace)
        self._made(False)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class DropPath(NativeModule):
    """Whole samples set to zero at random in training (Huang et al. 2016, stochastic depth).

    Parameters
    ----------
    drop_prob : float, optional
        The share of samples.
    scale_by_keep : bool, optional
        Divide the others by ``1 - drop_prob``.
    """

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        _core.init_drop_path(self, real(drop_prob, "drop_prob"), scale_by_keep)
        self._made(False)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}, scale_by_keep={self.scale_by_keep}"


class DropBlock2d(NativeModule):
    """Squares of each channel set to zero at random in training (Ghiasi et al. 2018).

    Parameters
    ----------
    p : float, optional
        The share of zeros.
    block_size : int, optional
        Height and width of the squares; at most that of the input is taken.
    """

    def __init__(self, p: float = 0.1, block_size: int = 7) -> None:
        _core.init_drop_block2d(self, real(p, "p"), whole(block_size, "block_size"))
        self._made(False)

    def extra_repr(self) -> str:
        return f"p={self.p}, block_size={self.block_size}"


class Identity(NativeModule):
    """The input as it is; arguments are taken and not used."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _core.init_identity(self)
        self._made(False)


class Flatten(NativeModule):
    """The axes from ``start_dim`` to ``end_dim`` made one.

    Parameters
    ----------
    start_dim, end_dim : int, optional
        The first and the last axis.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        _core.init_flatten(self, whole(start_dim, "start_dim"), whole(end_dim, "end_dim"))
        self._made(False)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class ConvBNReLU2d(NativeModule):
    """Convolution, batch norm and ReLU: children ``conv``, ``bn`` and ``relu``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        As for `Conv2d`.
    conv_bias : bool, optional
        Whether the convolution has a bias, which the norm makes superfluous.
    eps, momentum
        As for `BatchNorm2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        conv_bias: bool = False,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        _core.init_conv_bn_relu2d(
            self,
            whole(in_channels, "in_channels"),
            whole(out_channels, "out_channels"),
            pair(kernel_size, "kernel_size"),
            pair(stride, "stride"),
            _padding(padding),
            pair(dilation, "dilation"),
            whole(groups, "groups"),
            conv_bias,
            real(eps, "eps"),
            _momentum(momentum),
        )
        self._made()


CLASSES = {name: globals()[name] for name in __all__}
