# SPDX-License-Identifier: MIT
"""The documented snippets, as they stand but for the package's name."""

import numpy as np

import lucid_c


def test_resnest_from_a_list_of_layers():
    import lucid_c as lucid
    from lucid_c.models import ResNeSt
    from lucid_c.models.blocks import _ResNeStBottleneck

    model = ResNeSt(_ResNeStBottleneck, layers=[3, 4, 6, 3])
    input_tensor = lucid.random.randn(1, 3, 224, 224)
    output = model(input_tensor)
    assert output.shape == (1, 1000)
    assert np.isfinite(np.asarray(output)).all()


def test_resnet_from_a_list_of_layers():
    import lucid_c.nn as nn
    from lucid_c import Tensor
    from lucid_c.models.blocks import BasicBlock

    model = nn.ResNet(block=BasicBlock, layers=[3, 4, 6, 3], num_classes=1000)
    input_ = Tensor(np.random.randn(8, 3, 224, 224))
    out = model(input_)
    assert out.shape == (8, 1000)


def test_functions_of_the_variants():
    import lucid_c.models as models

    model = models.resnet_18(num_classes=10)
    assert model(lucid_c.random.randn(1, 3, 64, 64)).shape == (1, 10)
    model = models.resnest_14(num_classes=10, in_channels=1)
    assert model(lucid_c.random.randn(2, 1, 64, 64)).shape == (2, 10)


def test_a_numpy_user():
    model = lucid_c.create_model("resnet_18", num_classes=5)
    logits = np.asarray(model(np.zeros((1, 3, 64, 64), np.float32)))
    assert logits.shape == (1, 5) and logits.dtype == np.float32
    assert 0 <= int(logits.argmax()) < 5


def test_a_custom_block():
    import lucid_c.nn as nn
    import lucid_c.nn.functional as F

    class Gate(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.down = nn.Conv2d(channels, channels // 4, 1)
            self.up = nn.Conv2d(channels // 4, channels, 1)

        def forward(self, x):
            s = F.adaptive_avg_pool2d(x, 1)
            return x * F.sigmoid(self.up(F.relu(self.down(s))))

    model = lucid_c.create_model("resnet_18", num_classes=5)
    model.layer4 = nn.Sequential(*model.layer4, Gate(512))
    assert model(lucid_c.random.randn(2, 3, 64, 64)).shape == (2, 5)
    assert "layer4.2.down.weight" in model.state_dict()


def test_show_config_prints_and_config_tells(capsys):
    assert lucid_c.show_config() is None
    text = capsys.readouterr().out
    config = lucid_c.config()
    assert {"isa", "num_threads", "threads_rule", "cpu"} <= set(config)
    assert config["num_threads"] == lucid_c.get_num_threads()
    assert config["isa"] in text and str(config["num_threads"]) in text
    assert str(config["threads_rule"]) in text


def test_random_numbers():
    lucid_c.random.seed(3)
    a, u = lucid_c.random.randn(40, 50), lucid_c.random.rand(40, 50)
    lucid_c.random.seed(3)
    b = lucid_c.random.randn(40, 50)
    assert a.shape == (40, 50) and a.dtype == np.float32 and u.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert not np.array_equal(np.asarray(b), np.asarray(lucid_c.random.randn(40, 50)))
    a, u = np.asarray(a), np.asarray(u)
    assert abs(a.mean()) < 0.1 and abs(a.std() - 1) < 0.1 and np.abs(a).max() > 2.5
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.05
    assert len(np.unique(a)) > 1900 and lucid_c.random.randn(3).shape == (3,)
