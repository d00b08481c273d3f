# SPDX-License-Identifier: MIT
"""AutoAugment's ImageNet policy and RandAugment, with the magnitudes of torchvision."""

from typing import Any

import numpy as np

from ..transforms import _pillow
from ._checks import check_count, check_fill, need_image, one_of

__all__ = ["AutoAugment", "RandAugment"]

# Cubuk et al. 2019, "AutoAugment: learning augmentation strategies from data", table 9: each line
# is a sub-policy of two (operation, probability, magnitude of 0 to 9).
IMAGENET_POLICY = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
)

# The largest magnitude of each operation that has a sign; a translation's is a share of the width
# or height.
STRONGEST = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150.0 / 331.0,
    "TranslateY": 150.0 / 331.0,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}
ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")
WARP_FILTERS = ("nearest", "bilinear", "bicubic")

# Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search
# space", section 3.
RAND_AUGMENT_OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


class AutoAugment:
    """One of the 25 sub-policies found for ImageNet, each of two operations with probabilities.

    Cubuk et al. 2019, "AutoAugment: learning augmentation strategies from data", table 9. The
    magnitudes are those of torchvision: `STRONGEST` at 9, 0 at 0, even steps between, and either
    sign with probability 1/2 where there is a sign; Posterize keeps 8 to 4 bits; Solarize inverts
    from a level of 255 down to 0.

    Parameters
    ----------
    interpolation : str, default "nearest"
        Pillow's filter for shears and rotations: "nearest", "bilinear" or "bicubic".
    fill : int or 3 ints, default 0
        Colour of pixels from outside the picture. (The authors' code has 128.)
    """

    def __init__(self, interpolation: str = "nearest", fill: Any = 0) -> None:
        self.interpolation = one_of("interpolation", interpolation, WARP_FILTERS)
        self.fill = check_fill(fill)

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return a Pillow image (RGB) of the same size."""
        need_image("AutoAugment", image)
        policy = IMAGENET_POLICY[rng.integers(len(IMAGENET_POLICY))]
        chances = rng.random(2)
        signs = rng.choice((-1, 1), 2)
        for (name, share, level), chance, sign in zip(policy, chances, signs, strict=True):
            if chance < share:
                image = operate(image, name, level, 10, sign, self.interpolation, self.fill)
        return image

    def __repr__(self) -> str:
        return f"AutoAugment(interpolation={self.interpolation!r}, fill={self.fill!r})"


class RandAugment:
    """A number of operations drawn at random, all with the same magnitude.

    Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search
    space"; operations and magnitudes as in torchvision, see `AutoAugment`.

    Parameters
    ----------
    num_ops : int, default 2
        How many operations, one after the other.
    magnitude : int, default 9
        From 0 to `num_magnitude_bins` - 1.
    num_magnitude_bins : int, default 31
        How many magnitudes there are.
    interpolation : str, default "nearest"
        Pillow's filter for shears and rotations: "nearest", "bilinear" or "bicubic".
    fill : int or 3 ints, default 0
        Colour of pixels from outside the picture.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        *,
        interpolation: str = "nearest",
        fill: Any = 0,
    ) -> None:
        self.num_ops = check_count("num_ops", num_ops, 0)
        self.num_magnitude_bins = check_count("num_magnitude_bins", num_magnitude_bins, 2)
        self.magnitude = check_count("magnitude", magnitude, 0)
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(
                f"magnitude must be less than {num_magnitude_bins}, not {self.magnitude}"
            )
        self.interpolation = one_of("interpolation", interpolation, WARP_FILTERS)
        self.fill = check_fill(fill)

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return a Pillow image (RGB) of the same size."""
        need_image("RandAugment", image)
        chosen = rng.integers(len(RAND_AUGMENT_OPERATIONS), size=self.num_ops)
        signs = rng.choice((-1, 1), self.num_ops)
        for number, sign in zip(chosen, signs, strict=True):
            name, bins = RAND_AUGMENT_OPERATIONS[number], self.num_magnitude_bins
            image = operate(image, name, self.magnitude, bins, sign, self.interpolation, self.fill)
        return image

    def __repr__(self) -> str:
        return (
            f"RandAugment({self.num_ops}, {self.magnitude}, {self.num_magnitude_bins}, "
            f"interpolation={self.interpolation!r}, fill={self.fill!r})"
        )


def operate(image, name, level, bins, sign=1, interpolation="nearest", fill=(0, 0, 0)):
    """Apply one operation with magnitude `level` of 0 to `bins` - 1 to an RGB image."""
    from PIL import ImageEnhance, ImageOps

    if name in STRONGEST:
        strongest = STRONGEST[name]
        if name.startswith("Translate"):
            strongest *= image.size[name == "TranslateY"]
        amount = int(sign) * steps(0.0, strongest, level, bins)
    if name in ENHANCEMENTS:
        return getattr(ImageEnhance, name)(image).enhance(1.0 + amount)
    if name == "Posterize":
        return ImageOps.posterize(image, 8 - round(level / ((bins - 1) / 4)))
    if name == "Solarize":
        return ImageOps.solarize(image, steps(255.0, 0.0, level, bins))
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    if name == "Equalize":
        return ImageOps.equalize(image)
    if name == "Invert":
        return ImageOps.invert(image)
    if name == "Identity":
        return image
    pillow = _pillow()
    resample = getattr(pillow.Resampling, interpolation.upper())
    if name == "Rotate":
        return image.rotate(amount, resample, fillcolor=fill)
    # From a pixel (x, y) of the result to the picture's (a x + b y + c, d x + e y + f).
    matrix = {
        "ShearX": (1, amount, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, amount, 1, 0),
        "TranslateX": (1, 0, -int(amount), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(amount)),
    }[name]
    return image.transform(image.size, pillow.Transform.AFFINE, matrix, resample, fillcolor=fill)


def steps(first: float, last: float, index: int, count: int) -> float:
    """Return one of `count` evenly spaced numbers, computed in float32 as torch.linspace does."""
    first, last = np.float32(first), np.float32(last)
    step = (last - first) / np.float32(count - 1)
    if index < count // 2:
        return float(first + step * np.float32(index))
    return float(last - step * np.float32(count - 1 - index))
