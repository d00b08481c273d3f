# SPDX-License-Identifier: MIT
"""Running figures of a training: a mean, and the share of right answers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._checks import check_count

__all__ = ["RunningMean", "topk_accuracy"]


class RunningMean:
    """The weighted mean of numbers that come one by one, in double precision.

    Examples
    --------
    >>> loss = RunningMean()
    >>> loss.update(2.0, 32)  # the mean over 32 images
    >>> loss.update(1.0, 96)
    >>> loss.value
    1.25
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.weight = 0.0

    def update(self, value: float, weight: float = 1.0) -> None:
        """Take in one more number.

        Parameters
        ----------
        value : float
            The number, for example a batch's mean loss. NaN makes the mean NaN.
        weight : float, default 1
            How much it counts, for example the batch's size; at least 0.
        """
        value, weight = float(value), float(weight)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be a finite number of at least 0, not {weight}")
        self.total += value * weight
        self.weight += weight

    def reset(self) -> None:
        """Forget all numbers."""
        self.total = self.weight = 0.0

    @property
    def value(self) -> float:
        """The mean; NaN before the first number."""
        return self.total / self.weight if self.weight else math.nan


def topk_accuracy(logits: Any, labels: Any, k: Sequence[int] = (1, 5)) -> tuple[float, ...]:
    """Return the shares of samples whose class is among the k largest logits.

    Of equal logits those of lower class indices count as larger, and NaN counts as larger than
    any number, but a class whose own logit is NaN as wrong. So a constant output does not
    score.

    Parameters
    ----------
    logits : array, shape (N, K)
        Floats.
    labels : array, shape (N,) or (N, K)
        Class indices, or class probabilities, whose largest (the first one if equal) is the class.
    k : sequence of int, default (1, 5)
        From 1 to K.

    Returns
    -------
    tuple of float
        In [0, 1], one per k; NaN for N = 0.

    Raises
    ------
    ValueError
        If shapes do not fit, a label is not from 0 to K - 1, or k is not from 1 to K.
    TypeError
        If class indices are not integers.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or logits.dtype.kind != "f":
        raise ValueError(
            f"logits must be floats of shape (N, K), not {logits.dtype} of shape {logits.shape}"
        )
    count, classes = logits.shape
    if labels.ndim == 2 and labels.shape == logits.shape and classes:
        labels = labels.argmax(1)
    if labels.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), not {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"class indices must be integers, not {labels.dtype}")
    ks = [check_count("k", each, 1) for each in k]
    if ks and max(ks) > classes:
        raise ValueError(f"k must be at most {classes}, the number of classes, not {max(ks)}")
    if count and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, not {labels.min()} to {labels.max()}"
        )
    if not count:
        return (math.nan,) * len(ks)
    own = np.take_along_axis(logits, labels[:, None].astype(np.intp), 1)
    before = np.arange(classes) < labels[:, None]
    above = (logits > own) | np.isnan(logits) | before & (logits == own)
    rank = np.where(np.isnan(own[:, 0]), classes, above.sum(1))
    return tuple(float(np.mean(rank < each)) for each in ks)
