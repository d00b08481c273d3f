# SPDX-License-Identifier: MIT
"""The same networks in plain torch.nn, with the same names of parameters as lucid_c's.

Written for the comparison, so that a peer runs what we run: `build(name)` gives a module into which
the weights of `lucid_c.create_model(name)` load with ``strict=True``. The operations stand as timm
and torchvision write them, which is what PyTorch, its compiler and the ONNX exporter know best.
"""

import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class Basic(nn.Module):
    """He et al. 2015, "Deep residual learning for image recognition", section 3."""

    expansion = 1

    def __init__(self, inputs, channels, stride, downsample):
        super().__init__()
        self.conv1 = conv(inputs, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + shortcut)


class Bottleneck(nn.Module):
    """He et al. 2015 with the stride on the 3x3 convolution; groups and width as in Xie et al. 2016
    and Zagoruyko and Komodakis 2016."""

    expansion = 4

    def __init__(self, inputs, channels, stride, downsample, cardinality=1, base_width=64):
        super().__init__()
        width = int(channels * base_width / 64) * cardinality
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride, cardinality)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, channels * 4, 1)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + shortcut)


class PreActBottleneck(nn.Module):
    """He et al. 2016, "Identity mappings in deep residual networks"."""

    expansion = 4

    def __init__(self, inputs, channels, stride, downsample):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, channels * 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        active = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(active)
        y = self.conv1(active)
        y = self.conv2(self.relu(self.bn2(y)))
        y = self.conv3(self.relu(self.bn3(y)))
        return y + shortcut


class SplitAttention(nn.Module):
    """Zhang et al. 2020, "ResNeSt: Split-Attention Networks", section 3."""

    def __init__(self, width, stride, cardinality, radix):
        super().__init__()
        inner = width * radix
        squeezed = attention_width(inner / 4)
        self.cardinality, self.radix = cardinality, radix
        self.conv = conv(width, inner, 3, stride, cardinality * radix)
        self.bn0 = nn.BatchNorm2d(inner)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(width, squeezed, 1, groups=cardinality)
        self.bn1 = nn.BatchNorm2d(squeezed)
        self.fc2 = nn.Conv2d(squeezed, inner, 1, groups=cardinality)

    def forward(self, x):
        x = self.relu(self.bn0(self.conv(x)))
        n, channels, height, width = x.shape
        gap = x
        if self.radix > 1:
            x = x.reshape(n, self.radix, channels // self.radix, height, width)
            gap = x.sum(dim=1)
        gap = gap.mean((2, 3), keepdim=True)
        logits = self.fc2(self.relu(self.bn1(self.fc1(gap))))
        if self.radix == 1:
            return x * torch.sigmoid(logits)
        weights = logits.view(n, self.cardinality, self.radix, -1).transpose(1, 2)
        weights = F.softmax(weights, dim=1).reshape(n, self.radix, channels // self.radix, 1, 1)
        return (x * weights).sum(dim=1)


def attention_width(wanted):
    """A multiple of 8 near ``wanted``, at least 32 and not more than a tenth below."""
    width = max(32, int(wanted + 4) // 8 * 8)
    return width if width >= 0.9 * wanted else width + 8


class SplitBottleneck(nn.Module):
    """The bottleneck of ResNeSt; with a stride, an average pool carries it."""

    expansion = 4

    def __init__(
        self,
        inputs,
        channels,
        stride,
        downsample,
        cardinality=1,
        base_width=64,
        radix=2,
        avd_first=False,
    ):
        super().__init__()
        width = int(channels * base_width / 64) * cardinality
        pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.avd_first = pool if avd_first else nn.Identity()
        self.conv2 = SplitAttention(width, 1, cardinality, radix)
        self.avd_last = nn.Identity() if avd_first else pool
        self.conv3 = conv(width, channels * 4, 1)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.avd_first(self.relu(self.bn1(self.conv1(x))))
        y = self.avd_last(self.conv2(y))
        y = self.bn3(self.conv3(y))
        return self.relu(y + shortcut)


def conv_shortcut(inputs, outputs, stride):
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def pool_shortcut(inputs, outputs, stride):
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(
        pool if stride > 1 else nn.Identity(), conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)
    )


class Network(nn.Module):
    """Stem, four stages of blocks, global average pool, classifier."""

    def __init__(
        self, block, layers, num_classes=1000, stem_width=64, deep_stem=False, **block_args
    ):
        super().__init__()
        if deep_stem:
            self.conv1 = nn.Sequential(
                conv(3, stem_width, 3, 2),
                nn.BatchNorm2d(stem_width),
                nn.ReLU(inplace=True),
                conv(stem_width, stem_width, 3),
                nn.BatchNorm2d(stem_width),
                nn.ReLU(inplace=True),
                conv(stem_width, 2 * stem_width, 3),
            )
        else:
            self.conv1 = conv(3, stem_width, 7, 2)
        inputs = 2 * stem_width if deep_stem else stem_width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        shortcut = pool_shortcut if block is SplitBottleneck else conv_shortcut
        for stage, (count, channels) in enumerate(zip(layers, (64, 128, 256, 512), strict=True)):
            blocks = []
            outputs = channels * block.expansion
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                downsample = None
                if stride != 1 or inputs != outputs:
                    downsample = shortcut(inputs, outputs, stride)
                blocks.append(block(inputs, channels, stride, downsample, **block_args))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.global_pool(x), 1))


