# SPDX-License-Identifier: MIT
"""AutoAugment and RandAugment: each operation by a formula, and what is drawn how often."""

import pickle
from collections import Counter

import numpy as np
import pytest

from data_samples import noise
from lucid_c.data import autoaugment
from lucid_c.data.augment import AutoAugment, RandAugment
from lucid_c.data.autoaugment import IMAGENET_POLICY, RAND_AUGMENT_OPERATIONS, operate, steps

Image = pytest.importorskip("PIL.Image")

PIXELS = noise(21, 33, 5, smooth=True) // 2 + noise(21, 33, 6) // 3


def result(name, level, bins=10, sign=1, **options):
    return np.asarray(operate(Image.fromarray(PIXELS), name, level, bins, sign, **options))


# --- magnitudes ---


def test_steps_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for bins in (10, 31):
        for first, last in [(0, 0.3), (0, 30), (0, 0.9), (255, 0), (0, 150 / 331 * 500)]:
            theirs = torch.linspace(first, last, bins)
            ours = [steps(first, last, i, bins) for i in range(bins)]
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-7)
        for size in range(1, 700, 3):  # where a translation is cut to whole pixels
            theirs = torch.linspace(0, 150 / 331 * size, bins).int().tolist()
            ours = [int(steps(0, 150 / 331 * size, i, bins)) for i in range(bins)]
            assert ours == theirs


# --- operations ---


@pytest.mark.parametrize(
    "level, bins, bits", [(0, 10, 8), (5, 10, 6), (7, 10, 5), (9, 10, 4), (9, 31, 7), (30, 31, 4)]
)
def test_posterize(level, bins, bits):
    np.testing.assert_array_equal(
        result("Posterize", level, bins), PIXELS & (256 - (1 << 8 - bits))
    )


@pytest.mark.parametrize("level", range(0, 10, 3))
def test_solarize(level):
    below = 9 * PIXELS.astype(int) < 255 * (9 - level)
    expected = np.where(below, PIXELS, 255 - PIXELS)
    np.testing.assert_array_equal(result("Solarize", level), expected)


def test_invert_and_identity():
    np.testing.assert_array_equal(result("Invert", None), 255 - PIXELS)
    np.testing.assert_array_equal(result("Identity", 4), PIXELS)


def test_autocontrast():
    low, high = PIXELS.min((0, 1)).astype(float), PIXELS.max((0, 1)).astype(float)
    expected = (PIXELS - low) * 255 / (high - low)
    assert np.abs(result("AutoContrast", None) - expected).max() <= 1


