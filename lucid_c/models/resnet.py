"""ResNet, ResNeXt and ResNeSt."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import _core
from ..nn.containers import Sequential
from ..nn.module import Module, NativeModule
from .blocks import BLOCKS, COMMON_ARGS, RESNEST_ARGS, ResNeStBottleneck

__all__ = ["ResNeSt", "ResNeXt", "ResNet"]


def check_block_args(block: type[Module], block_args: Mapping[str, Any]) -> None:
    """Refuse arguments that one of our own blocks does not have."""
    if not isinstance(block_args, Mapping):
        raise TypeError(f"block_args must be a mapping of names to values, not {block_args!r}")
    names = RESNEST_ARGS if block is ResNeStBottleneck else COMMON_ARGS
    wrong = [name for name in block_args if name not in names]
    if block in BLOCKS.values() and wrong:
        raise TypeError(
            f"{block.__name__} has no argument {wrong[0]!r}; block_args may have {', '.join(names)}"
        )


def is_deep(stem_type: str | None) -> bool:
    """Return whether a ``stem_type`` is the deep one."""
    if stem_type not in (None, "deep"):
        raise ValueError(f"stem_type must be None or 'deep', not {stem_type!r}")
    return stem_type == "deep"


def _four(values: Sequence[int], name: str) -> tuple[int, ...]:
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 4:
        count = f" ({len(values)})" if isinstance(values, Sequence) else ""
        raise ValueError(f"{name} must be 4 numbers, one for each stage, got {values!r}{count}")
    return tuple(values)


class ResNet(NativeModule):
    """A residual network: stem, four stages of blocks, global pooling, classifier.

    Children: ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``layer1`` to ``layer4``, ``norm`` (with
    ``final_norm``), ``global_pool``, ``drop`` (with ``drop_rate``), ``fc``. Any can be replaced by
    assignment. Without classes ``fc`` is the identity, and the pooled features are returned.

    Parameters
    ----------
    block : type
        A class of `lucid_c.models.blocks`, or a module class with ``expansion`` that takes
        ``(in_channels, out_channels, stride, downsample, **block_args)``.
    layers : sequence of 4 int
        Blocks of each stage.
    num_classes : int, optional
        Outputs of the classifier; 0 for none.
    in_channels : int, optional
        Channels of the images.
    stem_width : int, optional
        Channels of the first convolution, or of the first two with a deep stem.
    stem_type : None or "deep", optional
        One 7x7 convolution or three 3x3 ones.
    channels : sequence of 4 int, optional
        ``out_channels`` of the blocks of each stage.
    block_args : dict, optional
        More arguments for the blocks: ``cardinality``, ``base_width``, ``dilation``,
        ``zero_last_gamma``; for `ResNeStBottleneck` also ``radix``, ``avd``, ``avd_first``,
        ``lucid2``.
    final_norm : bool, optional
        Norm and ReLU before the global pool, for pre-activation blocks (He et al. 2016).
    drop_rate : float, optional
        Dropout before the classifier.
    drop_block_rate : float, optional
        `nn.DropBlock2d` of 3x3 after every norm in the branches of the last two stages (Ghiasi et
        al. 2018; the blocks of `lucid_c.models.blocks` only), children ``drop_block``.
    drop_path_rate : float, optional
        `nn.DropPath` at the end of the branches (Huang et al. 2016; the blocks of
        `lucid_c.models.blocks` only), from 0 in the first block to this rate in the last one,
        children ``drop_path``.
    avg_shortcut : bool, optional
        Average pool and 1x1 convolution in the shortcuts instead of a convolution with stride.
    bare_stem : bool, optional
        Leave out norm and ReLU after the last convolution of the stem (lucid 2.x).
    zero_padded_pool : bool, optional
        Pad the max pool of the stem with zeros (lucid 2.x).
    init : bool, optional
        Whether the weights are drawn; without it they are zeros until some are loaded.
    """

    def __init__(
        self,
        block: type[Module],
        layers: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_width: int = 64,
        stem_type: str | None = None,
        channels: Sequence[int] = (64, 128, 256, 512),
        block_args: Mapping[str, Any] = {},  # noqa: B006 - the documented default; not changed
        *,
        final_norm: bool = False,
        drop_rate: float = 0.0,
        drop_block_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        avg_shortcut: bool = False,
        bare_stem: bool = False,
        zero_padded_pool: bool = False,
        init: bool = True,
    ) -> None:
        config = {
            "class_name": "ResNet",
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_width": stem_width,
            "deep_stem": is_deep(stem_type),
            "final_norm": final_norm,
            "drop_rate": drop_rate,
            "drop_block_rate": drop_block_rate,
            "drop_path_rate": drop_path_rate,
            "avg_shortcut": avg_shortcut,
            "bare_stem": bare_stem,
            "zero_padded_pool": zero_padded_pool,
        }
        check_block_args(block, block_args)
        self._set_up(config, block, layers, channels, block_args, init)

    def _set_up(
        self,
        config: dict[str, Any],
        block: type[Module],
        layers: Sequence[int],
        channels: Sequence[int],
        block_args: Mapping[str, Any],
        init: bool,
    ) -> None:
        """Build the tree; ``config`` has what `lucid_c._core.init_resnet` takes beside the rest."""
        made = dict(block_args) if block in BLOCKS.values() else {}
        config = (
            config
            | made
            | {
                "block": _block_type(block, block_args),
                "layers": _four(layers, "layers"),
                "channels": _four(channels, "channels"),
            }
        )
        for rate in ("drop_block_rate", "drop_path_rate"):
            if config.get(rate) and block not in BLOCKS.values():
                raise ValueError(f"{rate} is for the blocks of lucid_c.models.blocks only")
        _core.init_resnet(self, config)
        self.num_classes = config["num_classes"]
        self.block = block
        self.cardinality = block_args.get("cardinality", 1)
        self.base_width = block_args.get("base_width", 64)
        self._made(init)

    @property
    def stem(self) -> Sequential:
        """The children before the stages, as a new `Sequential` of the same modules."""
        names = [name for name, _ in self.named_children()]
        return Sequential({name: getattr(self, name) for name in names[: names.index("layer1")]})

    @property
    def layers(self) -> tuple[Module, ...]:
        """The four stages."""
        return tuple(getattr(self, f"layer{stage}") for stage in range(1, 5))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set `recompute` of all blocks: training keeps what enters and leaves them."""
        for stage in self.layers:
            for block in stage.children():
                block.recompute = enable


