# SPDX-License-Identifier: MIT
"""Deterministic network weights, inputs and labels for reference tests.  NumPy only.

Every tensor depends on nothing but (seed, its own name, its shape) and, for one rule, on which
other names exist.  No framework RNG and no floating-point library function is involved:

  words   PCG64 seeded by ``numpy.random.PCG64([seed, crc32(name)])`` and read with ``random_raw``:
          one 64-bit word per element, in C (row-major) order.  NumPy guarantees this stream.
  uniform u = (word >> 40) * 2**-24, exact in float64; value = float32(lo + (hi - lo) * u).
  bell    the four 16-bit digits of the word are added: s = d0 + d1 + d2 + d3 - 131070, an integer
          of mean 0 and variance (2**32 - 1) / 3; value = float32(mean + s * (std / BELL_STD)).
          The law is the Irwin-Hall one of order 4: close to normal, cut at +-3.46 std.

Both are integer arithmetic, one or two float64 operations and one rounding to float32, so the bits
are the same on every machine and easy to make again in another language (see ``crc`` to compare).

Rules by role (``generate``; names are those of timm/torchvision ResNets, or any ending alike):

  *.weight 4-D        convolution   bell, std = sqrt(2 / (shape[1] * shape[2] * shape[3]))
                                    (He, fan in)
  *.weight 2-D        linear        bell, std = sqrt(1 / shape[1])
  *.weight 1-D        batch norm    uniform(0.8, 1.2); if it is the LAST norm of a residual branch:
                                    uniform(0.2, 0.6) / sqrt(1 + b), b = index of the
                                    block in its stage
  *.bias              norm beta and convolution bias: bell, std 0.1;
                                    of a linear layer: bell, std 0.05
  *.running_mean      bell, std 0.2
  *.running_var       uniform(0.5, 1.5)
  *.num_batches_tracked   0 (int64)

"Last norm": name ``<stage>.<b>.bn<k>.weight`` with ``<stage>.<b>.conv<k+1>.weight`` absent and norm
length == conv<k>'s output channels.  Pre-activation blocks (norm before the convolution, so no norm
after the last one) have the factor uniform(0.2, 0.6)-like put on the last convolution instead:
its std is multiplied by 0.4 / sqrt(1 + b).  This keeps activations of order 1 through any depth.
"""

import re
import zlib

import numpy as np

BELL_STD = float(np.sqrt((2.0**32 - 1.0) / 3.0))
_BLOCK = re.compile(r"^(?P<blk>.*?layer\d+\.(?P<b>\d+))\.(?P<kind>bn|conv)(?P<k>\d+)\.weight$")


def words(name, count, seed):
    """``count`` raw 64-bit words of the stream (seed, name)."""
    bits = np.random.PCG64([int(seed), zlib.crc32(name.encode("utf-8"))])
    return bits.random_raw(int(count))


def _count(shape):
    n = 1
    for s in shape:
        n *= int(s)
    return n


def uniform64(name, shape, lo, hi, seed):
    u = (words(name, _count(shape), seed) >> np.uint64(40)).astype(np.float64) * 2.0**-24
    return (lo + (hi - lo) * u).reshape(shape)


def bell64(name, shape, mean, std, seed):
    w = words(name, _count(shape), seed)
    low = np.uint64(0xFFFF)
    digits = (w & low) + ((w >> np.uint64(16)) & low) + ((w >> np.uint64(32)) & low)
    s = (digits + (w >> np.uint64(48))).astype(np.int64) - 131070
    return (mean + s.astype(np.float64) * (std / BELL_STD)).reshape(shape)


def uniform(name, shape, lo, hi, seed):
    """float32 array, uniform in [lo, hi)."""
    return uniform64(name, shape, lo, hi, seed).astype(np.float32)


def bell(name, shape, mean, std, seed):
    """float32 array, bell-shaped with the given mean and standard deviation."""
    return bell64(name, shape, mean, std, seed).astype(np.float32)


