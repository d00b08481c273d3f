# SPDX-License-Identifier: MIT
"""The grids of shapes and attributes, shared by the tests of the oracle and of the operators."""

import numpy as np

from helpers import draw


def conv(x, w, bias=True, **options):
    return {"x": x, "w": w, **({} if bias else {"bias": False}), **options}


# x is (N, C, H, W) or (C, H, W); w is (OC, C/groups, KH, KW).
CONVS = [
    # the smallest
    conv((1, 1, 1, 1), (1, 1, 1, 1)),
    conv((1, 1, 1, 1), (1, 1, 1, 1), bias=False),
    conv((1, 1, 1, 1), (2, 1, 3, 3), padding=1),
    conv((1, 3, 1, 13), (5, 3, 1, 3)),
    conv((1, 3, 13, 1), (5, 3, 3, 1)),
    conv((1, 2, 2, 2), (3, 2, 3, 3), padding=1),
    # 1x1, channel counts around the block sizes 8 and 16
    *(
        conv((1, c, 5, 7), (oc, c, 1, 1))
        for c, oc in [
            (1, 7),
            (3, 8),
            (7, 9),
            (8, 8),
            (9, 15),
            (15, 16),
            (16, 17),
            (17, 31),
            (31, 32),
            (32, 33),
            (33, 1),
            (64, 24),
            (67, 131),
            (256, 64),
        ]
    ),
    conv((2, 19, 7, 7), (23, 19, 1, 1), stride=2),
    conv((3, 16, 9, 11), (16, 16, 1, 1), stride=(2, 3), bias=False),
    conv((1, 8, 4, 4), (8, 8, 1, 1), padding=2),
    # 3x3
    *(
        conv((1, c, 7, 11), (oc, c, 3, 3), padding=1)
        for c, oc in [
            (1, 1),
            (3, 16),
            (5, 8),
            (8, 16),
            (13, 13),
            (16, 8),
            (17, 19),
            (24, 40),
            (32, 32),
            (47, 48),
            (64, 65),
        ]
    ),
    conv((2, 3, 11, 13), (7, 3, 3, 3)),
    conv((5, 16, 3, 3), (16, 16, 3, 3), padding=1),
    conv((2, 16, 56, 3), (16, 16, 3, 3), padding=1, bias=False),
    conv((1, 16, 3, 57), (32, 16, 3, 3), padding=1),
    conv((2, 11, 14, 14), (12, 11, 3, 3), stride=2, padding=1),
    conv((2, 16, 15, 13), (16, 16, 3, 3), stride=2, padding=1, bias=False),
    conv((1, 16, 16, 17), (24, 16, 3, 3), stride=(1, 2), padding=(0, 1)),
    conv((1, 16, 17, 16), (24, 16, 3, 3), stride=(2, 1), padding=(1, 0)),
    conv((1, 7, 23, 19), (9, 7, 3, 3), stride=5),
    conv((1, 4, 5, 5), (4, 4, 3, 3), padding=4),
    conv((1, 4, 3, 2), (4, 4, 3, 3), padding=(5, 7), stride=(3, 2)),
    # dilation
    conv((1, 5, 17, 19), (6, 5, 3, 3), dilation=2, padding=2),
    conv((2, 8, 17, 19), (16, 8, 3, 3), dilation=(2, 3), padding=(1, 4), stride=(2, 1)),
    conv((1, 16, 13, 11), (16, 16, 3, 3), dilation=(1, 5), padding=3),
    conv((1, 3, 30, 29), (4, 3, 5, 2), dilation=(4, 7)),
    # stems
    conv((1, 3, 37, 41), (64, 3, 7, 7), stride=2, padding=3, bias=False),
    conv((2, 3, 32, 33), (32, 3, 3, 3), stride=2, padding=1, bias=False),
    conv((1, 1, 29, 31), (10, 1, 7, 7), stride=2, padding=3),
    conv((1, 4, 29, 31), (17, 4, 7, 7), stride=2, padding=3),
    # other kernels
    conv((1, 3, 9, 10), (5, 3, 2, 2)),
    conv((1, 3, 9, 10), (5, 3, 4, 2), stride=2, padding=(1, 0)),
    conv((1, 6, 12, 9), (7, 6, 5, 5), padding=2),
    conv((2, 8, 9, 14), (8, 8, 1, 7), padding=(0, 3)),
    conv((2, 8, 14, 9), (8, 8, 7, 1), padding=(3, 0)),
    conv((1, 3, 13, 15), (4, 3, 11, 13)),
    conv((1, 3, 11, 13), (4, 3, 11, 13)),
    conv((3, 40, 7, 7), (21, 40, 7, 7)),
    # groups
    conv((1, 4, 5, 7), (6, 2, 3, 3), groups=2, padding=1),
    conv((2, 12, 9, 7), (12, 1, 3, 3), groups=12, padding=1),
    conv((1, 16, 9, 7), (16, 1, 3, 3), groups=16, padding=1, stride=2, bias=False),
    conv((1, 17, 6, 7), (34, 1, 3, 3), groups=17, padding=1),
    conv((1, 32, 8, 8), (32, 1, 5, 5), groups=32, padding=2, dilation=1),
    conv((1, 128, 7, 5), (128, 4, 3, 3), groups=32, padding=1, bias=False),
    conv((2, 24, 5, 6), (36, 8, 3, 3), groups=3, padding=1),
    conv((1, 32, 9, 8), (64, 16, 3, 3), groups=2, stride=2, padding=1),
    conv((1, 80, 7, 6), (160, 10, 3, 3), groups=8, padding=1, bias=False),
    conv((1, 96, 5, 5), (96, 24, 3, 3), groups=4, padding=1),
    conv((1, 120, 3, 4), (120, 40, 3, 3), groups=3, padding=1),
    conv((1, 30, 1, 1), (21, 10, 1, 1), groups=3),
    conv((2, 64, 1, 1), (32, 16, 1, 1), groups=4),
    conv((1, 14, 5, 5), (4, 7, 1, 1), groups=2),
    # named paddings
    conv((1, 3, 8, 9), (5, 3, 3, 3), padding="same"),
    conv((1, 3, 8, 9), (5, 3, 2, 4), padding="same"),
    conv((2, 16, 8, 9), (16, 16, 4, 5), padding="same", dilation=(2, 1)),
    conv((1, 3, 8, 9), (5, 3, 3, 3), padding="valid", stride=2),
    conv((1, 8, 6, 6), (8, 2, 2, 2), padding="same", groups=4),
    # unbatched
    conv((3, 7, 9), (5, 3, 3, 3), padding=1),
    conv((16, 7, 9), (16, 4, 3, 3), stride=2, groups=4),
    # one-element lists, pairs as lists
    conv((1, 3, 8, 9), (5, 3, 3, 3), padding=[1, 2], stride=[2, 1], dilation=[1, 1]),
]


