# SPDX-License-Identifier: MIT
"""Training transforms: random crops, flips and colours, and the published recipe of a model.

A transform is called as ``transform(image, rng)`` and draws all its random numbers from the
`numpy.random.Generator` given, so that equal generators give equal results. Those on pictures
take and return Pillow images of mode RGB; `ToArray` makes a float32 array (C, H, W) of one, which
the rest take. All can be pickled. They need Pillow (``pip install lucid_c[images]``).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models._cards import IMAGENET_MEAN, IMAGENET_STD
from ..transforms import INTERPOLATIONS, EvalTransform, _fields, _open_rgb, _pillow
from ._checks import check_count, check_number, check_range, need_array, need_image, one_of
from .autoaugment import AutoAugment, RandAugment
from .mixing import cutmix, mixup

__all__ = [
    "AutoAugment",
    "ColorJitter",
    "Compose",
    "Lighting",
    "Normalize",
    "RandAugment",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "ToArray",
    "ToImage",
    "cutmix",
    "mixup",
    "train_transform",
]

TRIES = 10  # of a random box, before the fallback; torchvision's

# Principal components of the RGB values (0 to 1) of ImageNet's training images, one per column,
# and the square roots of their variances. The method is that of Krizhevsky et al. 2012, "ImageNet
# classification with deep convolutional neural networks", section 4.1; the numbers are those of
# Facebook's fb.resnet.torch (2016), which the ResNeSt authors' code has, too.
PCA_VECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
PCA_DEVIATIONS = (0.2175, 0.0188, 0.0045)


class Compose:
    """Transforms one after the other, all with the same generator.

    Parameters
    ----------
    transforms : sequence of callables
        Each called as ``transform(image, rng)``.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = list(transforms)
        for transform in self.transforms:
            if not callable(transform):
                raise TypeError(f"transforms must be callable, not {transform!r}")

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return what the last transform returns."""
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def __repr__(self) -> str:
        lines = "".join(f"    {transform!r},\n" for transform in self.transforms)
        return f"Compose([\n{lines}])" if lines else "Compose([])"


class _Transform:
    """A repr made of the attributes, which are the arguments."""

    def __repr__(self):
        text = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({text})"


class ToImage(_Transform):
    """From a file, an array or a Pillow image of any mode to a Pillow image of mode RGB."""

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the picture.

        Parameters
        ----------
        image : str, path, file object, PIL.Image.Image or uint8 array
            As for a call of `lucid_c.transforms.EvalTransform`.
        rng : optional
            Not used.
        """
        if isinstance(image, _pillow().Image) and image.mode == "RGB" and 0 not in image.size:
            return image
        return _open_rgb(image)


