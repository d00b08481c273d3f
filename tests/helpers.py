# SPDX-License-Identifier: MIT
"""What several test files need: inputs, comparisons, small fakes.  No PyTorch here."""

import numpy as np

import refweights

# What a wrong argument may raise.  A crash, a hang or a SystemError is none of these.
BAD_INPUT = (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError)


def draw(name, shape, std=1.0):
    """float32 values that depend on the name, with a different drift along every axis, so that
    swapped axes, a shifted window or a dropped channel change every sum."""
    shape = tuple(shape)
    x = refweights.bell64(name, shape, 0.0, std, 7)
    for axis, size in enumerate(shape):
        ramp = np.arange(size) / max(size, 1) - 0.3
        view = [1] * len(shape)
        view[axis] = size
        x = x + (0.11 * std * (axis + 2)) * ramp.reshape(view)
    return x.astype(np.float32)


def assert_close(actual, expected, rel=1e-5, dtype=np.float32):
    """Equal shape and dtype, non-finite values in the same places, and every difference within
    ``rel`` of the largest finite |expected|."""
    got, want = np.asarray(actual), np.asarray(expected)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    if dtype is not None:
        assert got.dtype == dtype, f"dtype {got.dtype}, expected {np.dtype(dtype)}"
    if got.size == 0:
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), "NaN in other places")
    infinite = np.isinf(want)
    np.testing.assert_array_equal(got[infinite], want[infinite], "infinities differ")
    finite = np.isfinite(want)
    if not finite.any():
        return
    scale = np.abs(want[finite]).max()
    error = np.where(finite, np.abs(got - np.where(finite, want, 0.0)), 0.0)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    assert error[worst] <= rel * scale, (
        f"at {tuple(int(i) for i in worst)}: {got[worst]!r}, expected {want[worst]!r}; "
        f"error {error[worst]:.3g} is {error[worst] / max(scale, 1e-300):.3g} of the largest "
        f"|value| {scale:.6g}, allowed {rel:g}"
    )


def assert_same_bits(actual, expected):
    """Equal bit by bit (NaN included)."""
    got, want = np.asarray(actual), np.asarray(expected)
    assert got.shape == want.shape and got.dtype == want.dtype
    a = np.ascontiguousarray(got).view(np.uint8)
    b = np.ascontiguousarray(want).view(np.uint8)
    if not np.array_equal(a, b):
        where = np.argwhere(got != want)
        first = tuple(int(i) for i in where[0]) if len(where) else "?"
        largest = float(np.nanmax(np.abs(got.astype(np.float64) - want.astype(np.float64))))
        raise AssertionError(
            f"{len(where)} of {got.size} values differ, the first at {first}, "
            f"by at most {largest:.3g}"
        )


def state_arrays(module):
    """The state dict as a dict of NumPy copies."""
    return {k: np.array(v) for k, v in module.state_dict().items()}


def reference_weights(module, seed=1):
    """Fills a module with ``refweights`` and gives them back as arrays."""
    shapes = {k: tuple(np.shape(np.asarray(v))) for k, v in module.state_dict().items()}
    weights = refweights.generate(shapes, seed)
    module.load_state_dict(weights)
    return weights


def fill(module, name):
    """Fills a small module with values drawn from ``name``; running variances stay positive."""
    values = {}
    for key, value in module.state_dict().items():
        shape = np.shape(np.asarray(value))
        x = draw(f"{name}:{key}", shape, 0.5)
        values[key] = np.abs(x) + np.float32(0.5) if key.endswith("running_var") else x
    module.load_state_dict(values)
    return values


def ids(case):
    """A readable id of a case that is a dict or a tuple."""
    if isinstance(case, dict):
        case = case.items()
        return "-".join(f"{k}{_short(v)}" for k, v in case)
    return _short(case)


def _short(v):
    if isinstance(v, (tuple, list)):
        return "x".join(_short(i) for i in v)
    return str(v)