def _random_convs(count):
    rng = np.random.default_rng(20240607)
    found = []
    while len(found) < count:
        groups = int(rng.choice([1, 1, 1, 2, 3, 4, 5]))
        cg, og = (int(rng.integers(1, 21)) for _ in range(2))
        kh, kw = (int(rng.choice([1, 2, 3, 3, 5, 7])) for _ in range(2))
        h, w = (int(rng.integers(1, 24)) for _ in range(2))
        pad = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
        dil = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        if h + 2 * pad[0] < dil[0] * (kh - 1) + 1 or w + 2 * pad[1] < dil[1] * (kw - 1) + 1:
            continue
        found.append(
            conv(
                (int(rng.integers(1, 4)), cg * groups, h, w),
                (og * groups, cg, kh, kw),
                bias=bool(rng.integers(2)),
                padding=pad,
                dilation=dil,
                groups=groups,
                stride=(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
            )
        )
    return found


CONVS += _random_convs(80)


def conv_arrays(case):
    """x, w, bias or None, options of a case."""
    x, w = draw("conv:x", case["x"]), draw("conv:w", case["w"], 0.3)
    b = draw("conv:b", case["w"][:1]) if case.get("bias", True) else None
    options = {k: v for k, v in case.items() if k not in ("x", "w", "bias")}
    return x, w, b, options


MAX_POOLS = [
    {"x": (1, 1, 1, 1), "kernel_size": 1},
    {"x": (2, 3, 7, 11), "kernel_size": 2},
    {"x": (1, 64, 13, 17), "kernel_size": 3, "stride": 2, "padding": 1},
    {"x": (2, 17, 12, 10), "kernel_size": 3, "stride": 2, "padding": 1},
    {"x": (1, 5, 12, 10), "kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"x": (1, 9, 11, 13), "kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)},
    {
        "x": (1, 16, 11, 13),
        "kernel_size": (2, 5),
        "stride": (1, 4),
        "padding": (1, 2),
        "ceil_mode": True,
    },
    {"x": (3, 7, 19, 23), "kernel_size": 3, "dilation": 2},
    {"x": (1, 8, 19, 23), "kernel_size": (3, 2), "stride": 2, "padding": 1, "dilation": (2, 5)},
    {
        "x": (1, 8, 20, 23),
        "kernel_size": 3,
        "stride": 3,
        "padding": 1,
        "dilation": 3,
        "ceil_mode": True,
    },
    {"x": (1, 3, 9, 9), "kernel_size": 9},
    {"x": (1, 3, 4, 5), "kernel_size": 2, "stride": 5, "ceil_mode": True},
    {"x": (1, 33, 3, 3), "kernel_size": 3, "stride": 1, "padding": 1},
    {"x": (1, 3, 1, 9), "kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"x": (5, 7, 9), "kernel_size": 3, "stride": 2, "padding": 1},
]

AVG_POOLS = [
    {"x": (1, 1, 1, 1), "kernel_size": 1},
    {"x": (2, 3, 7, 11), "kernel_size": 2},
    {
        "x": (1, 16, 7, 9),
        "kernel_size": 2,
        "stride": 2,
        "ceil_mode": True,
        "count_include_pad": False,
    },
    {"x": (1, 40, 14, 13), "kernel_size": 3, "stride": 2, "padding": 1},
    {"x": (2, 40, 14, 13), "kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"x": (1, 5, 12, 10), "kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {
        "x": (1, 5, 12, 10),
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
        "ceil_mode": True,
        "count_include_pad": False,
    },
    {"x": (1, 9, 11, 13), "kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)},
    {
        "x": (1, 9, 11, 13),
        "kernel_size": (2, 5),
        "stride": (3, 4),
        "padding": (1, 2),
        "ceil_mode": True,
    },
    {"x": (1, 9, 11, 13), "kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5},
    {
        "x": (1, 9, 11, 13),
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
        "divisor_override": 1,
        "ceil_mode": True,
        "count_include_pad": False,
    },
    {"x": (1, 3, 7, 7), "kernel_size": 7},
    {"x": (1, 17, 4, 5), "kernel_size": 2, "stride": 5, "ceil_mode": True},
    {"x": (3, 8, 3, 3), "kernel_size": 3, "stride": 1, "padding": 1},
    # smaller than the window: ceil_mode lets one window hang over, as ResNeSt's shortcut needs
    {
        "x": (1, 24, 1, 7),
        "kernel_size": 2,
        "stride": 2,
        "ceil_mode": True,
        "count_include_pad": False,
    },
    {"x": (2, 3, 1, 1), "kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"x": (5, 7, 9), "kernel_size": 3, "stride": 2, "padding": 1},
]