def image(shape, seed, name="input"):
    """float32 input batch (N, C, H, W): fine noise (bell, std 0.8) plus a coarse 4x4 mosaic
    (bell, std 0.8, stream ``name + ".tile"``, shape (N, C, 4, 4)); pixel (y, x) lies in tile
    (y*4//H, x*4//W).  The two are added in float64 and rounded once, so images differ in colour,
    in layout and in detail."""
    n, c, h, w = (int(s) for s in shape)
    tile = bell64(name + ".tile", (n, c, 4, 4), 0.0, 0.8, seed)
    ty, tx = np.arange(h) * 4 // h, np.arange(w) * 4 // w
    fine = bell64(name, (n, c, h, w), 0.0, 0.8, seed)
    return (fine + tile[:, :, ty][:, :, :, tx]).astype(np.float32)


def labels(count, classes, seed, name="labels"):
    """int64 class numbers in 0 .. classes-1."""
    return ((words(name, count, seed) >> np.uint64(33)) % np.uint64(classes)).astype(np.int64)


def sample_index(name, size, count, seed=0):
    """Sorted distinct flat positions at which a big array is recorded: all of them if
    size <= count, else the first ``count`` distinct values of (word >> 20) % size (``count`` is
    reached in practice)."""
    size, count = int(size), int(count)
    if size <= count:
        return np.arange(size, dtype=np.int64)
    raw = words("index:" + name, 8 * count, seed)
    values = ((raw >> np.uint64(20)) % np.uint64(size)).astype(np.int64)
    _, first = np.unique(values, return_index=True)
    return np.sort(values[np.sort(first)[:count]])


def one(name, shape, seed, shapes=None):
    """The tensor ``name`` of a state dict whose names and shapes are ``shapes`` (may be None)."""
    shape = tuple(int(s) for s in shape)
    shapes = shapes or {}
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_mean":
        return bell(name, shape, 0.0, 0.2, seed)
    if leaf == "running_var":
        return uniform(name, shape, 0.5, 1.5, seed)
    if leaf == "bias":
        owner = shapes.get(name[:-4] + "weight", ())
        return bell(name, shape, 0.0, 0.05 if len(owner) == 2 else 0.1, seed)
    if leaf != "weight":
        raise ValueError("no rule for " + name)
    if len(shape) == 2:
        return bell(name, shape, 0.0, float(np.sqrt(1.0 / shape[1])), seed)
    hit = _BLOCK.match(name)
    last, factor = False, 1.0
    if hit:
        blk, k = hit["blk"], int(hit["k"])
        factor = 1.0 / float(np.sqrt(1.0 + int(hit["b"])))
        following = (f"{blk}.conv{k + 1}.weight", f"{blk}.bn{k + 1}.weight")
        if following[0] not in shapes and following[1] not in shapes:
            conv = shapes.get(f"{blk}.conv{k}.weight")
            norm = shapes.get(f"{blk}.bn{k}.weight")
            if conv is not None and norm is not None:
                after = int(norm[0]) == int(conv[0])
                last = after if hit["kind"] == "bn" else not after
    if len(shape) == 4:
        std = float(np.sqrt(2.0 / (shape[1] * shape[2] * shape[3])))
        return bell(name, shape, 0.0, std * 0.4 * factor if last else std, seed)
    if len(shape) == 1:
        if last:
            return uniform(name, shape, 0.2 * factor, 0.6 * factor, seed)
        return uniform(name, shape, 0.8, 1.2, seed)
    raise ValueError(f"no rule for {name} {shape}")


def generate(shapes, seed):
    """All tensors of a state dict.  ``shapes``: mapping name -> shape.  Returns name -> array."""
    shapes = {k: tuple(int(s) for s in v) for k, v in dict(shapes).items()}
    return {k: one(k, v, seed, shapes) for k, v in shapes.items()}


def crc(arrays, order=None):
    """crc32 over the little-endian bytes of the float32/int64 tensors, in sorted name order."""
    c = 0
    for k in order or sorted(arrays):
        a = np.ascontiguousarray(arrays[k])
        c = zlib.crc32(a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes(), c)
    return c
