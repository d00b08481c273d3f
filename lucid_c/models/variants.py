"""The 24 variants as functions, and `create_model` and `list_models`."""

import os
from typing import Any

from .. import _core
from .blocks import BLOCKS
from .resnet import ResNeSt, ResNet, ResNeXt, check_block_args, is_deep

__all__ = [
    "create_model",
    "list_models",
    "resnest_101",
    "resnest_14",
    "resnest_200",
    "resnest_26",
    "resnest_269",
    "resnest_50",
    "resnest_50_1s4x24d",
    "resnest_50_4s2x40d",
    "resnet_1001",
    "resnet_101",
    "resnet_152",
    "resnet_18",
    "resnet_200",
    "resnet_269",
    "resnet_34",
    "resnet_50",
    "resnext_101_32x16d",
    "resnext_101_32x32d",
    "resnext_101_32x4d",
    "resnext_101_32x8d",
    "resnext_101_64x4d",
    "resnext_50_32x4d",
    "wide_resnet_101",
    "wide_resnet_50",
]

_CLASSES = {"ResNet": ResNet, "ResNeXt": ResNeXt, "ResNeSt": ResNeSt}
_RATES = ("drop_rate", "drop_block_rate", "drop_path_rate")
_CONFIG = ("stem_width", "channels", *_RATES, "final_norm", "avg_shortcut", "bare_stem")
_BLOCK = ("cardinality", "base_width", "dilation", "zero_last_gamma")
_RESNEST = ("radix", "avd", "avd_first")
_KNOWN = ("stem_type", "zero_padded_pool", "block_args", "init", *_CONFIG, *_BLOCK, *_RESNEST)


def create_model(
    name: str,
    num_classes: int = 1000,
    in_channels: int = 3,
    checkpoint_path: "str | os.PathLike[str] | None" = None,
    compat: str | None = None,
    **kwargs: Any,
) -> ResNet:
    """Build one of the variants.

    Parameters
    ----------
    name : str
        A name of `list_models`, or the same model's name in timm, such as ``"resnest50d"``.
    num_classes : int, optional
        Outputs of the classifier; 0 for none.
    in_channels : int, optional
        Channels of the images.
    checkpoint_path : str or os.PathLike, optional
        A file to load the weights from; they are not drawn first.
    compat : None or "lucid2", optional
        Build the exact graph of lucid 2.x, which differs for ResNeSt.
    **kwargs
        ``stem_width``, ``stem_type``, ``channels``, ``drop_rate``, ``drop_block_rate``,
        ``drop_path_rate``, ``final_norm``, ``avg_shortcut``, ``bare_stem``,
        ``zero_padded_pool``, ``block_args`` and ``init`` as for `ResNet`; ``cardinality``,
        ``base_width``, ``dilation``, ``zero_last_gamma``, and for ResNeSt ``radix``, ``avd``,
        ``avd_first``, as for the blocks.

    Returns
    -------
    ResNet
        In eval mode. Its ``config`` holds what the model card says about the input.

    Raises
    ------
    ValueError
        If there is no such variant (the message names the nearest), or the checkpoint does not
        fit.
    """
    from ._cards import TIMM_RESNET200, find_card

    if not isinstance(name, str):
        raise TypeError(f"the name of a model is a str, not {type(name).__name__}")
    card = find_card(name)
    if card is TIMM_RESNET200:
        config = _core.variant("resnet_50") | {"layers": (3, 24, 36, 3)}
    else:
        config = _core.variant(card.name)
    if compat == "lucid2":
        config = _core.lucid2(config)
    elif compat is not None:
        raise ValueError(f"compat must be None or 'lucid2', not {compat!r}")
    init = kwargs.pop("init", True) and checkpoint_path is None
    config |= {"num_classes": num_classes, "in_channels": in_channels}
    model = _build(card.name, config, kwargs, init)
    model.config = {
        "name": card.name,
        "image_size": card.image_size,
        "crop": card.crop,
        "interpolation": card.interpolation,
        "mean": card.mean,
        "std": card.std,
    }
    if checkpoint_path is not None:
        model.load(checkpoint_path)
    return model


def _build(name: str, config: dict[str, Any], options: dict[str, Any], init: bool) -> ResNet:
    wrong = [option for option in options if option not in _KNOWN]
    if wrong:
        raise TypeError(f"{name} has no argument {wrong[0]!r}; known: {', '.join(sorted(_KNOWN))}")
    block, cls = BLOCKS[config["block"]], _CLASSES[config["class_name"]]
    block_args = dict(options.pop("block_args", {}))
    block_args |= {key: options.pop(key) for key in (*_BLOCK, *_RESNEST) if key in options}
    check_block_args(block, block_args)
    if "stem_type" in options:
        options["deep_stem"] = is_deep(options.pop("stem_type"))
    config = config | options
    block_args = {key: config[key] for key in ("cardinality", "base_width")} | block_args
    model = cls.__new__(cls)
    model._set_up(config, block, config["layers"], config["channels"], block_args, init)
    return model


