# SPDX-License-Identifier: MIT
"""From pictures to a network's input: the evaluation transform of a model's card.

The same pixels as timm's evaluation transform: the picture in RGB, its shorter side resized,
the centre cut out, the values normalised. Needs Pillow (``pip install lucid_c[images]``).
"""

import functools
import math
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .models._cards import IMAGENET_MEAN, IMAGENET_STD, find_card

__all__ = ["EvalTransform", "create_transform", "from_config", "preprocess"]

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
FIELDS = ("image_size", "crop", "interpolation", "mean", "std")

MAX_SIDE = 1 << 16  # of the network's input, and of the resized picture's shorter side
# A resized picture of more pixels (a very thin one) is computed only where the crop needs it: the
# same filter, but Pillow may do its two passes in the other order, which rounds differently.
MAX_WHOLE = 1 << 24


@dataclass(frozen=True)
class EvalTransform:
    """Turns a picture into what a network expects.

    Parameters
    ----------
    image_size : int
        Height and width S of the result.
    crop : float
        The result's share of the resized picture's shorter side, which is
        ``floor(image_size / crop)``; above 1 the picture is padded with black.
    interpolation : str
        "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos", as Pillow has them.
    mean, std : sequence of 3 floats
        Of red, green and blue, for values in [0, 1].

    Examples
    --------
    >>> transform = EvalTransform(224, crop=0.875, interpolation="bicubic")
    >>> transform("cat.jpg").shape
    (3, 224, 224)
    """

    image_size: int = 224
    crop: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self):
        size, crop = operator.index(self.image_size), float(self.crop)
        if not 1 <= size <= MAX_SIDE:
            raise ValueError(f"image_size must be 1 to {MAX_SIDE}, not {size}")
        if not (crop > 0 and 1 <= size / crop <= MAX_SIDE):
            raise ValueError(
                f"crop {crop} does not fit image_size {size}: the picture would be "
                f"resized to {size} / {crop}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"unknown interpolation {self.interpolation!r}; known: {', '.join(INTERPOLATIONS)}"
            )
        mean, std = _three("mean", self.mean), _three("std", self.std)
        if min(std) <= 0:
            raise ValueError(f"std must be positive, not {std}")
        for field, value in zip(FIELDS, (size, crop, self.interpolation, mean, std), strict=True):
            object.__setattr__(self, field, value)

    def __call__(self, image):
        """The network's input for one picture.

        Parameters
        ----------
        image : str, path, file object, PIL.Image.Image or uint8 array
            A file of any format that Pillow reads (the first frame; an EXIF orientation is
            ignored), a Pillow image of any mode, or pixels of shape (H, W), (H, W, 3) or
            (H, W, 4), whose fourth channel is dropped.

        Returns
        -------
        ndarray
            float32, shape (3, S, S).

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not an image, is damaged, has no pixels or far too many.
        ImportError
            If Pillow is not installed.
        """
        return self._normalise(self.pixels(image), self._empty(1)[0])

    def pixels(self, image):
        """The picture resized and cropped, before normalisation.

        Parameters
        ----------
        image : str, path, file object, PIL.Image.Image or uint8 array
            As for a call.

        Returns
        -------
        ndarray
            uint8, shape (S, S, 3), red, green, blue.
        """
        image = _open_rgb(image)
        size = self.image_size
        width, height = self._resized(image.size)
        left, before_x, across = _window(width, size)
        top, before_y, down = _window(height, size)
        resample = getattr(_pillow().Resampling, self.interpolation.upper())
        if width * height <= MAX_WHOLE:
            image = image.resize((width, height), resample)
            image = image.crop((left, top, left + across, top + down))
        else:
            sx, sy = image.width / width, image.height / height
            box = (left * sx, top * sy, (left + across) * sx, (top + down) * sy)
            image = image.resize((across, down), resample, box)
        pixels = np.zeros((size, size, 3), np.uint8)
        pixels[before_y : before_y + down, before_x : before_x + across] = np.asarray(image)
        return pixels

    def batch(self, images):
        """The network's input for several pictures.

        Parameters
        ----------
        images : iterable
            Pictures as for a call; an array of shape (N, H, W, 3) is one, too.

        Returns
        -------
        ndarray
            float32, shape (N, 3, S, S).
        """
        images = list(images)
        out = self._empty(len(images))
        for image, x in zip(images, out, strict=True):
            self._normalise(self.pixels(image), x)
        return out

    def _resized(self, size):
        """(width, height) after resizing; torchvision's arithmetic, to the same rounding."""
        short, long = min(size), max(size)
        new_short = math.floor(self.image_size / self.crop)
        new_long = int(new_short * long / short)
        return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)

    def _empty(self, count):
        return np.empty((count, 3, self.image_size, self.image_size), np.float32)

    @functools.cached_property
    def _table(self):
        """float32 (3, 256): the normalised value of each channel's 256 levels."""
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return (levels - mean) / std

    def _normalise(self, pixels, out):
        for channel in range(3):
            np.take(self._table[channel], pixels[..., channel], out=out[channel], mode="clip")
        return out