def test_equalize():
    """The cumulative histogram of each channel, with Pillow's integer steps."""
    expected = np.empty_like(PIXELS)
    for channel in range(3):
        values = PIXELS[..., channel]
        counts = np.bincount(values.ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        table = (step // 2 + np.cumsum(counts) - counts) // step
        expected[..., channel] = np.minimum(table, 255)[values]
    np.testing.assert_array_equal(result("Equalize", None), expected)


GREY = PIXELS @ np.array([299, 587, 114]) / 1000


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("level", [2, 8])
def test_enhancements(level, sign):
    factor = 1 + sign * 0.1 * level
    for name, other in [
        ("Brightness", np.zeros(PIXELS.shape)),
        ("Contrast", np.full(PIXELS.shape, round(GREY.mean()))),
        ("Color", np.repeat(GREY[..., None], 3, 2)),
    ]:
        expected = np.clip(PIXELS * factor + other * (1 - factor), 0, 255)
        assert np.abs(result(name, level, sign=sign) - expected).max() <= 1.5, name


def test_sharpness():
    """Blended with a 3x3 mean in which the centre counts 5 times; the edge stays."""
    smooth = PIXELS.astype(float).copy()
    total = sum(
        PIXELS[1 + dy : 20 + dy, 1 + dx : 32 + dx].astype(float) * (5 if dy == dx == 0 else 1)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    smooth[1:-1, 1:-1] = total / 13
    for level, sign in [(7, 1), (4, -1)]:
        factor = 1 + sign * 0.1 * level
        expected = np.clip(PIXELS * factor + smooth * (1 - factor), 0, 255)
        assert np.abs(result("Sharpness", level, sign=sign) - expected).max() <= 1.6


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("level", [3, 9])
def test_warps(level, sign):
    """Pixel (x, y) of the result is the one at (x + shear y, y) and the like; outside is fill."""
    fill = (10, 20, 30)
    y, x = np.mgrid[:21, :33] + 0.5
    shear = sign * 0.3 * level / 9
    across, down = (sign * int(150 / 331 * size * level / 9) for size in (33, 21))
    for name, at_x, at_y in [
        ("ShearX", x + shear * y, y),
        ("ShearY", x, y + shear * x),
        ("TranslateX", x - across, y),
        ("TranslateY", x, y - down),
    ]:
        inside = (at_x >= 0) & (at_x < 33) & (at_y >= 0) & (at_y < 21)
        columns = np.clip(np.floor(at_x), 0, 32).astype(int)
        rows = np.clip(np.floor(at_y), 0, 20).astype(int)
        expected = np.where(inside[..., None], PIXELS[rows, columns], np.array(fill, np.uint8))
        found = result(name, level, sign=sign, fill=fill)
        assert np.mean(np.any(found != expected, axis=2)) < 0.01, name  # halves may go either way


def test_rotate():
    """By 30 degrees, counterclockwise for a positive magnitude, around the centre."""
    y, x = np.mgrid[:21, :33] + 0.5
    for sign in (-1, 1):
        angle = np.deg2rad(sign * 30)
        dx, dy = x - 16.5, y - 10.5
        at_x = 16.5 + np.cos(angle) * dx - np.sin(angle) * dy
        at_y = 10.5 + np.sin(angle) * dx + np.cos(angle) * dy
        inside = (at_x >= 0) & (at_x < 33) & (at_y >= 0) & (at_y < 21)
        columns = np.clip(np.floor(at_x), 0, 32).astype(int)
        rows = np.clip(np.floor(at_y), 0, 20).astype(int)
        expected = np.where(inside[..., None], PIXELS[rows, columns], np.uint8(0))
        assert np.mean(np.any(result("Rotate", 9, sign=sign) != expected, axis=2)) < 0.02


# --- what is drawn ---


@pytest.fixture
def drawn(monkeypatch):
    """Instead of changing the image, keeps what would be done to it."""
    calls = []

    def keep(image, name, level, bins, sign, interpolation, fill):
        calls.append((name, level, bins, int(sign)))
        return image

    monkeypatch.setattr(autoaugment, "operate", keep)
    return calls


def test_auto_augment_draws(drawn):
    """Each of 25 policies equally often, and its operations with their probabilities."""
    rng = np.random.default_rng(0)
    transform, image, rounds = AutoAugment(), Image.new("RGB", (4, 4)), 20_000
    for _ in range(rounds):
        transform(image, rng)
    counts = Counter((name, level) for name, level, _, _ in drawn)
    expected = Counter()
    for policy in IMAGENET_POLICY:
        for name, share, level in policy:
            expected[name, level] += rounds / 25 * share
    assert len(IMAGENET_POLICY) == 25 and {bins for _, _, bins, _ in drawn} == {10}
    for key in expected:
        assert abs(counts[key] - expected[key]) < 5 * np.sqrt(expected[key]) + 1, key
    signs = [sign for *_, sign in drawn]
    assert set(signs) == {-1, 1} and abs(np.mean(signs)) < 0.03


def test_rand_augment_draws(drawn):
    rng = np.random.default_rng(0)
    transform, image = RandAugment(3, 12, 20), Image.new("RGB", (4, 4))
    for _ in range(3000):
        transform(image, rng)
    counts = Counter(name for name, *_ in drawn)
    assert set(counts) == set(RAND_AUGMENT_OPERATIONS) and len(counts) == 14
    assert sum(counts.values()) == 9000 and min(counts.values()) > 540
    assert {(level, bins) for _, level, bins, _ in drawn} == {(12, 20)}
    assert abs(np.mean([sign for *_, sign in drawn])) < 0.05


@pytest.mark.parametrize("transform", [AutoAugment("bilinear", 128), RandAugment(fill=(1, 2, 3))])
def test_equal_generators_give_equal_pictures(transform):
    image = Image.fromarray(PIXELS)
    copy = pickle.loads(pickle.dumps(transform))
    assert repr(copy) == repr(transform)
    results = set()
    for seed in range(20):
        found = transform(image, np.random.default_rng(seed))
        assert found.mode == "RGB" and found.size == image.size
        np.testing.assert_array_equal(found, copy(image, np.random.default_rng(seed)))
        results.add(found.tobytes())
    assert len(results) > 10
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_every_operation_on_tiny_pictures(size):
    image = Image.fromarray(noise(*size))
    for name in {*RAND_AUGMENT_OPERATIONS, "Invert"}:
        for sign in (-1, 1):
            assert operate(image, name, 9, 10, sign).size == image.size


def test_bad_arguments():
    for make, error, text in [
        (lambda: AutoAugment("cubic"), ValueError, "'cubic'"),
        (lambda: AutoAugment(fill=256), ValueError, "fill"),
        (lambda: AutoAugment(fill=(1, 2)), ValueError, "fill"),
        (lambda: RandAugment(-1), ValueError, "num_ops"),
        (lambda: RandAugment(2, 31), ValueError, "less than 31, not 31"),
        (lambda: RandAugment(2, 0, 1), ValueError, "num_magnitude_bins"),
        (lambda: RandAugment(2, 1.5), TypeError, "magnitude"),
    ]:
        with pytest.raises(error, match=text):
            make()
    rng = np.random.default_rng(0)
    for transform in (AutoAugment(), RandAugment()):
        with pytest.raises(TypeError, match="Pillow image, not ndarray"):
            transform(PIXELS, rng)
        with pytest.raises(ValueError, match="mode RGB, not L"):
            transform(Image.new("L", (3, 3)), rng)
