# SPDX-License-Identifier: MIT
"""A real checkpoint in an old format, in a network written with lucid_c.nn.

The file is not ours: it is looked for through LUCID_C_TEST_DATA and never committed.
"""

import numpy as np
import pytest

import lucid_c
import lucid_c.nn as nn
import lucid_c.nn.functional as F


class Block(nn.Module):
    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.planes = planes
        self.changes = stride != 1 or in_planes != planes

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.changes:  # no parameters: every other pixel, zero channels on both sides
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    def __init__(self, blocks=3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inside, planes) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            rows = [
                Block(inside if b == 0 else planes, planes, 2 if b == 0 and stage > 1 else 1)
                for b in range(blocks)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*rows))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


@pytest.fixture(scope="module")
def files(outside_data):
    folder = outside_data / "checkpoints"
    if not (folder / "resnet20-12fca82f.th").exists():
        pytest.skip("the checkpoint is not there")
    return folder / "resnet20-12fca82f.th", np.load(folder / "resnet20-12fca82f.npz")


def test_parameter_count():
    assert CifarResNet().num_parameters() == 269_722


def test_load_gives_a_plain_dict_of_arrays(files):
    state = lucid_c.load(files[0])
    assert isinstance(state, dict) and all(isinstance(v, np.ndarray) for v in state.values())
    assert {k.removeprefix("module.") for k in state} >= set(CifarResNet().state_dict())


@pytest.mark.parametrize("how", ["load_state_dict", "load"])
def test_the_stored_logits(files, how):
    path, ref = files
    model = CifarResNet()
    if how == "load":
        model.load(path)
    else:
        model.load_state_dict(lucid_c.load(path))
    logits = np.asarray(model(ref["input"]))
    assert np.abs(logits - ref["logits"]).max() <= 1e-4
    np.testing.assert_array_equal(logits.argmax(1), ref["logits"].argmax(1))
    one = np.asarray(model(ref["input"][5:6]))
    np.testing.assert_array_equal(one, logits[5:6])


def test_a_wrong_network_is_refused(files):
    model = CifarResNet(blocks=2)
    with pytest.raises((ValueError, KeyError, RuntimeError), match="layer1.2"):
        model.load_state_dict(lucid_c.load(files[0]))
