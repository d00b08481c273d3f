# SPDX-License-Identifier: MIT
"""Datasets, transforms and pictures for the tests of lucid_c.data; worker processes import it."""

import io
import os
import signal
import time

import numpy as np


class Numbers:
    """Sample i: float32 (2, 3) of i, and the label i; some fail, some take long."""

    def __init__(self, length, errors=None, sleeps=None):
        self.length = length
        self.errors = errors or {}
        self.sleeps = sleeps or {}

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert type(index) is int
        time.sleep(self.sleeps.get(index, 0))
        if index in self.errors:
            raise self.errors[index]
        return np.full((2, 3), index, np.float32), index

    def where(self, index):
        return f"number-{index}"


class Deadly(Numbers):
    """Sample 3 kills the process that reads it."""

    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Awkwards(Numbers):
    """Sample 6 raises an error that cannot be unpickled."""

    def __getitem__(self, index):
        if index == 6:
            raise Awkward(1, 2)
        return super().__getitem__(index)


class Unfit(Numbers):
    """Can be pickled, but not unpickled."""

    def __setstate__(self, state):
        raise ValueError("cannot be rebuilt")


class Awkward(Exception):
    """Takes other arguments than it keeps, so it cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def add_noise(image, rng):
    return image + rng.standard_normal(image.shape)


def to_object(image):
    return {"value": float(image[0, 0])}


def two_sizes(image):
    return image[:, :2] if image[0, 0] == 5 else image.astype(np.int16)


def as_list(samples):
    return samples


def noise(height, width, seed=0, smooth=False):
    """uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    if not smooth:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    return (255 * (rows * rng.random(3) + (1 - columns) * rng.random(3)) / 2).astype(np.uint8)


def encoded(picture, kind="PNG", **options):
    """A picture (array or Pillow image) as a file's bytes."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(file, kind, **options)
    return file.getvalue()
