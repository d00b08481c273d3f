# SPDX-License-Identifier: MIT
"""Checks of arguments that several files of this package share."""

import math
import operator
from typing import Any

import numpy as np

from ..transforms import _pillow


def check_count(name: str, value: Any, least: int) -> int:
    """Return an argument as an int of at least `least`, or raise."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    value = operator.index(value)
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def check_number(name: str, value: Any, least: float = 0.0, most: float = math.inf) -> float:
    """Return an argument as a finite float from `least` to `most`, or raise."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number, not {value!r}")
    value = float(value)
    if not (least <= value <= most and math.isfinite(value)):
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value


def check_range(name: str, value: Any, least: float, most: float = math.inf) -> tuple[float, float]:
    """Return an argument as two finite floats in order, or raise."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be two numbers (low, high), not {value!r}") from None
    low, high = check_number(name, low, least, most), check_number(name, high, least, most)
    if low > high:
        raise ValueError(f"{name} must be (low, high), not ({low}, {high})")
    return low, high


def one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    """Return an argument that must be one of some values, or raise."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value


def check_fill(fill: Any) -> tuple[int, int, int]:
    """Return a colour as three levels of 0 to 255."""
    levels = (fill,) * 3 if hasattr(fill, "__index__") else tuple(fill)
    if len(levels) != 3:
        raise ValueError(f"fill must be a level or three of them, not {fill!r}")
    levels = tuple(check_count("fill", level, 0) for level in levels)
    if max(levels) > 255:
        raise ValueError(f"fill must be from 0 to 255, not {fill!r}")
    return levels


def need_image(name: str, image: Any) -> None:
    """Raise unless it is a Pillow image of mode RGB."""
    if not isinstance(image, _pillow().Image):
        raise TypeError(
            f"{name} takes a Pillow image, not {type(image).__name__}; ToImage makes one of an "
            "array or a file"
        )
    if image.mode != "RGB":
        raise ValueError(f"{name} takes an image of mode RGB, not {image.mode}; use ToImage first")


def need_array(name: str, x: Any) -> None:
    """Raise unless it is a float32 array of shape (C, H, W)."""
    if not (isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim == 3):
        what = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{name} takes a float32 array of shape (C, H, W), not {what}")
