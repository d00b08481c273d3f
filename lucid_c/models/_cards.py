# SPDX-License-Identifier: MIT
"""The model cards of the 24 variants: image sizes, parameter counts, accuracy.  Plain data."""

from typing import NamedTuple

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Card(NamedTuple):
    """What is published about one variant, trained on ImageNet-1k.

    Attributes
    ----------
    name : str
        The variant's own name, ``"resnest_50"``.
    family : str
        ``"resnet"``, ``"resnext"`` or ``"resnest"``.
    parameters : int
        Trainable values with 1000 classes.
    flops : int
        The figure in the model card's own counting, which is not plain multiply-adds: the input
        is ``image_size`` high and ``image_size * 1546 // 1213`` wide; a convolution counts its
        multiply-adds and its biases, batch norm 2 per element, average pools 1 per output, the
        global pool of the head its window and 1 per output; the rest, the linear head too, 0.
        Variants without a printed figure are counted by the same rule.
    image_size : int
        Height and width of the network's input.
    crop : float
        The centre crop's share of the resized image's shorter side.
    interpolation : str
        Pillow's filter for resizing.
    mean, std : tuple of float
        Of the red, green and blue values in [0, 1].
    parameters_lucid2 : int or None
        Trainable values with ``compat="lucid2"``, where that builds another graph: its deep stem
        ends in a bare convolution, without the last batch norm.
    top1, top5 : float or None
        ImageNet validation accuracy in per cent, where the card has it.
    aliases : tuple of str
        Names of the same graph elsewhere: timm's and torchvision's, the ResNeSt authors'.
    """

    name: str
    family: str
    parameters: int
    flops: int
    image_size: int = 224
    crop: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    parameters_lucid2: int | None = None
    top1: float | None = None
    top5: float | None = None
    aliases: tuple[str, ...] = ()


def _resnet(name, parameters, flops, *aliases):
    return Card(name, "resnet", parameters, flops, aliases=aliases)


def _resnext(name, parameters, flops, *aliases):
    return Card(name, "resnext", parameters, flops, aliases=aliases)


def _resnest(name, parameters, lucid2, flops, config, top1, top5, *aliases):
    return Card(
        name,
        "resnest",
        parameters,
        flops,
        *config,
        parameters_lucid2=lucid2,
        top1=top1,
        top5=top5,
        aliases=aliases,
    )


_ROWS = (
    _resnet("resnet_18", 11_689_512, 2_337_073_152, "resnet18"),
    _resnet("resnet_34", 21_797_672, 4_718_469_120, "resnet34"),
    _resnet("resnet_50", 25_557_032, 5_282_531_328, "resnet50"),
    _resnet("resnet_101", 44_549_160, 10_068_547_584, "resnet101"),
    _resnet("resnet_152", 60_192_808, 14_857_660_416, "resnet152"),
    _resnet("resnet_200", 64_669_864, 19_374_790_656),
    _resnet("resnet_269", 102_069_416, 25_852_698_624),
    _resnet("resnet_1001", 149_071_016, 55_464_867_840),
    _resnet("wide_resnet_50", 68_883_240, 14_688_058_368, "wide_resnet50_2"),
    _resnet("wide_resnet_101", 126_886_696, 29_304_929_280, "wide_resnet101_2"),
    _resnext("resnext_50_32x4d", 25_028_904, 5_472_648_192, "resnext50_32x4d"),
    _resnext("resnext_101_32x4d", 44_177_704, 10_298_145_792, "resnext101_32x4d"),
    _resnext("resnext_101_32x8d", 88_791_336, 21_180_417_024, "resnext101_32x8d"),
    _resnext("resnext_101_32x16d", 194_026_792, 46_623_691_776, "resnext101_32x16d"),
    _resnext("resnext_101_32x32d", 468_530_472, 112_225_170_432, "resnext101_32x32d"),
    _resnext("resnext_101_64x4d", 83_455_272, 19_954_172_928, "resnext101_64x4d"),
    _resnest(
        "resnest_14",
        10_611_688,
        10_611_560,
        3_548_594_464,
        (224, 0.875, "bilinear"),
        75.51,
        92.52,
        "resnest14d",
    ),
    _resnest(
        "resnest_26",
        17_069_448,
        17_069_320,
        4_678_918_720,
        (224, 0.875, "bilinear"),
        78.48,
        94.30,
        "resnest26d",
    ),
    _resnest(
        "resnest_50",
        27_483_240,
        27_483_112,
        6_937_106_336,
        (224, 0.875, "bilinear"),
        80.96,
        95.38,
        "resnest50d",
        "resnest50",
    ),
    _resnest(
        "resnest_101",
        48_275_016,
        48_274_760,
        17_423_183_648,
        (256, 0.875, "bilinear"),
        82.88,
        96.31,
        "resnest101e",
        "resnest101",
    ),
    _resnest(
        "resnest_200",
        70_201_544,
        70_201_288,
        45_954_387_872,
        (320, 0.909, "bicubic"),
        83.85,
        96.89,
        "resnest200e",
        "resnest200",
    ),
    _resnest(
        "resnest_269",
        110_929_480,
        110_929_224,
        100_830_307_104,
        (416, 0.928, "bicubic"),
        84.53,
        96.99,
        "resnest269e",
        "resnest269",
    ),
    _resnest(
        "resnest_50_4s2x40d",
        30_417_592,
        30_417_464,
        5_657_064_720,
        (224, 0.875, "bicubic"),
        81.11,
        95.55,
        "resnest50d_4s2x40d",
        "resnest50_fast_4s2x40d",
    ),
    _resnest(
        "resnest_50_1s4x24d",
        25_677_000,
        25_676_872,
        5_686_764_544,
        (224, 0.875, "bicubic"),
        81.00,
        95.33,
        "resnest50d_1s4x24d",
        "resnest50_fast_1s4x24d",
    ),
)

# timm's resnet200 is no alias of resnet_200: post-activation bottlenecks, another graph.
TIMM_RESNET200 = _resnet("resnet200", 64_673_832, 19_374_532_608)

CARDS = {card.name: card for card in _ROWS}
ALIASES = {alias: card.name for card in _ROWS for alias in card.aliases}


def find_card(name):
    """The card of a variant.

    Parameters
    ----------
    name : str
        A name of this package or one of its aliases.

    Returns
    -------
    Card

    Raises
    ------
    ValueError
        If there is no such variant; the message names the nearest.
    """
    if name == TIMM_RESNET200.name:
        return TIMM_RESNET200
    card = CARDS.get(ALIASES.get(name, name))
    if card is None:
        import difflib

        near = difflib.get_close_matches(name, [*CARDS, *ALIASES], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(CARDS)}"
        raise ValueError(f"unknown model {name!r}; {hint}")
    return card
