# SPDX-License-Identifier: MIT
"""Regularisers that mix the images of a batch and their labels."""

from typing import Any

import numpy as np

from ._checks import check_count, check_number

__all__ = ["cutmix", "mixup"]


def mixup(
    x: Any, y: Any, alpha: float, num_classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each image of a batch with another one, and their labels in the same proportion.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", section 2:
    ``l * x + (1 - l) * x[p]`` with one l from Beta(alpha, alpha) for the batch and a random
    permutation p.

    Parameters
    ----------
    x : array, shape (N, ...)
        float32.
    y : array, shape (N,) or (N, K)
        Class indices, or class probabilities.
    alpha : float
        Strength; the published recipe of ResNeSt has 0.2. 0: nothing is mixed.
    num_classes : int
        K.
    rng : numpy.random.Generator
        Where random numbers come from.

    Returns
    -------
    x : ndarray, shape (N, ...)
        float32, new memory.
    y : ndarray, shape (N, K)
        float32, class probabilities.
    """
    x, y, share = _check(x, y, alpha, num_classes, rng)
    other = rng.permutation(len(x))
    mixed = x * share
    mixed += x[other] * (1 - share)
    return mixed, y * share + y[other] * (1 - share)


def cutmix(
    x: Any, y: Any, alpha: float, num_classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a rectangle of each image of a batch by another image's, and mix their labels.

    Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable
    features", algorithm A1: one rectangle for the batch, of the share 1 - l of the area, l from
    Beta(alpha, alpha), its centre anywhere, cut off at the edges; labels are mixed by the area
    that is left.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
        float32.
    y : array, shape (N,) or (N, K)
        Class indices, or class probabilities.
    alpha : float
        1 in the paper. 0: nothing is mixed.
    num_classes : int
        K.
    rng : numpy.random.Generator
        Where random numbers come from.

    Returns
    -------
    x : ndarray, shape (N, C, H, W)
        float32, new memory.
    y : ndarray, shape (N, K)
        float32, class probabilities.
    """
    x, y, share = _check(x, y, alpha, num_classes, rng)
    if x.ndim != 4:
        raise ValueError(f"x must have shape (N, C, H, W), not {x.shape}")
    height, width = x.shape[2:]
    side = float(np.sqrt(1 - share))
    rows = _stretch(height, int(height * side), rng)
    columns = _stretch(width, int(width * side), rng)
    other = rng.permutation(len(x))
    mixed = x.copy()
    mixed[:, :, rows, columns] = x[other][:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    kept = np.float32(1 - area / max(height * width, 1))
    return mixed, y * kept + y[other] * (1 - kept)


def _stretch(length, size, rng):
    """A slice of about `size` around a random centre, cut off at the ends."""
    centre = int(rng.integers(max(length, 1)))
    return slice(max(centre - size // 2, 0), min(centre + size // 2, length))


def _check(x, y, alpha, num_classes, rng):
    """x and soft labels as float32 arrays, and the share of the first image."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, not {type(rng).__name__}")
    alpha = check_number("alpha", alpha)
    classes = check_count("num_classes", num_classes, 1)
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype != np.float32 or x.ndim < 1:
        raise TypeError(f"x must be a float32 array of shape (N, ...), not {x.dtype} {x.shape}")
    if y.shape == (len(x),) and y.dtype.kind in "iu":
        if y.size and not (0 <= y.min() and y.max() < classes):
            raise ValueError(
                f"class indices must be from 0 to {classes - 1}, not {y.min()} to {y.max()}"
            )
        soft = np.zeros((len(x), classes), np.float32)
        soft[np.arange(len(x)), y] = 1
    elif y.shape == (len(x), classes) and y.dtype.kind == "f":
        soft = y.astype(np.float32)
    else:
        raise ValueError(
            f"y must be integers of shape ({len(x)},) or floats of shape ({len(x)}, {classes}), "
            f"not {y.dtype} of shape {y.shape}"
        )
    share = rng.beta(alpha, alpha) if alpha > 0 else 1.0
    return x, soft, np.float32(share)
