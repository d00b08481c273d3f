# SPDX-License-Identifier: MIT
"""The networks in terms of ``oracle``: slow, float64, straight from the papers.

``forward(state, x, ...)`` reads the shape of the network from the keys of the state dict: number
of blocks, kind of block, deep stem, shortcuts.  What keys cannot tell are arguments.
Use small images.
"""

import oracle


def _conv(x, state, name, stride=1, padding=0, groups=1):
    return oracle.conv2d(
        x, state[name + ".weight"], state.get(name + ".bias"), stride, padding, groups=groups
    )


def stem(state, x, lucid2=False):
    if "conv1.0.weight" in state:
        x = oracle.relu(oracle.norm(_conv(x, state, "conv1.0", 2, 1), state, "conv1.1."))
        x = oracle.relu(oracle.norm(_conv(x, state, "conv1.3", 1, 1), state, "conv1.4."))
        x = _conv(x, state, "conv1.6", 1, 1)
        if not lucid2:
            x = oracle.relu(oracle.norm(x, state, "bn1."))
        elif "bn1.weight" in state:
            raise AssertionError("lucid 2.x's deep stem has no norm after its last convolution")
    else:
        x = oracle.relu(oracle.norm(_conv(x, state, "conv1", 2, 3), state, "bn1."))
    if lucid2:
        x = oracle.pad(x, (1, 1, 1, 1))
        return oracle.max_pool2d(x, 3, 2)
    return oracle.max_pool2d(x, 3, 2, 1)


def shortcut(state, x, p, stride, lucid2=False):
    if p + "downsample.2.weight" in state:
        if stride > 1 and not lucid2:
            x = oracle.avg_pool2d(x, stride, stride, 0, True, False)
        x = _conv(x, state, p + "downsample.1", stride if lucid2 else 1)
        return oracle.norm(x, state, p + "downsample.2.")
    if p + "downsample.0.weight" in state:
        x = _conv(x, state, p + "downsample.0", stride)
        return oracle.norm(x, state, p + "downsample.1.")
    return x


def basic(state, x, p, stride, **_):
    y = oracle.relu(oracle.norm(_conv(x, state, p + "conv1", stride, 1), state, p + "bn1."))
    y = oracle.norm(_conv(y, state, p + "conv2", 1, 1), state, p + "bn2.")
    return oracle.relu(y + shortcut(state, x, p, stride))


def bottleneck(state, x, p, stride, cardinality=1, **_):
    y = oracle.relu(oracle.norm(_conv(x, state, p + "conv1"), state, p + "bn1."))
    y = _conv(y, state, p + "conv2", stride, 1, cardinality)
    y = oracle.relu(oracle.norm(y, state, p + "bn2."))
    y = oracle.norm(_conv(y, state, p + "conv3"), state, p + "bn3.")
    return oracle.relu(y + shortcut(state, x, p, stride))


def preact(state, x, p, stride, **_):
    a = oracle.relu(oracle.norm(x, state, p + "bn1."))
    y = _conv(a, state, p + "conv1")
    y = _conv(oracle.relu(oracle.norm(y, state, p + "bn2.")), state, p + "conv2", stride, 1)
    y = _conv(oracle.relu(oracle.norm(y, state, p + "bn3.")), state, p + "conv3")
    if p + "downsample.0.weight" in state:
        x = shortcut(state, a, p, stride)
    return y + x


def resnest(
    state, x, p, stride, cardinality=1, radix=2, avd=True, avd_first=False, lucid2=False, **_
):
    pool = avd and stride > 1
    y = oracle.relu(oracle.norm(_conv(x, state, p + "conv1"), state, p + "bn1."))
    if pool and avd_first:
        y = oracle.avg_pool2d(y, 3, stride, 1)
    y = oracle.split_attention(
        y, state, p + "conv2.", 1 if pool else stride, 1, cardinality, radix, lucid2
    )
    if pool and not avd_first:
        y = oracle.avg_pool2d(y, 3, stride, 1)
    y = oracle.norm(_conv(y, state, p + "conv3"), state, p + "bn3.")
    return oracle.relu(y + shortcut(state, x, p, stride, lucid2))


def block_of(state):
    if "layer1.0.conv2.fc1.weight" in state:
        return resnest
    if "layer1.0.conv3.weight" not in state:
        return basic
    last = state["layer1.0.conv3.weight"].shape[0]
    return bottleneck if state["layer1.0.bn3.weight"].shape[0] == last else preact


def forward(state, x, stages=None, lucid2=False, **options):
    """The logits; ``stages``, a dict, receives the outputs of the stages by name."""
    stages = {} if stages is None else stages
    block = block_of(state)
    x = stages["maxpool"] = stem(state, oracle.f64(x), lucid2)
    for s in range(1, 5):
        b = 0
        while f"layer{s}.{b}.conv1.weight" in state:
            stride = 2 if s > 1 and b == 0 else 1
            x = block(state, x, f"layer{s}.{b}.", stride, lucid2=lucid2, **options)
            b += 1
        stages[f"layer{s}"] = x
    if "norm.weight" in state:
        x = oracle.relu(oracle.norm(x, state, "norm."))
    x = stages["global_pool"] = x.mean(axis=(2, 3), keepdims=True)
    return oracle.linear(x.reshape(x.shape[:2]), state["fc.weight"], state["fc.bias"])
