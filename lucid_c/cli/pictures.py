# SPDX-License-Identifier: MIT
"""Small grey images as text, and as a picture file."""

import numpy as np

SHADES = " .:-=+*#%@"
PIXEL = 6  # the side that a pixel of an image has in the picture
GAP = 8
TITLE = 14  # the height of a line of text
COLUMNS = 24


def text_art(images, titles):
    """Draws images side by side with letters, two for each pixel.

    Parameters
    ----------
    images : ndarray
        (N, H, W), from 0 (paper) to 16 (ink).
    titles : list of str
        What stands below each.

    Returns
    -------
    str
        Lines without spaces at their ends.
    """
    n, height, width = images.shape
    shades = (images.astype(np.float64) * len(SHADES) / 17).astype(int)
    lines = []
    for row in range(height):
        parts = ["".join(2 * SHADES[shade] for shade in shades[i, row]) for i in range(n)]
        lines.append("   ".join(parts))
    lines.append("   ".join(title.center(2 * width) for title in titles))
    return "\n".join(line.rstrip() for line in lines)


def save_grid(path, images, titles, wrong):
    """Writes a PNG of images in rows, with a title below each. Needs Pillow.

    Parameters
    ----------
    path : str
        The file; it appears whole or not at all.
    images : ndarray
        (N, H, W), from 0 (paper) to 16 (ink).
    titles : list of str
        One for each; a few letters have room.
    wrong : ndarray of bool
        (N,), which titles are red and framed.

    Returns
    -------
    tuple of int
        The picture's width and height.
    """
    from PIL import Image, ImageDraw

    from .._files import replacing

    n, height, width = images.shape
    columns = min(n, COLUMNS)
    cell_width, cell_height = PIXEL * width + GAP, PIXEL * height + TITLE + GAP
    size = columns * cell_width + GAP, -(-n // columns) * cell_height + GAP
    picture = Image.new("RGB", size, "#FFFFFF")
    draw = ImageDraw.Draw(picture)
    grey = np.round(255 - images.astype(np.float64) * 255 / 16).astype(np.uint8)
    big = grey.repeat(PIXEL, axis=1).repeat(PIXEL, axis=2)
    for i in range(n):
        x, y = GAP + i % columns * cell_width, GAP + i // columns * cell_height
        picture.paste(Image.fromarray(big[i]), (x, y))
        colour = "#C00000" if wrong[i] else "#404040"
        draw.rectangle(
            (x - 1, y - 1, x + PIXEL * width, y + PIXEL * height),
            outline=colour if wrong[i] else "#D0D0D0",
            width=2 if wrong[i] else 1,
        )
        draw.text((x, y + PIXEL * height + 2), titles[i], colour)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
    return size