class RandomResizedCrop(_Transform):
    """A random part of the picture, of random area and shape, resized to a square.

    Szegedy et al. 2015, "Going deeper with convolutions", section 6; torchvision's algorithm: ten
    times a share of the area from `scale` and a logarithm of width / height from `ratio` are
    drawn; the first box that fits is placed at random. Otherwise it is the largest box in the
    centre whose shape is within `ratio`.

    Parameters
    ----------
    size : int
        Height and width of the result.
    scale : (float, float), default (0.08, 1)
        Bounds of the share of the area.
    ratio : (float, float), default (3/4, 4/3)
        Bounds of width / height.
    interpolation : str, default "bilinear"
        Pillow's filter: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos".
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ) -> None:
        self.size = check_count("size", size, 1)
        self.scale = check_range("scale", scale, 0.0, 1.0)
        self.ratio = check_range("ratio", ratio, 1e-3, 1e3)
        self.interpolation = one_of("interpolation", interpolation, INTERPOLATIONS)

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return a Pillow image of width and height `size`."""
        need_image("RandomResizedCrop", image)
        left, top, width, height = self.box(image.width, image.height, rng)
        resample = getattr(_pillow().Resampling, self.interpolation.upper())
        image = image.crop((left, top, left + width, top + height))
        return image.resize((self.size, self.size), resample)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw the part for a picture of this size: left, top, width, height."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(TRIES):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(rng.integers(height - h + 1))
                left = int(rng.integers(width - w + 1))
                return left, top, w, h
        w, h = width, height
        if width / height < self.ratio[0]:
            h = max(1, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = max(1, round(height * self.ratio[1]))
        return (width - w) // 2, (height - h) // 2, w, h


class RandomHorizontalFlip(_Transform):
    """The mirror image, with a probability.

    Parameters
    ----------
    p : float, default 0.5
        The probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_number("p", p, 0.0, 1.0)

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return a Pillow image of the same size."""
        need_image("RandomHorizontalFlip", image)
        if rng.random() < self.p:
            return image.transpose(_pillow().Transpose.FLIP_LEFT_RIGHT)
        return image


class ColorJitter(_Transform):
    """Brightness, contrast, saturation and hue changed by random factors, in random order.

    torchvision's definition: a factor f blends the picture with black (brightness), with its mean
    grey level (contrast) or with its grey version (saturation), so that f = 1 changes nothing and
    f = 0 gives those; a hue of h turns the hue circle by the share h of a full turn.

    Parameters
    ----------
    brightness, contrast, saturation : float or (float, float), default 0
        v stands for factors from max(0, 1 - v) to 1 + v; 0 leaves the operation out.
    hue : float or (float, float), default 0
        v, at most 0.5, stands for turns from -v to v; 0 leaves the operation out.
    """

    def __init__(
        self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0
    ) -> None:
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)
        self.hue = _factors("hue", hue, 0.0, -0.5, 0.5)

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return a Pillow image of the same size."""
        need_image("ColorJitter", image)
        chosen = [
            (change, rng.uniform(*bounds))
            for change, bounds in (
                ("Brightness", self.brightness),
                ("Contrast", self.contrast),
                ("Color", self.saturation),
                ("Hue", self.hue),
            )
            if bounds is not None
        ]
        for i in rng.permutation(len(chosen)):
            image = _change(image, *chosen[i])
        return image


def _factors(name, value, neutral=1.0, least=0.0, most=math.inf):
    """Bounds of a factor; None where nothing would change."""
    if value is None:
        return None
    if isinstance(value, (tuple, list)):
        bounds = check_range(name, value, least, most)
    else:
        value = check_number(name, value, 0.0, most)
        bounds = (max(least, neutral - value), neutral + value)
    return None if bounds == (neutral, neutral) else bounds


def _change(image, name, amount):
    from PIL import ImageEnhance

    if name != "Hue":
        return getattr(ImageEnhance, name)(image).enhance(amount)
    hue, saturation, value = image.convert("HSV").split()
    turn = int(amount * 255)
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return _pillow().merge("HSV", (hue, saturation, value)).convert("RGB")


class ToArray(_Transform):
    """From a Pillow image to an array of values from 0 to 1."""

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return float32 (3, H, W); `rng` is not used."""
        need_image("ToArray", image)
        pixels = np.asarray(image)
        x = np.empty((3, *pixels.shape[:2]), np.float32)
        return np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=x)