def create_transform(model, **overrides):
    """The evaluation transform of a model.

    Parameters
    ----------
    model : str, model, or its config
        A variant's name or alias, a model with a ``config``, or an object or mapping that has
        some of the fields image_size, crop, interpolation, mean and std.
    **overrides
        Other values for these fields.

    Returns
    -------
    EvalTransform

    Examples
    --------
    >>> create_transform("resnest_200").image_size
    320
    >>> create_transform("resnet_50", image_size=288, crop=1.0).image_size
    288
    """
    wrong = sorted(overrides.keys() - set(FIELDS))
    if wrong:
        raise TypeError(
            f"create_transform() has no argument {wrong[0]!r}; known: {', '.join(FIELDS)}"
        )
    return EvalTransform(**(_fields(model) | overrides))


from_config = create_transform


def preprocess(images, model, **overrides):
    """A batch from one or several pictures.

    Parameters
    ----------
    images : picture or iterable of pictures
        Each as for a call of `EvalTransform`; a single one gives a batch of one.
    model : str, model, config or EvalTransform
        As for `create_transform`.
    **overrides
        As for `create_transform`.

    Returns
    -------
    ndarray
        float32, shape (N, 3, S, S).
    """
    transform = create_transform(model, **overrides)
    return transform.batch([images] if _is_one(images) else images)


def _fields(model):
    if isinstance(model, str):
        model = find_card(model)
    elif not isinstance(model, Mapping):
        model = getattr(model, "config", model)
    if isinstance(model, Mapping):
        fields = {f: model[f] for f in FIELDS if f in model}
    else:
        fields = {f: getattr(model, f) for f in FIELDS if hasattr(model, f)}
    if not fields:
        raise TypeError(
            f"{type(model).__name__} says nothing about its input; "
            f"build an EvalTransform({', '.join(FIELDS)}) instead"
        )
    return fields


def _three(name, values):
    values = tuple(float(v) for v in values)
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ValueError(f"{name} must be three finite numbers, not {values}")
    return values


def _window(length, size):
    """The centre of one axis: first pixel, padding before it, how many pixels."""
    if length < size:
        return 0, (size - length) // 2, length
    return round((length - size) / 2), 0, size  # halves to even, as torchvision


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images need Pillow: pip install lucid_c[images]") from error
    return Image


def _is_one(images):
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return (
        isinstance(images, (str, bytes, os.PathLike))
        or hasattr(images, "read")
        or isinstance(images, _pillow().Image)
    )


def _open_rgb(source):
    """A Pillow image of mode RGB, fully read."""
    pillow = _pillow()
    if isinstance(source, np.ndarray):
        return _from_array(pillow, source)
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return _decode(pillow, file, repr(os.fspath(source)))
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return _decode(pillow, source, repr(name) if isinstance(name, str) else "the file object")
    if isinstance(source, pillow.Image):
        return _decode(pillow, source, f"the {source.mode} image")
    raise TypeError(
        f"an image is a path, a file object, a Pillow image or a uint8 array, "
        f"not {type(source).__name__}"
    )


def _decode(pillow, source, name):
    # What Pillow's decoders raise for bad files has no common base.
    try:
        image = source if isinstance(source, pillow.Image) else pillow.open(source)
        image = image.convert("RGB")
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise ValueError(f"{name} has too many pixels: {error}") from error
    except (MemoryError, Warning):
        raise
    except Exception as error:
        raise ValueError(f"{name} is not an image that can be read: {error}") from error
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels: {image.width}x{image.height}")
    return image


def _from_array(pillow, array):
    if array.dtype != np.uint8:
        raise TypeError(
            f"an image array must be uint8, not {array.dtype}; scale it to 0 to 255 "
            "and use .astype(np.uint8)"
        )
    if not (array.ndim == 2 or array.ndim == 3 and array.shape[2] in (3, 4)) or 0 in array.shape:
        raise ValueError(
            f"an image array must have shape (H, W), (H, W, 3) or (H, W, 4), not {array.shape}"
        )
    return pillow.fromarray(array).convert("RGB")