RESNEST = {"stem_width": 32, "deep_stem": True}
BIG_RESNEST = {"stem_width": 64, "deep_stem": True}
TWINS = {
    "resnet_18": (Basic, [2, 2, 2, 2], {}),
    "resnet_34": (Basic, [3, 4, 6, 3], {}),
    "resnet_50": (Bottleneck, [3, 4, 6, 3], {}),
    "resnet_101": (Bottleneck, [3, 4, 23, 3], {}),
    "resnet_152": (Bottleneck, [3, 8, 36, 3], {}),
    "resnet_200": (PreActBottleneck, [3, 24, 36, 3], {}),
    "resnet_269": (PreActBottleneck, [3, 30, 48, 8], {}),
    "resnet_1001": (PreActBottleneck, [3, 94, 94, 3], {}),
    "wide_resnet_50": (Bottleneck, [3, 4, 6, 3], {"base_width": 128}),
    "wide_resnet_101": (Bottleneck, [3, 4, 23, 3], {"base_width": 128}),
    "resnext_50_32x4d": (Bottleneck, [3, 4, 6, 3], {"cardinality": 32, "base_width": 4}),
    "resnext_101_32x4d": (Bottleneck, [3, 4, 23, 3], {"cardinality": 32, "base_width": 4}),
    "resnext_101_32x8d": (Bottleneck, [3, 4, 23, 3], {"cardinality": 32, "base_width": 8}),
    "resnext_101_32x16d": (Bottleneck, [3, 4, 23, 3], {"cardinality": 32, "base_width": 16}),
    "resnext_101_32x32d": (Bottleneck, [3, 4, 23, 3], {"cardinality": 32, "base_width": 32}),
    "resnext_101_64x4d": (Bottleneck, [3, 4, 23, 3], {"cardinality": 64, "base_width": 4}),
    "resnest_14": (SplitBottleneck, [1, 1, 1, 1], RESNEST),
    "resnest_26": (SplitBottleneck, [2, 2, 2, 2], RESNEST),
    "resnest_50": (SplitBottleneck, [3, 4, 6, 3], RESNEST),
    "resnest_101": (SplitBottleneck, [3, 4, 23, 3], BIG_RESNEST),
    "resnest_200": (SplitBottleneck, [3, 24, 36, 3], BIG_RESNEST),
    "resnest_269": (SplitBottleneck, [3, 30, 48, 8], BIG_RESNEST),
    "resnest_50_4s2x40d": (
        SplitBottleneck,
        [3, 4, 6, 3],
        {**RESNEST, "cardinality": 2, "base_width": 40, "radix": 4, "avd_first": True},
    ),
    "resnest_50_1s4x24d": (
        SplitBottleneck,
        [3, 4, 6, 3],
        {**RESNEST, "cardinality": 4, "base_width": 24, "radix": 1, "avd_first": True},
    ),
}


def build(name, weights=None, num_classes=1000):
    """The twin of lucid_c's model ``name``, in eval mode.

    Parameters
    ----------
    name : str
        A key of `TWINS`.
    weights : dict of str to numpy.ndarray, optional
        A state dict of lucid_c's model. It has to fit exactly; only ``num_batches_tracked``, which
        lucid_c does not keep, may be missing.
    num_classes : int, optional
        Outputs of the classifier.

    Raises
    ------
    ValueError
        If there is no such twin, or the weights have other names.
    """
    if name not in TWINS:
        raise ValueError(f"no twin of {name!r}; there are {', '.join(TWINS)}")
    block, layers, options = TWINS[name]
    if weights is None:
        return Network(block, layers, num_classes, **options).eval()
    with torch.device("meta"):  # nothing is drawn that the weights would replace
        model = Network(block, layers, num_classes, **options)
    load(model, weights)
    return model.eval()


def load(model, weights):
    """Load a state dict of NumPy arrays, strictly, giving the module memory of its own."""
    state = {key: torch.tensor(value) for key, value in weights.items()}
    for key in model.state_dict():
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))
    model.load_state_dict(state, strict=True, assign=True)
