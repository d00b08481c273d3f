# SPDX-License-Identifier: MIT
"""Validation: loss and accuracy of a model on the batches of a loader."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..data import RunningMean, topk_accuracy
from ..nn import Module
from ..nn import functional as F

__all__ = ["evaluate"]


def evaluate(
    model: Module, loader: Any, step: Callable[[int], None] = lambda images: None
) -> dict[str, float]:
    """Return loss and accuracy of a model in eval mode; it is in the mode of before afterwards.

    Parameters
    ----------
    model : Module
        From images to logits.
    loader : iterable
        Batches (images, labels); labels are class indices, or class probabilities.
    step : callable, optional
        Called after each batch with the number of its images.

    Returns
    -------
    dict
        ``"loss"``: the mean cross-entropy. ``"top1"``, ``"top5"``: shares of right answers, from 0
        to 1 (``"top5"`` among all classes if there are fewer). ``"images"``: their number.
        ``"seconds"``: the time that it took.

    Raises
    ------
    ValueError
        If there are no images, or a label is not a class of the model.
    """
    modes = [(module, module.training) for module in model.modules()]
    loss, top1, top5 = RunningMean(), RunningMean(), RunningMean()
    start = time.monotonic()
    model.eval()
    try:
        for images, labels in loader:
            with no_grad():
                logits = np.asarray(model(images))
            figures = topk_accuracy(logits, labels, (1, min(5, logits.shape[1])))
            loss.update(F.cross_entropy(logits, labels).item(), len(images))
            for mean, value in zip((top1, top5), figures, strict=True):
                mean.update(value, len(images))
            step(len(images))
    finally:
        for module, mode in modes:
            module.training = mode
    if not loss.weight:
        raise ValueError("there are no images to evaluate on")
    return {
        "loss": loss.value,
        "top1": top1.value,
        "top5": top5.value,
        "images": int(loss.weight),
        "seconds": time.monotonic() - start,
    }
