"""The residual blocks. They are C; their children can be replaced like any others.

He et al. 2015 (basic, bottleneck), He et al. 2016 (pre-activation), Xie et al. 2016 (cardinality),
Zhang et al. 2020 (split attention).

A block class of your own needs an attribute ``expansion`` and the arguments ``(in_channels,
out_channels, stride, downsample, **block_args)``; ``downsample`` is a module for the shortcut or
None.
"""

from typing import Any

from .. import _core
from ..nn.functional import whole
from ..nn.module import Module, NativeModule

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "PreActBottleneck",
    "ResNeStBottleneck",
    "SplitAttention",
    "_ResNeStBottleneck",
]

COMMON_ARGS = ("cardinality", "base_width", "dilation", "zero_last_gamma")
RESNEST_ARGS = (*COMMON_ARGS, "radix", "avd", "avd_first", "lucid2")


class _Block(NativeModule):
    """What the blocks share."""

    expansion = 1

    def _set_up(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        downsample: Module | None,
        *,
        cardinality: int,
        base_width: int,
        dilation: int,
        zero_last_gamma: bool,
        radix: int = 0,
        avd: bool = False,
        avd_first: bool = False,
        is_first: bool = False,
        lucid2: bool = False,
    ) -> None:
        kind = next(cls.__name__ for cls in type(self).__mro__ if cls in _OWN)
        _core.init_block(
            self,
            kind,
            whole(in_channels, "in_channels"),
            whole(out_channels, "out_channels"),
            whole(stride, "stride"),
            downsample,
            whole(cardinality, "cardinality"),
            whole(base_width, "base_width"),
            whole(dilation, "dilation"),
            radix,
            avd,
            avd_first,
            is_first,
            lucid2,
            zero_last_gamma,
        )
        self._made()


class BasicBlock(_Block):
    """Two 3x3 convolutions and a shortcut.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output.
    stride : int, optional
        Step of the first convolution.
    downsample : Module, optional
        The shortcut; None is the input itself.
    cardinality, base_width : int, optional
        1 and 64; this block has no others.
    dilation : int, optional
        Step between the taps of the 3x3 convolutions.
    zero_last_gamma : bool, optional
        Whether the last norm starts at zero, so that the block starts as its shortcut.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        downsample: Module | None = None,
        *,
        cardinality: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        zero_last_gamma: bool = False,
    ) -> None:
        self._set_up(
            in_channels,
            out_channels,
            stride,
            downsample,
            cardinality=cardinality,
            base_width=base_width,
            dilation=dilation,
            zero_last_gamma=zero_last_gamma,
        )


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is in the 3x3 one.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    out_channels : int
        A quarter of the channels of the output.
    stride : int, optional
        Step of the 3x3 convolution.
    downsample : Module, optional
        The shortcut; None is the input itself.
    cardinality : int, optional
        Groups of the 3x3 convolution.
    base_width : int, optional
        Channels of each group per 64 of ``out_channels``.
    dilation : int, optional
        Step between the taps of the 3x3 convolution.
    zero_last_gamma : bool, optional
        Whether the last norm starts at zero, so that the block starts as its shortcut.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        downsample: Module | None = None,
        *,
        cardinality: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        zero_last_gamma: bool = False,
    ) -> None:
        self._set_up(
            in_channels,
            out_channels,
            stride,
            downsample,
            cardinality=cardinality,
            base_width=base_width,
            dilation=dilation,
            zero_last_gamma=zero_last_gamma,
        )


class PreActBottleneck(Bottleneck):
    """`Bottleneck` with norm and ReLU before each convolution instead of after it.

    The shortcut, if there is one, reads the input after its norm and ReLU. Parameters are those of
    `Bottleneck`.
    """


class ResNeStBottleneck(_Block):
    """`Bottleneck` with split attention in place of the 3x3 convolution.

    Parameters
    ----------
    in_channels, out_channels, stride, downsample, cardinality, base_width, dilation
        As for `Bottleneck`.
    zero_last_gamma : bool, optional
        As for `Bottleneck`.
    radix : int, optional
        Parts that attention chooses between; 0 is a plain convolution.
    avd : bool, optional
        Whether an average pool carries the stride.
    avd_first : bool, optional
        Whether that pool comes before the split attention instead of after it.
    is_first : bool, optional
        Whether this is the first block of its stage.
    lucid2 : bool, optional
        The form of lucid 2.x: its order of attention weights and its width of attention.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        downsample: Module | None = None,
        *,
        cardinality: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        radix: int = 2,
        avd: bool = True,
        avd_first: bool = False,
        is_first: bool = False,
        lucid2: bool = False,
        zero_last_gamma: bool = False,
    ) -> None:
        self._set_up(
            in_channels,
            out_channels,
            stride,
            downsample,
            cardinality=cardinality,
            base_width=base_width,
            dilation=dilation,
            radix=radix,
            avd=avd,
            avd_first=avd_first,
            is_first=is_first,
            lucid2=lucid2,
            zero_last_gamma=zero_last_gamma,
        )


_ResNeStBottleneck = ResNeStBottleneck


class SplitAttention(NativeModule):
    """A 3x3 convolution into ``radix`` parts, which are weighted by attention and added.

    Children: ``conv``, ``bn0``, ``act0``, ``fc1``, ``bn1``, ``act1``, ``fc2``.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    stride, padding, dilation : int, optional
        Of the convolution.
    cardinality : int, optional
        Groups of channels, each with attention of its own.
    radix : int, optional
        Parts that attention chooses between; 1 is a sigmoid gate.
    lucid2 : bool, optional
        The form of lucid 2.x: its order of attention weights and its width of attention.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        cardinality: int = 1,
        radix: int = 2,
        lucid2: bool = False,
    ) -> None:
        _core.init_split_attention(
            self, in_channels, out_channels, stride, padding, dilation, cardinality, radix, lucid2
        )
        self._made()


_OWN = (BasicBlock, Bottleneck, PreActBottleneck, ResNeStBottleneck)
BLOCKS = {cls.__name__: cls for cls in _OWN}
CLASSES: dict[str, Any] = {**BLOCKS, "SplitAttention": SplitAttention}
