# SPDX-License-Identifier: MIT
"""Files that PyTorch itself has written, where it is installed."""

import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from checkpoint_files import FakeModel, assert_same
from lucid_c import checkpoints

torch = pytest.importorskip("torch")

BOTH = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )


def arrays(state):
    return {name: value.detach().float().numpy() for name, value in state.items()}


@pytest.fixture
def save(tmp_path):
    def save(value, new=True, **options):
        path = tmp_path / "file.pth"
        torch.save(value, path, _use_new_zipfile_serialization=new, **options)
        return path

    return save


@BOTH
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_training_checkpoint(save, new, protocol):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(4, 3, 3, 3)).sum().backward()
    optimizer.step()
    parallel = torch.nn.DataParallel(net)
    value = {
        "epoch": 7,
        "state_dict": parallel.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best_prec1": torch.tensor(76.25),
        "best_numpy": np.float64(76.25),
        "history": np.arange(5.0),
        "size": torch.Size([1, 2]),
        "type": torch.float16,
        "device": torch.device("cpu"),
    }
    path = save(value, new, pickle_protocol=protocol)
    assert_same(checkpoints.load(path), arrays(net.state_dict()))
    full = checkpoints.load(path, full=True)
    assert full["epoch"] == 7 and full["size"] == (1, 2)
    assert full["best_prec1"] == full["best_numpy"] == 76.25
    assert full["history"].tolist() == [0, 1, 2, 3, 4]
    momentum = optimizer.state_dict()["state"][0]["momentum_buffer"].numpy()
    np.testing.assert_array_equal(full["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert full["type"].name == "torch.float16" and full["device"].name == "torch.device"


@BOTH
@pytest.mark.parametrize(
    "name", "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
)
def test_types(save, new, name):
    value = (torch.arange(6).reshape(2, 3) - 1).abs().to(getattr(torch, name))
    path = save({"x": value}, new)
    with checkpoints.open_checkpoint(path) as checkpoint:
        assert checkpoint["x"].dtype == name
        np.testing.assert_array_equal(checkpoint["x"].read(), value.float().numpy())
        out = np.empty((2, 3), np.float32)
        checkpoint["x"].read_into(out)
        np.testing.assert_array_equal(out, value.float().numpy())


def test_newer_types(save):
    values = {name: torch.arange(4).to(getattr(torch, name)) for name in ("uint16", "uint64")}
    loaded = checkpoints.load(save(values))
    assert {name: (a.dtype.name, a.tolist()) for name, a in loaded.items()} == {
        name: (name, [0, 1, 2, 3]) for name in values
    }
    small = save({"x": torch.ones(3).to(torch.float8_e4m3fn), "y": torch.ones(2)})
    with pytest.raises(ValueError, match="'x'.*float8_e4m3fn"):
        checkpoints.load(small)


@BOTH
def test_layouts(save, new):
    base = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    state = {
        "transposed": base.transpose(0, 2),
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "slice": base[:, 1:, ::2, 1],
        "expanded": base[0, 0, 0, :1].expand(7),
        "again": base,
        "scalar": base[0, 0, 0, 3],
        "empty": base[:0],
        "parameter": torch.nn.Parameter(base[1]),
    }
    assert_same(checkpoints.load(save(state, new)), arrays(state))


@BOTH
def test_bfloat16_bits(save, new):
    bits = torch.arange(-32768, 32767, dtype=torch.int16).view(torch.bfloat16)
    loaded = checkpoints.load(save({"x": bits}, new))["x"]
    np.testing.assert_array_equal(loaded, bits.float().numpy())


@BOTH
def test_pickled_network_is_named(save, new):
    with pytest.raises(ValueError, match="torch.nn.modules.container.Sequential"):
        checkpoints.load(save(network(), new))


@BOTH
def test_single_tensor(save, new):
    path = save(torch.ones(3), new)
    assert checkpoints.load(path, full=True).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="no mapping"):
        checkpoints.load(path)


@BOTH
def test_sparse_tensor_is_named(save, new):
    path = save({"x": torch.eye(3).to_sparse(), "y": torch.ones(2)}, new)
    with pytest.raises(ValueError, match="'x'.*_rebuild_sparse_tensor"):
        checkpoints.load(path)


@BOTH
def test_python_attributes_and_metadata(save, new):
    value = torch.ones(3)
    value.note = "text"
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.note = "text"
    state = OrderedDict(x=value, y=parameter)
    state._metadata = {"": {"version": 2}}
    assert_same(checkpoints.load(save(state, new)), {"x": np.ones(3), "y": np.zeros(2)})


def test_averaged_model(save):
    net = network()
    average = torch.optim.swa_utils.AveragedModel(net)
    average.update_parameters(net)
    path = save({"model": net.state_dict(), "model_ema": average.state_dict()})
    loaded = checkpoints.load(path, use_ema=True)
    assert loaded.pop("n_averaged") == 1
    assert_same(loaded, arrays(net.state_dict()))
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if "num_" not in k}
    model = FakeModel(shapes)
    assert checkpoints.load_into(model, path, use_ema=True) == ([], [])
    assert set(model.values) == set(shapes)


def test_script_archive(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)), path)
    with pytest.raises(ValueError, match="TorchScript"):
        checkpoints.load(path)


def test_safetensors_both_ways(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    state = {**network().state_dict(), "half": torch.ones(3).bfloat16()}
    library.save_file(state, tmp_path / "a.safetensors")
    assert_same(checkpoints.load(tmp_path / "a.safetensors"), arrays(state))
    checkpoints.save(tmp_path / "b.safetensors", arrays(state))
    assert_same(arrays(library.load_file(tmp_path / "b.safetensors")), arrays(state))


@BOTH
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
def test_loading_holds_one_copy(save, new, name):
    kind, count = getattr(torch, name), 1 << 18
    state = {f"layer{i}": torch.full((count,), float(i)).to(kind) for i in range(8)}
    channels = torch.arange(count).reshape(1, 512, 16, 32).to(kind)
    state["channels"] = channels.contiguous(memory_format=torch.channels_last)
    path = save(state, new)
    model = FakeModel({key: tuple(value.shape) for key, value in state.items()})
    tracemalloc.start()
    try:
        checkpoints.load_into(model, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_same(model.values, arrays(state))
    assert peak < len(state) * count * 4 + (4 << 20)
