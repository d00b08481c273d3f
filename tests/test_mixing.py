# SPDX-License-Identifier: MIT
"""mixup and cutmix: pixels and labels agree, and the shares have the right distribution."""

import numpy as np
import pytest

from lucid_c.data.augment import cutmix, mixup


def batch(count=6, classes=6):
    """Image i is constant i, with label i, so that the result shows what was mixed."""
    x = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, 2, 8, 12))
    return x, np.arange(count) % classes


def test_mixup():
    x, y = batch()
    before = x.copy()
    mixed, soft = mixup(x, y, 0.8, 6, np.random.default_rng(3))
    assert mixed.shape == x.shape and mixed.dtype == soft.dtype == np.float32
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-6)
    assert len({round(float(row.max()), 5) for row in soft if row.max() < 1}) == 1
    expected = soft @ np.arange(6)  # the same mixture of the images' values
    np.testing.assert_allclose(mixed, np.broadcast_to(expected[:, None, None, None], x.shape), 1e-5)
    assert (soft.max(1) < 1).sum() >= 3
    again, same = mixup(x, y, 0.8, 6, np.random.default_rng(3))
    np.testing.assert_array_equal(mixed, again)
    np.testing.assert_array_equal(soft, same)
    other, _ = mixup(x, y, 0.8, 6, np.random.default_rng(4))
    assert not np.array_equal(other, mixed)


def shares(function, alpha, count, **shape):
    """What the first of two images keeps in its label, where it was mixed with the other."""
    rng = np.random.default_rng(0)
    x = np.zeros((2, 1, 64, 64), np.float32)
    found = []
    while len(found) < count:
        _, soft = function(x, [0, 1], alpha, 2, rng)
        if soft[0, 0] == 1:  # its own partner, or a share of 1
            continue
        found.append(soft[0, 0])
    return np.array(found)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_shares_are_beta(alpha):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)) of Beta(alpha, alpha)."""
    found = shares(mixup, alpha, 2000)
    assert abs(found.mean() - 0.5) < 0.03
    assert found.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix():
    """Each image is itself and one other; the label has the share of pixels; one rectangle."""
    x, y = batch()
    rng = np.random.default_rng(1)
    sizes = set()
    for _ in range(50):
        mixed, soft = cutmix(x, y, 1.0, 6, rng)
        assert mixed.shape == x.shape and mixed.dtype == soft.dtype == np.float32
        masks = set()
        for i in range(6):
            values, counts = np.unique(mixed[i], return_counts=True)
            share = np.zeros(6)
            share[values.astype(int)] = counts / counts.sum()
            np.testing.assert_allclose(soft[i], share, atol=1e-6)
            changed = mixed[i] != i
            assert (changed == changed[:1]).all()  # in all channels
            if changed.any():
                rows, columns = np.nonzero(changed[0])
                box = (rows.min(), rows.max(), columns.min(), columns.max())
                assert (box[1] - box[0] + 1) * (box[3] - box[2] + 1) == changed[0].sum()
                masks.add(box)
                sizes.add(changed[0].sum())
        assert len(masks) <= 1
    assert len(sizes) > 10 and max(sizes) > 48
    again, _ = cutmix(x, y, 1.0, 6, np.random.default_rng(1))
    first, _ = cutmix(x, y, 1.0, 6, np.random.default_rng(1))
    np.testing.assert_array_equal(first, again)


def test_cutmix_area():
    """Of a square in the middle, 1 - l is cut; near the edges less. l is uniform for alpha 1."""
    found = shares(cutmix, 1.0, 2000)
    # E[kept] = 1 - E[visible part of a side]^2 with side s: the visible mean is s - s^2 / 4.
    side = np.sqrt(np.linspace(0, 1, 100_001))
    expected = 1 - np.mean((side - side**2 / 4) ** 2)
    assert abs(found.mean() - expected) < 0.02


@pytest.mark.parametrize("function", [mixup, cutmix])
def test_soft_labels_and_no_mixing(function):
    x, y = batch(4, 4)
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    mixed, labels = function(x, soft, 0.5, 3, np.random.default_rng(0))
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    mixed, labels = function(x, y, 0, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(mixed, x)
    np.testing.assert_array_equal(labels, np.eye(5)[:4])
    mixed, labels = function(x[:0], y[:0], 0.5, 5, np.random.default_rng(0))
    assert mixed.shape == (0, 2, 8, 12) and labels.shape == (0, 5)


@pytest.mark.parametrize("function", [mixup, cutmix])
def test_bad_arguments(function):
    x, y = batch()
    rng = np.random.default_rng(0)
    for arguments, error, text in [
        ((x, y, -0.1, 6, rng), ValueError, "alpha"),
        ((x, y, float("nan"), 6, rng), ValueError, "alpha"),
        ((x, y, 0.2, 0, rng), ValueError, "num_classes"),
        ((x, y, 0.2, 5, rng), ValueError, "0 to 4, not 0 to 5"),
        ((x, y - 1, 0.2, 6, rng), ValueError, "-1"),
        ((x, y[:5], 0.2, 6, rng), ValueError, r"y must.*\(5,\)"),
        ((x, y * 1.0, 0.2, 6, rng), ValueError, "float64"),
        ((x.astype(float), y, 0.2, 6, rng), TypeError, "float64"),
        ((x, y, 0.2, 6, 7), TypeError, "Generator, not int"),
    ]:
        with pytest.raises(error, match=text):
            function(*arguments)
    with pytest.raises(ValueError, match="N, C, H, W"):
        cutmix(x[:, 0], y, 0.2, 6, rng)
