# SPDX-License-Identifier: MIT
"""A picture that needs no file."""

import numpy as np


def landscape(height, width):
    """Draws hills below an evening sky.

    Parameters
    ----------
    height, width : int
        The picture's size.

    Returns
    -------
    ndarray
        uint8, shape (height, width, 3).
    """
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    high, low = np.float32([60, 90, 160]), np.float32([250, 190, 120])
    picture = np.broadcast_to(high + (low - high) * y[..., None], (height, width, 3)).copy()
    picture[np.hypot((x - 0.68) * width / height, y - 0.34) < 0.1] = (255, 240, 200)
    for level, swing, waves, colour in (
        (0.58, 0.07, 5, (110, 120, 130)),
        (0.68, 0.05, 8, (70, 105, 85)),
        (0.80, 0.04, 11, (40, 80, 50)),
    ):
        hill = level + swing * np.sin(waves * x + level * 20) + 0.02 * np.sin(37 * x + level)
        picture[y > hill] = colour
    return picture.round().astype(np.uint8)