def _block_type(block: type[Module], block_args: Mapping[str, Any]) -> Any:
    """Return what the core takes for a block class: a name, or a way to make one."""
    if block in BLOCKS.values():
        return block.__name__
    if not (isinstance(block, type) and issubclass(block, Module) and hasattr(block, "expansion")):
        raise TypeError(f"block must be a Module class with an attribute expansion, not {block!r}")
    make: Callable[..., Module] = block

    def build(in_channels: int, out_channels: int, stride: int, downsample: Any) -> Module:
        return make(in_channels, out_channels, stride, downsample, **block_args)

    return block.__name__, block.expansion, build


class ResNeXt(ResNet):
    """A `ResNet` whose 3x3 convolutions are grouped (Xie et al. 2016).

    Parameters
    ----------
    block, layers, num_classes
        As for `ResNet`.
    cardinality : int
        Groups of the 3x3 convolutions.
    base_width : int
        Channels of each group in the first stage.
    in_channels, stem_width, stem_type, channels, block_args, final_norm
        As for `ResNet`, by keyword only.
    drop_rate, drop_block_rate, drop_path_rate, avg_shortcut, init
        As for `ResNet`, by keyword only.
    """

    def __init__(
        self,
        block: type[Module],
        layers: Sequence[int],
        cardinality: int,
        base_width: int,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        stem_width: int = 64,
        stem_type: str | None = None,
        channels: Sequence[int] = (64, 128, 256, 512),
        block_args: Mapping[str, Any] = {},  # noqa: B006 - as for ResNet
        final_norm: bool = False,
        drop_rate: float = 0.0,
        drop_block_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        avg_shortcut: bool = False,
        init: bool = True,
    ) -> None:
        config = {
            "class_name": "ResNeXt",
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_width": stem_width,
            "deep_stem": is_deep(stem_type),
            "final_norm": final_norm,
            "drop_rate": drop_rate,
            "drop_block_rate": drop_block_rate,
            "drop_path_rate": drop_path_rate,
            "avg_shortcut": avg_shortcut,
        }
        args = {**block_args, "cardinality": cardinality, "base_width": base_width}
        check_block_args(block, args)
        self._set_up(config, block, layers, channels, args, init)


