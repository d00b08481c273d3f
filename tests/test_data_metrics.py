# SPDX-License-Identifier: MIT
"""The running mean, and the accuracy of logits."""

import math

import numpy as np
import pytest

from lucid_c.data import RunningMean, topk_accuracy


def test_running_mean():
    mean = RunningMean()
    assert math.isnan(mean.value)
    values = np.random.default_rng(0).normal(5, 2, 1000).astype(np.float32)
    weights = np.arange(1000) % 7
    for value, weight in zip(values, weights, strict=True):
        mean.update(value, weight)
    assert mean.value == pytest.approx(np.average(values.astype(float), weights=weights), 1e-12)
    mean.reset()
    mean.update(3)
    assert mean.value == 3
    for weight in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight"):
            mean.update(1, weight)
    assert mean.value == 3
    mean.update(math.nan)
    assert math.isnan(mean.value)


def test_topk_accuracy():
    logits = np.array([[1, 3, 2], [0, -1, 5], [2, 2, 2]], np.float32)
    assert topk_accuracy(logits, [1, 0, 2], (1, 2, 3)) == (1 / 3, 2 / 3, 1.0)
    assert topk_accuracy(logits, [0, 2, 0], [1]) == (2 / 3,)
    np.testing.assert_equal(topk_accuracy(logits[:0], np.zeros(0, int), [1, 2]), (np.nan, np.nan))
    soft = np.array([[0.4, 0.6, 0], [0.5, 0.2, 0.3], [0, 0, 1]])
    assert topk_accuracy(logits, soft, (1, 2)) == topk_accuracy(logits, [1, 0, 2], (1, 2))


def test_ties_and_nan():
    same = np.zeros((4, 4))
    assert topk_accuracy(same, range(4), (1, 2, 3, 4)) == (0.25, 0.5, 0.75, 1.0)
    logits = np.array([[np.nan, 1, 2], [np.nan, 1, 2], [np.nan, np.nan, np.nan]])
    assert topk_accuracy(logits, [2, 0, 0], (1, 2, 3)) == (0, 1 / 3, 1 / 3)
    infinite = np.array([[np.inf, 0, -np.inf]] * 2)
    assert topk_accuracy(infinite, [0, 2], (1, 2)) == (0.5, 0.5)


def test_topk_accuracy_against_sorting():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(500, 40)).astype(np.float32), rng.integers(0, 40, 500)
    order = np.argsort(-logits, axis=1)
    for k in (1, 5, 39, 40):
        hits = [label in row[:k] for label, row in zip(labels, order, strict=True)]
        assert topk_accuracy(logits, labels, [k]) == (pytest.approx(np.mean(hits)),)


@pytest.mark.parametrize(
    "logits, labels, k, error, text",
    [
        (np.zeros(3), [0], (1,), ValueError, r"logits.*\(3,\)"),
        (np.zeros((2, 3), int), [0, 1], (1,), ValueError, "int64"),
        (np.zeros((2, 3)), [0], (1,), ValueError, r"\(2,\), not \(1,\)"),
        (np.zeros((2, 3)), [0.0, 1.0], (1,), TypeError, "float64"),
        (np.zeros((2, 3)), [0, 3], (1,), ValueError, "0 to 2, not 0 to 3"),
        (np.zeros((2, 3)), [-1, 0], (1,), ValueError, "-1"),
        (np.zeros((2, 3)), [0, 1], (1, 5), ValueError, "at most 3"),
        (np.zeros((2, 3)), [0, 1], (0,), ValueError, "k must"),
    ],
)
def test_bad_arguments(logits, labels, k, error, text):
    with pytest.raises(error, match=text):
        topk_accuracy(logits, labels, k)