class Lighting(_Transform):
    """Noise along the principal components of ImageNet's colours, the same for all pixels.

    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks",
    section 4.1: to the RGB values from 0 to 1 is added the sum of the components, each times its
    standard deviation and a number from N(0, alpha).

    Parameters
    ----------
    alpha : float, default 0.1
        Standard deviation of these numbers.
    """

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = check_number("alpha", alpha)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return float32 (3, H, W); values may leave [0, 1]."""
        need_array("Lighting", x)
        shift = np.array(PCA_VECTORS) @ (rng.normal(0.0, self.alpha, 3) * PCA_DEVIATIONS)
        return x + shift.astype(np.float32)[:, None, None]


class Normalize(_Transform):
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Parameters
    ----------
    mean, std : sequence of floats
        One number per channel; default: ImageNet's.
    """

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        self.mean = tuple(check_number("mean", value, -math.inf) for value in mean)
        self.std = tuple(check_number("std", value) for value in std)
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"mean and std differ in length: {len(self.mean)}, {len(self.std)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")

    def __call__(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return float32 (C, H, W); `rng` is not used."""
        need_array("Normalize", x)
        if len(x) != len(self.mean):
            raise ValueError(f"{len(x)} channels, but mean and std for {len(self.mean)}")
        y = x - np.array(self.mean, np.float32)[:, None, None]
        y /= np.array(self.std, np.float32)[:, None, None]
        return y


class RandomErasing(_Transform):
    """Overwrite a random rectangle, with a probability.

    Zhong et al. 2020, "Random erasing data augmentation", algorithm 1; torchvision's numbers: ten
    times a share of the area from `scale` and a logarithm of height / width from `ratio` are
    drawn; the first box smaller than the image is placed at random. Otherwise nothing changes.

    Parameters
    ----------
    p : float, default 0.5
        The probability.
    scale : (float, float), default (0.02, 0.33)
        Bounds of the share of the area.
    ratio : (float, float), default (0.3, 3.3)
        Bounds of height / width.
    value : float or "random", default 0
        What is written; "random": numbers from N(0, 1), for an image that is normalised.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | str = 0.0,
    ) -> None:
        self.p = check_number("p", p, 0.0, 1.0)
        self.scale = check_range("scale", scale, 0.0, 1.0)
        self.ratio = check_range("ratio", ratio, 1e-3, 1e3)
        self.value = value if value == "random" else check_number("value", value, -math.inf)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return float32 (C, H, W): a copy, or the same array if nothing is drawn."""
        need_array("RandomErasing", x)
        if rng.random() >= self.p:
            return x
        channels, height, width = x.shape
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(TRIES):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                top = int(rng.integers(height - h + 1))
                left = int(rng.integers(width - w + 1))
                y = x.copy()
                random = self.value == "random"
                y[:, top : top + h, left : left + w] = (
                    rng.standard_normal((channels, h, w)) if random else self.value
                )
                return y
        return x


def train_transform(
    model: Any,
    *,
    image_size: int | None = None,
    interpolation: str | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    auto_augment: Any = "imagenet",
    flip: float = 0.5,
    color_jitter: float | None = 0.4,
    lighting: float = 0.1,
    erasing: float = 0.0,
) -> Compose:
    """Return the training transform of a model: the recipe of the ResNeSt authors.

    AutoAugment, `RandomResizedCrop`, `RandomHorizontalFlip`, `ColorJitter` of brightness, contrast
    and saturation, `Lighting`, `Normalize`, in the order of their code (Zhang et al. 2020,
    "ResNeSt: split-attention networks", section 5.1), with the image size, interpolation, mean and
    standard deviation of the model, as `lucid_c.transforms.create_transform` has them for
    evaluation.

    Parameters
    ----------
    model : str, model, or its config
        As for `lucid_c.transforms.create_transform`.
    image_size : int, optional
        Height and width of the result, if not the model's.
    interpolation : str, optional
        Pillow's filter for the crop, if not the model's.
    scale : (float, float), default (0.08, 1)
        Bounds of the crop's share of the area.
    auto_augment : "imagenet", "rand", None or a transform, default "imagenet"
        `AutoAugment`, `RandAugment`, nothing, or something else on Pillow images.
    flip : float, default 0.5
        Probability of the mirror image; 0 leaves the step out, as with the rest.
    color_jitter : float, default 0.4
        Of brightness, contrast and saturation.
    lighting : float, default 0.1
        Of the noise of colours.
    erasing : float, default 0
        Probability of `RandomErasing`.

    Returns
    -------
    Compose
        Takes what `ToImage` takes, returns float32 (3, S, S).

    Examples
    --------
    >>> transform = train_transform("resnest_50")
    >>> transform("cat.jpg", np.random.default_rng(0)).shape
    (3, 224, 224)
    """
    given = {"image_size": image_size, "interpolation": interpolation}
    fields = _fields(model) | {name: value for name, value in given.items() if value is not None}
    fields.pop("crop", None)  # belongs to evaluation, and need not fit another size
    card = EvalTransform(**fields, crop=1.0)
    if isinstance(auto_augment, str):
        known = {"imagenet": AutoAugment, "rand": RandAugment}
        auto_augment = known[one_of("auto_augment", auto_augment, tuple(known))]()
    crop = RandomResizedCrop(card.image_size, scale, interpolation=card.interpolation)
    steps = [
        ToImage(),
        auto_augment,
        crop,
        RandomHorizontalFlip(flip) if flip else None,
        ColorJitter(color_jitter, color_jitter, color_jitter) if color_jitter else None,
        ToArray(),
        Lighting(lighting) if lighting else None,
        Normalize(card.mean, card.std),
        RandomErasing(erasing) if erasing else None,
    ]
    return Compose([step for step in steps if step is not None])
