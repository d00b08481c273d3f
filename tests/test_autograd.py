# SPDX-License-Identifier: MIT
"""Gradients from Python: accumulation, modes, values that are used twice."""

import numpy as np
import pytest

import lucid_c
from lucid_c import Tensor, nn


def leaf(values):
    return Tensor(np.array(values, np.float32), requires_grad=True)


def test_products_and_accumulation():
    x, y = leaf([1.0, -2.0, 3.0]), leaf([4.0, 5.0, -6.0])
    (x * y + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5, 6, -5])
    np.testing.assert_array_equal(y.grad.numpy(), [1, -2, 3])
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [7, 2, 1])


def test_no_grad_and_detach():
    x = leaf([1.0, 2.0])
    with lucid_c.no_grad():
        y = x * 3
    with pytest.raises(RuntimeError):
        y.sum().backward()
    (x.detach() * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 2])
    with pytest.raises(RuntimeError):  # needs a gradient to start from
        (x * 2).backward()


def test_an_inner_value_that_two_results_use():
    class Two(nn.Module):
        def forward(self, x):
            self.inner = x * 2
            return self.inner * self.inner

    module, x = Two(), leaf([1.0, -3.0])
    y = module(x)
    (y.sum() + module.inner.sum()).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10, -22])