def list_models(pattern: str | None = None) -> list[str]:
    """Return the names of the variants.

    Parameters
    ----------
    pattern : str, optional
        Names to match, with ``*`` and ``?``: ``"resnext*"``.
    """
    names = _core.variants()
    if pattern is None:
        return names
    from fnmatch import fnmatchcase

    return [name for name in names if fnmatchcase(name, pattern)]


def resnet_18(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-18: `BasicBlock`, layers [2, 2, 2, 2]; see `create_model`."""
    return create_model("resnet_18", num_classes, **kwargs)


def resnet_34(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-34: `BasicBlock`, layers [3, 4, 6, 3]; see `create_model`."""
    return create_model("resnet_34", num_classes, **kwargs)


def resnet_50(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-50: `Bottleneck`, layers [3, 4, 6, 3]; see `create_model`."""
    return create_model("resnet_50", num_classes, **kwargs)


def resnet_101(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-101: `Bottleneck`, layers [3, 4, 23, 3]; see `create_model`."""
    return create_model("resnet_101", num_classes, **kwargs)


def resnet_152(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-152: `Bottleneck`, layers [3, 8, 36, 3]; see `create_model`."""
    return create_model("resnet_152", num_classes, **kwargs)


def resnet_200(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-200: `PreActBottleneck`, layers [3, 24, 36, 3]; see `create_model`."""
    return create_model("resnet_200", num_classes, **kwargs)


def resnet_269(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-269: `PreActBottleneck`, layers [3, 30, 48, 8]; see `create_model`."""
    return create_model("resnet_269", num_classes, **kwargs)


def resnet_1001(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """ResNet-1001: `PreActBottleneck`, layers [3, 94, 94, 3]; see `create_model`."""
    return create_model("resnet_1001", num_classes, **kwargs)


def wide_resnet_50(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """Wide ResNet-50: `resnet_50` with twice the inner width; see `create_model`."""
    return create_model("wide_resnet_50", num_classes, **kwargs)


def wide_resnet_101(num_classes: int = 1000, **kwargs: Any) -> ResNet:
    """Wide ResNet-101: `resnet_101` with twice the inner width; see `create_model`."""
    return create_model("wide_resnet_101", num_classes, **kwargs)


def resnext_50_32x4d(num_classes: int = 1000, **kwargs: Any) -> ResNeXt:
    """ResNeXt-50: layers [3, 4, 6, 3], 32 groups of base width 4; see `create_model`."""
    return create_model("resnext_50_32x4d", num_classes, **kwargs)


def resnext_101_32x4d(num_classes: int = 1000, **kwargs: Any) -> ResNeXt:
    """ResNeXt-101: layers [3, 4, 23, 3], 32 groups of base width 4; see `create_model`."""
    return create_model("resnext_101_32x4d", num_classes, **kwargs)


def resnext_101_32x8d(num_classes: int = 1000, **kwargs: Any) -> ResNeXt:
    """ResNeXt-101: layers [3, 4, 23, 3], 32 groups of base width 8; see `create_model`."""
    return create_model("resnext_101_32x8d", num_classes, **kwargs)


def resnext_101_32x16d(num_classes: int = 1000, **kwargs: Any) -> ResNeXt:
    """ResNeXt-101: layers [3, 4, 23, 3], 32 groups of base width 16; see `create_model`."""
    return create_model("resnext_101_32x16d", num_classes, **kwargs)


def resnext_101_32x32d(num_classes: int = 1000, **kwargs: Any) -> ResNeXt:
    """ResNeXt-101: layers [3, 4, 23, 3], 32 groups of base width 32; see `create_model`."""
    return create_model("resnext_101_32x32d", num_classes, **kwargs)


def resnext_101_64x4d(num_classes: int = 1000, **kwargs: Any) -> ResNeXt:
    """ResNeXt-101: layers [3, 4, 23, 3], 64 groups of base width 4; see `create_model`."""
    return create_model("resnext_101_64x4d", num_classes, **kwargs)


def resnest_14(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-14: layers [1, 1, 1, 1]; see `create_model`."""
    return create_model("resnest_14", num_classes, **kwargs)


def resnest_26(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-26: layers [2, 2, 2, 2]; see `create_model`."""
    return create_model("resnest_26", num_classes, **kwargs)


def resnest_50(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-50: layers [3, 4, 6, 3]; see `create_model`."""
    return create_model("resnest_50", num_classes, **kwargs)


def resnest_101(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-101: layers [3, 4, 23, 3], for images of 256 pixels; see `create_model`."""
    return create_model("resnest_101", num_classes, **kwargs)


def resnest_200(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-200: layers [3, 24, 36, 3], for images of 320 pixels; see `create_model`."""
    return create_model("resnest_200", num_classes, **kwargs)


def resnest_269(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-269: layers [3, 30, 48, 8], for images of 416 pixels; see `create_model`."""
    return create_model("resnest_269", num_classes, **kwargs)


def resnest_50_4s2x40d(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-50 with radix 4, 2 groups of base width 40, the pool first; see `create_model`."""
    return create_model("resnest_50_4s2x40d", num_classes, **kwargs)


def resnest_50_1s4x24d(num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """ResNeSt-50 with radix 1, 4 groups of base width 24, the pool first; see `create_model`."""
    return create_model("resnest_50_1s4x24d", num_classes, **kwargs)
