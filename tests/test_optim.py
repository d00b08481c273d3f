# SPDX-License-Identifier: MIT
"""Optimizers: gradients on parameters, updates against PyTorch and the papers, state."""

import numpy as np
import pytest

from lucid_c import Tensor, nn


def test_the_gradient_of_a_parameter():
    p = nn.Parameter(np.ones((2, 3), np.float32))
    assert p.grad is None
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    p.grad = source
    source[0, 0] = 100  # copied in
    kept = p.grad
    assert isinstance(kept, Tensor) and kept.shape == (2, 3)
    np.testing.assert_array_equal(kept, np.arange(6).reshape(2, 3))
    kept[0, 1] = -1  # the gradient's own memory
    assert p.grad.numpy()[0, 1] == -1
    p.grad = Tensor(np.zeros((3, 2), np.float32).T)  # not contiguous
    assert not p.grad.numpy().any() and kept.numpy()[0, 1] == -1
    for bad, error in [
        (np.zeros((3, 2), np.float32), ValueError),
        (np.zeros(6, np.float32), ValueError),
        (np.zeros((2, 3)), TypeError),
        (np.zeros((2, 3), np.int64), TypeError),
        ([[0.0] * 3] * 2, TypeError),
        (1.0, TypeError),
    ]:
        with pytest.raises(error, match="grad"):
            p.grad = bad
        assert p.grad is not None
    p.grad = None
    assert p.grad is None
    p.grad = source
    del p.grad
    assert p.grad is None
    x = Tensor([1.0])
    assert x.grad is None
    x.grad = None
    with pytest.raises(RuntimeError):
        x.grad = Tensor([1.0])


def test_two_wrappers_of_a_parameter_share_the_gradient():
    layer = nn.Linear(3, 2)
    layer.weight.grad = np.ones((2, 3), np.float32)
    same = dict(layer.named_parameters())["weight"]
    assert same.grad.numpy().sum() == 6
