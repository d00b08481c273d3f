# SPDX-License-Identifier: MIT
"""ImageNet's classes, the best classes of some logits, and the model cards."""

import math
import re

import numpy as np
import pytest

from lucid_c import imagenet
from lucid_c.models import _cards as cards


def test_classes():
    names, ids = imagenet.class_names(), imagenet.wordnet_ids()
    assert len(names) == len(ids) == 1000
    assert all(isinstance(n, str) and n and n == n.strip() for n in names)
    assert all(re.fullmatch(r"n\d{8}", i) for i in ids)
    assert ids == sorted(set(ids)), "class indices follow the order of the WordNet ids"
    assert (names[0], ids[0]) == ("tench", "n01440764")
    assert (names[1], ids[1]) == ("goldfish", "n01443537")
    assert (names[281], ids[281]) == ("tabby", "n02123045")
    assert ids[999] == "n15075141"
    twice = {n for n in names if names.count(n) > 1}
    assert twice == {"crane", "maillot"}


def test_class_names_are_the_callers_own():
    imagenet.class_names().clear()
    imagenet.wordnet_ids()[0] = "changed"
    assert len(imagenet.class_names()) == 1000
    assert imagenet.wordnet_ids()[0] == "n01440764"


def test_class_name():
    assert imagenet.class_name(1) == imagenet.class_name(np.int64(1)) == "goldfish"
    for index in (-1, 1000):
        with pytest.raises(IndexError, match=f"{index} .*999"):
            imagenet.class_name(index)
    with pytest.raises(TypeError):
        imagenet.class_name("goldfish")


def test_topk_order_and_probabilities():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4, 1000)).astype(np.float32) * 5
    result = imagenet.topk(logits, 7)
    assert len(result) == 4
    for row, best in zip(logits, result, strict=True):
        weights = [math.exp(float(v)) for v in row]
        order = sorted(range(1000), key=lambda i, row=row: (-row[i], i))[:7]
        assert [b[0] for b in best] == order
        assert [b[1] for b in best] == [imagenet.class_name(i) for i in order]
        np.testing.assert_allclose(
            [b[2] for b in best], [weights[i] / math.fsum(weights) for i in order], rtol=1e-12
        )
        assert [tuple(map(type, b)) for b in best] == [(int, str, float)] * 7
    assert len(imagenet.topk(logits)[0]) == 5


def test_topk_other_class_counts_and_names():
    assert imagenet.topk([1.0, 3.0, 3.0], k=2) == [
        [
            (1, "1", pytest.approx(1 / (2 + math.exp(-2)))),
            (2, "2", pytest.approx(1 / (2 + math.exp(-2)))),
        ]
    ]
    assert [b[1] for b in imagenet.topk([[0, 1, 2]], 9, ["cat", "dog", "cow"])[0]] == [
        "cow",
        "dog",
        "cat",
    ]
    assert imagenet.topk(np.zeros((1, 1000)), 2, range(1000))[0] == [
        (0, "0", 0.001),
        (1, "1", 0.001),
    ]
    assert [b[0] for b in imagenet.topk(np.arange(1000) % 2)[0]] == [1, 3, 5, 7, 9]
    assert imagenet.topk(np.zeros((0, 10))) == []
    assert imagenet.topk([[5.0]]) == [[(0, "0", 1.0)]]


def test_topk_extreme_logits():
    assert imagenet.topk([1e4, 0.0, -1e4])[0] == [(0, "0", 1.0), (1, "1", 0.0), (2, "2", 0.0)]
    assert imagenet.topk([-1e30, -1e30])[0] == [(0, "0", 0.5), (1, "1", 0.5)]
    inf = math.inf
    assert imagenet.topk([0.0, inf, -inf, inf])[0] == [
        (1, "1", 0.5),
        (3, "3", 0.5),
        (0, "0", 0.0),
        (2, "2", 0.0),
    ]
    nan = imagenet.topk([[0.0, math.nan, 2.0, -inf], [0.0, 0.0, 0.0, 0.0]])
    assert [b[0] for b in nan[0]] == [2, 0, 3, 1]
    assert all(math.isnan(b[2]) for b in nan[0])
    assert [b[2] for b in nan[1]] == [0.25] * 4, "a neighbour's NaN stays there"
    assert all(math.isnan(b[2]) for b in imagenet.topk([-inf, -inf])[0])


@pytest.mark.parametrize(
    "logits, options, error, text",
    [
        (np.zeros((2, 0)), {}, ValueError, r"\(2, 0\)"),
        (np.zeros((1, 2, 3)), {}, ValueError, r"\(1, 2, 3\)"),
        (1.0, {}, ValueError, r"\(\)"),
        (np.zeros(3, complex), {}, TypeError, "complex128"),
        (["a", "b"], {}, TypeError, "<U1"),
        (np.zeros(3), {"k": 0}, ValueError, "not 0"),
        (np.zeros(3), {"k": 1.5}, TypeError, "integer"),
        (np.zeros(3), {"names": ["a", "b"]}, ValueError, "2 names for 3 classes"),
    ],
)
def test_topk_bad_input(logits, options, error, text):
    with pytest.raises(error, match=text):
        imagenet.topk(logits, **options)


