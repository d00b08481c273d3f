# SPDX-License-Identifier: MIT
"""A small trained model in the package: a ResNeSt that reads handwritten digits of 8x8 pixels.

>>> from lucid_c import digits
>>> images, labels = digits.held_out()
>>> logits = digits.resnest()(digits.to_input(images))

The weights are what ``examples/digits.py`` in the source makes. It trained on four fifths of the
1797 digits of scikit-learn's ``load_digits``; `held_out` has the others, which it never saw.
"""

from typing import Any

import numpy as np

from . import nn
from .models import ResNeSt
from .models.blocks import ResNeStBottleneck

__all__ = ["held_out", "resnest", "to_input"]

LAYERS = (1, 1, 1, 1)
CHANNELS = (16, 24, 32, 48)
STEM_WIDTH = 8


def resnest(pretrained: bool = True) -> ResNeSt:
    """Build the model: a ResNeSt-14 with narrow stages, for one channel and ten classes.

    For images of 8x8 the first convolution has no stride and the max pool is left out, so that
    the stages see 8x8, 4x4, 2x2 and 1x1.

    Parameters
    ----------
    pretrained : bool, optional
        Load the weights that are in the package, instead of drawing new ones.

    Returns
    -------
    ResNeSt
        In eval mode. It takes (N, 1, 8, 8), see `to_input`, and returns the logits (N, 10) of the
        digits 0 to 9. Larger images are possible, but not what it was trained for.
    """
    model = ResNeSt(
        ResNeStBottleneck,
        LAYERS,
        num_classes=10,
        in_channels=1,
        stem_width=STEM_WIDTH,
        channels=CHANNELS,
        init=not pretrained,
    )
    model.conv1[0] = nn.Conv2d(1, STEM_WIDTH, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    if pretrained:
        from importlib.resources import as_file

        with as_file(_asset("digits.safetensors")) as path:
            model.load(path)
    return model


def to_input(images: Any) -> np.ndarray:
    """Return the model's input for images.

    Parameters
    ----------
    images : array_like
        (N, 8, 8), or (8, 8) for one, from 0 (paper) to 16 (ink).

    Returns
    -------
    numpy.ndarray
        float32 (N, 1, 8, 8), from 0 to 1.

    Raises
    ------
    ValueError
        If the shape is another one.
    """
    images = np.asarray(images)
    if images.ndim not in (2, 3) or images.shape[-2:] != (8, 8):
        raise ValueError(f"images must have shape (N, 8, 8) or (8, 8), not {images.shape}")
    if images.dtype.kind not in "iuf":
        raise TypeError(f"images must be real numbers, not {images.dtype}")
    return images.reshape(-1, 1, 8, 8).astype(np.float32) / np.float32(16)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits that the model was not trained on.

    They are every fifth of each class in scikit-learn's ``load_digits``, beginning with the first:
    images of E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0.

    Returns
    -------
    images : numpy.ndarray
        uint8 (N, 8, 8), from 0 (paper) to 16 (ink).
    labels : numpy.ndarray
        int64 (N,), 0 to 9.
    """
    with _asset("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"].astype(np.int64)


def _asset(name: str) -> Any:
    from importlib.resources import files

    return files("lucid_c").joinpath("assets", name)
