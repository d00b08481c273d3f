# SPDX-License-Identifier: MIT
"""The curves of a training as a picture."""

import os
from collections.abc import Sequence
from typing import Any

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "plots need Matplotlib, which cannot be imported "
        f"({error}); install it with: pip install lucid_c[plots]"
    ) from error

from .._files import replacing

__all__ = ["plot_history", "save_plot"]

TRAIN, VALIDATION, RATE = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito 2008


def plot_history(history: Sequence[dict[str, Any]], title: str = "") -> Figure:
    """Draw loss, accuracy and learning rate over the epochs.

    Parameters
    ----------
    history : sequence of dict
        `Trainer.history`.
    title : str, optional
        Above the figure.
    """
    figure = Figure(figsize=(13, 4), dpi=100, layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, curves, name in (
        (loss, (("train_loss", TRAIN), ("val_loss", VALIDATION)), "loss"),
        (
            accuracy,
            (("train_top1", TRAIN), ("val_top1", VALIDATION), ("val_top5", "#E69F00")),
            "accuracy in %",
        ),
        (rate, (("lr", RATE),), "learning rate"),
    ):
        factor = 100 if axes is accuracy else 1
        for key, colour in curves:
            rows = [row for row in history if key in row]
            if rows:
                x = [row["epoch"] + 1 for row in rows]
                y = [factor * row[key] for row in rows]
                axes.plot(x, y, color=colour, label=key, marker="o", markersize=3)
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.grid(alpha=0.3)
        if axes is not rate and history:
            axes.legend()
    figure.suptitle(title)
    return figure


def save_plot(history: Sequence[dict[str, Any]], path: str | os.PathLike[str], title: str) -> None:
    """Write `plot_history` to a PNG file, whole or not at all."""
    figure = plot_history(history, title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