class Counter:
    """Parameters, and operations as the model cards count them, from the papers' tables."""

    def __init__(self, height, width):
        self.size = (height, width)
        self.parameters = self.flops = 0

    def conv(self, size, c_in, c_out, kernel=1, stride=1, groups=1, bias=False):
        out = tuple((s - 1) // stride + 1 for s in size)
        values = c_out * (c_in // groups) * kernel * kernel + bias * c_out
        self.parameters += values
        self.flops += values * out[0] * out[1]
        return out

    def norm(self, size, c):
        self.parameters += 2 * c
        self.flops += 2 * c * size[0] * size[1]

    def avg_pool(self, size, c, stride):
        out = tuple((s - 1) // stride + 1 for s in size)
        self.flops += c * out[0] * out[1]
        return out

    def conv_norm(self, size, c_in, c_out, *args, **kwargs):
        out = self.conv(size, c_in, c_out, *args, **kwargs)
        self.norm(out, c_out)
        return out

    def basic(self, size, c_in, planes, stride):
        out = self.conv_norm(size, c_in, planes, 3, stride)
        self.conv_norm(out, planes, planes, 3)
        if stride > 1:
            self.conv_norm(size, c_in, planes, 1, stride)
        return out, planes

    def bottleneck(self, size, c_in, planes, stride, groups=1, width=64):
        mid = planes * width // 64 * groups
        self.conv_norm(size, c_in, mid)
        out = self.conv_norm(size, mid, mid, 3, stride, groups)
        self.conv_norm(out, mid, 4 * planes)
        if c_in != 4 * planes:
            self.conv_norm(size, c_in, 4 * planes, 1, stride)
        return out, 4 * planes

    def preact(self, size, c_in, planes, stride):
        self.norm(size, c_in)
        self.conv_norm(size, c_in, planes)
        out = self.conv_norm(size, planes, planes, 3, stride)
        self.conv(out, planes, 4 * planes)
        if c_in != 4 * planes:
            self.conv_norm(size, c_in, 4 * planes, 1, stride)
        return out, 4 * planes

    def resnest(self, size, c_in, planes, stride, groups=1, width=64, radix=2, avd_first=False):
        mid = planes * width // 64 * groups
        self.conv_norm(size, c_in, mid)
        out = size
        if stride > 1 and avd_first:
            out = self.avg_pool(out, mid, stride)
        self.conv_norm(out, mid, mid * radix, 3, 1, groups * radix)
        attention = max(32, mid * radix // 4)
        self.conv_norm((1, 1), mid, attention, groups=groups, bias=True)
        self.conv((1, 1), attention, mid * radix, groups=groups, bias=True)
        if stride > 1 and not avd_first:
            out = self.avg_pool(out, mid, stride)
        self.conv_norm(out, mid, 4 * planes)
        if c_in != 4 * planes:
            if stride > 1:
                self.avg_pool(size, c_in, stride)
            self.conv_norm(out, c_in, 4 * planes)
        return out, 4 * planes

    def network(self, block, layers, deep_stem=None, **options):
        size, c = self.size, 64
        if deep_stem:
            c = 2 * deep_stem
            size = self.conv_norm(size, 3, deep_stem, 3, 2)
            self.conv_norm(size, deep_stem, deep_stem, 3)
            self.conv_norm(size, deep_stem, c, 3)
        else:
            size = self.conv_norm(size, 3, c, 7, 2)
        size = tuple((s - 1) // 2 + 1 for s in size)
        for stage, blocks in enumerate(layers):
            for i in range(blocks):
                stride = 2 if stage and not i else 1
                size, c = getattr(self, block)(size, c, 64 << stage, stride, **options)
        self.flops += c * (size[0] * size[1] + 1)
        self.parameters += 1000 * c + 1000


def _resnext_options(groups, width):
    return {"groups": groups, "width": width}


NETWORKS = {
    "resnet_18": ("basic", (2, 2, 2, 2), {}),
    "resnet_34": ("basic", (3, 4, 6, 3), {}),
    "resnet_50": ("bottleneck", (3, 4, 6, 3), {}),
    "resnet_101": ("bottleneck", (3, 4, 23, 3), {}),
    "resnet_152": ("bottleneck", (3, 8, 36, 3), {}),
    "resnet_200": ("preact", (3, 24, 36, 3), {}),
    "resnet_269": ("preact", (3, 30, 48, 8), {}),
    "resnet_1001": ("preact", (3, 94, 94, 3), {}),
    "wide_resnet_50": ("bottleneck", (3, 4, 6, 3), {"width": 128}),
    "wide_resnet_101": ("bottleneck", (3, 4, 23, 3), {"width": 128}),
    "resnext_50_32x4d": ("bottleneck", (3, 4, 6, 3), _resnext_options(32, 4)),
    "resnext_101_32x4d": ("bottleneck", (3, 4, 23, 3), _resnext_options(32, 4)),
    "resnext_101_32x8d": ("bottleneck", (3, 4, 23, 3), _resnext_options(32, 8)),
    "resnext_101_32x16d": ("bottleneck", (3, 4, 23, 3), _resnext_options(32, 16)),
    "resnext_101_32x32d": ("bottleneck", (3, 4, 23, 3), _resnext_options(32, 32)),
    "resnext_101_64x4d": ("bottleneck", (3, 4, 23, 3), _resnext_options(64, 4)),
    "resnest_14": ("resnest", (1, 1, 1, 1), {"deep_stem": 32}),
    "resnest_26": ("resnest", (2, 2, 2, 2), {"deep_stem": 32}),
    "resnest_50": ("resnest", (3, 4, 6, 3), {"deep_stem": 32}),
    "resnest_101": ("resnest", (3, 4, 23, 3), {"deep_stem": 64}),
    "resnest_200": ("resnest", (3, 24, 36, 3), {"deep_stem": 64}),
    "resnest_269": ("resnest", (3, 30, 48, 8), {"deep_stem": 64}),
    "resnest_50_4s2x40d": (
        "resnest",
        (3, 4, 6, 3),
        {"deep_stem": 32, "groups": 2, "width": 40, "radix": 4, "avd_first": True},
    ),
    "resnest_50_1s4x24d": (
        "resnest",
        (3, 4, 6, 3),
        {"deep_stem": 32, "groups": 4, "width": 24, "radix": 1, "avd_first": True},
    ),
    "resnet200": ("bottleneck", (3, 24, 36, 3), {}),
}


def counted(card):
    block, layers, options = NETWORKS[card.name]
    counter = Counter(card.image_size, card.image_size * 1546 // 1213)
    counter.network(block, layers, **options)
    return counter


def test_cards_are_the_24_variants():
    assert len(cards.CARDS) == 24
    assert set(NETWORKS) == set(cards.CARDS) | {"resnet200"}
    for name, card in cards.CARDS.items():
        assert card.name == name
        assert card.family == re.sub(r"^(wide_)?(res\w+?)_.*", r"\2", name)


@pytest.mark.parametrize("name", NETWORKS)
def test_card_counts(name):
    card = cards.find_card(name)
    counter = counted(card)
    assert counter.parameters == card.parameters
    assert counter.flops == card.flops


@pytest.mark.parametrize("name", cards.CARDS)
def test_card_lucid2_counts(name):
    card = cards.CARDS[name]
    stem = NETWORKS[name][2].get("deep_stem")
    if stem is None:
        assert card.parameters_lucid2 is None
    else:  # the last norm of the stem: a weight and a bias for each of its 2 * stem channels
        assert card.parameters - card.parameters_lucid2 == 2 * 2 * stem


def test_card_accuracy_and_config():
    for card in cards.CARDS.values():
        assert (card.top1 is None) == (card.top5 is None) == (card.family != "resnest")
        if card.top1:
            assert 75 < card.top1 < 85 and 92 < card.top5 < 97
        else:
            assert (card.image_size, card.crop, card.interpolation) == (224, 0.875, "bilinear")
        assert card.mean == (0.485, 0.456, 0.406)
        assert card.std == (0.229, 0.224, 0.225)
    big = cards.CARDS["resnest_269"]
    assert (big.image_size, big.crop, big.interpolation) == (416, 0.928, "bicubic")
    assert (big.top1, big.top5) == (84.53, 96.99)


def test_find_card():
    for alias, name in {
        "resnest50d": "resnest_50",
        "resnet50": "resnet_50",
        "resnest101e": "resnest_101",
        "wide_resnet50_2": "wide_resnet_50",
        "resnext50_32x4d": "resnext_50_32x4d",
        "resnest14d": "resnest_14",
        "resnest50d_4s2x40d": "resnest_50_4s2x40d",
        "resnest_26": "resnest_26",
    }.items():
        assert cards.find_card(alias).name == name
    assert len(cards.ALIASES) == sum(len(c.aliases) for c in cards.CARDS.values())
    assert not set(cards.ALIASES) & set(cards.CARDS)
    assert cards.find_card("resnet200").parameters != cards.CARDS["resnet_200"].parameters
    with pytest.raises(ValueError, match="'resnest_5o'.*did you mean.*resnest_50"):
        cards.find_card("resnest_5o")
    with pytest.raises(ValueError, match="'vit'.*known: resnet_18"):
        cards.find_card("vit")