class ResNeSt(ResNet):
    """A `ResNet` with split attention and a deep stem (Zhang et al. 2020).

    Parameters
    ----------
    block, layers, num_classes
        As for `ResNet`; the block is `ResNeStBottleneck`.
    base_width : int, optional
        Channels of each group in the first stage.
    stem_width : int, optional
        Channels of the first two convolutions of the stem; the third has twice as many.
    cardinality : int, optional
        Groups of channels, each with attention of its own.
    radix : int, optional
        Parts that attention chooses between; 0 is a plain convolution.
    avd : bool, optional
        Whether average pools carry the strides.
    avd_first : bool, optional
        Whether those pools come before the split attention instead of after it.
    stem_type : None or "deep", optional
        One 7x7 convolution or three 3x3 ones.
    avg_shortcut : bool, optional
        Average pool and 1x1 convolution in the shortcuts instead of a convolution with stride.
    bare_stem, zero_padded_pool, lucid2 : bool, optional
        What lucid 2.x does differently: no norm and ReLU at the end of the stem, a max pool
        padded with zeros, another order and width of attention and no pools in the shortcuts.
        ``create_model(name, compat="lucid2")`` sets all three.
    in_channels, channels, block_args, drop_rate, drop_block_rate, drop_path_rate, init
        As for `ResNet`, by keyword only.
    """

    def __init__(
        self,
        block: type[Module],
        layers: Sequence[int],
        num_classes: int = 1000,
        base_width: int = 64,
        stem_width: int = 32,
        cardinality: int = 1,
        radix: int = 2,
        avd: bool = True,
        *,
        avd_first: bool = False,
        in_channels: int = 3,
        stem_type: str | None = "deep",
        channels: Sequence[int] = (64, 128, 256, 512),
        block_args: Mapping[str, Any] = {},  # noqa: B006 - as for ResNet
        drop_rate: float = 0.0,
        drop_block_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        avg_shortcut: bool = True,
        bare_stem: bool = False,
        zero_padded_pool: bool = False,
        lucid2: bool = False,
        init: bool = True,
    ) -> None:
        config = {
            "class_name": "ResNeSt",
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_width": stem_width,
            "deep_stem": is_deep(stem_type),
            "drop_rate": drop_rate,
            "drop_block_rate": drop_block_rate,
            "drop_path_rate": drop_path_rate,
            "avg_shortcut": avg_shortcut,
            "bare_stem": bare_stem,
            "zero_padded_pool": zero_padded_pool,
        }
        args = dict(block_args, base_width=base_width, cardinality=cardinality)
        if block is ResNeStBottleneck or block not in BLOCKS.values():
            args.update(radix=radix, avd=avd)
            args.update({"avd_first": True} if avd_first else {})
            args.update({"lucid2": True} if lucid2 else {})
        check_block_args(block, args)
        self._set_up(config, block, layers, channels, args, init)
