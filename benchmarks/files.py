# SPDX-License-Identifier: MIT
"""The files from which engines load a model: one set of weights in every format.

Runs in a process of its own, so that what it imports is in nobody's measurement.
"""

import re
from pathlib import Path

import numpy as np

INPUT, OUTPUT = "input", "logits"
LAST_NORM = re.compile(r"layer\d+\.\d+\.bn(\d)\.weight")


def draw_weights(shapes, seed=1):
    """Weights under which activations stay of order 1 through any depth.

    Convolutions as in He et al. 2015; norms near the identity, but different in every channel; the
    last norm of a residual branch small.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Names and shapes of a state dict of lucid_c.
    seed : int, optional
        Of NumPy's generator.

    Returns
    -------
    dict of str to numpy.ndarray
        float32.
    """
    draw = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        leaf = name.rpartition(".")[2]
        block_norm = LAST_NORM.fullmatch(name)
        if leaf == "running_var":
            value = draw.uniform(0.5, 1.5, shape)
        elif leaf == "weight" and len(shape) == 1:
            last = block_norm and f"{name[:-8]}{int(block_norm[1]) + 1}.weight" not in shapes
            value = draw.uniform(0.1, 0.3, shape) if last else draw.uniform(0.8, 1.2, shape)
        elif leaf == "weight":
            value = draw.standard_normal(shape, dtype=np.float32)
            gain = 2 if len(shape) == 4 else 1
            value *= np.float32(np.sqrt(gain / np.prod(shape[1:])))
        else:
            value = 0.1 * draw.standard_normal(shape, dtype=np.float32)
        weights[name] = np.asarray(value, dtype=np.float32)
    return weights


def draw_images(shape, seed=0):
    """float32 images (N, C, H, W), the same in every process."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def draw_labels(count, classes, seed=0):
    """int64 class numbers."""
    return np.random.default_rng(seed).integers(0, classes, count)


def write_files(name, folder, formats):
    """Write a model with drawn weights.

    Parameters
    ----------
    name : str
        A model of lucid_c.
    folder : str
        Where the files go: ``model.safetensors`` (``model.npz`` without the safetensors package),
        ``model.pt``, ``model.onnx``, ``model.xml`` with ``model.bin``.
    formats : list of str
        Which of ``"checkpoint"``, ``"torch"``, ``"onnx"``, ``"openvino"``.

    Returns
    -------
    dict
        ``parameters``, ``macs`` for one image by size, ``image_size``, and ``exporter`` of the ONNX
        file.
    """
    import lucid_c

    folder = Path(folder)
    model = lucid_c.create_model(name, init=False)
    model.load_state_dict(draw_weights({k: v.shape for k, v in model.state_dict().items()}))
    about = {
        "parameters": sum(int(np.prod(p.shape)) for p in model.parameters()),
        "image_size": model.config["image_size"],
    }
    if "checkpoint" in formats:
        model.save(checkpoint_path(folder))
    if "torch" in formats:
        import torch
        import twins

        torch.save(twins.build(name, state_arrays(model)).state_dict(), folder / "model.pt")
    if "onnx" in formats or "openvino" in formats:
        about["exporter"] = write_onnx(name, model, folder / "model.onnx")
    if "openvino" in formats:
        import openvino

        openvino.save_model(
            openvino.Core().read_model(folder / "model.onnx"),
            folder / "model.xml",
            compress_to_fp16=False,
        )
    return about


def checkpoint_path(folder):
    from importlib.util import find_spec

    return Path(folder) / ("model.safetensors" if find_spec("safetensors") else "model.npz")


def state_arrays(model):
    return {key: np.array(value) for key, value in model.state_dict().items()}


def multiply_adds(name, height, width):
    """Of one image, with the head."""
    import lucid_c
    from lucid_c import _core

    return _core.info(lucid_c.create_model(name, init=False), (1, 3, height, width))["macs"]


def write_onnx(name, model, path):
    """Write an ONNX file whose batch size, height and width are free; gives the exporter's name.

    lucid_c's own exporter is used where there is one, else PyTorch's with the twin.
    """
    import onnx

    if hasattr(model, "export_onnx"):
        exporter = "lucid_c"
        model.export_onnx(path, dynamic_batch=True)
    else:
        exporter = "torch.onnx"
        export_twin(name, model, path)
    proto = onnx.load(path)
    del proto.graph.value_info[:]
    shape = proto.graph.input[0].type.tensor_type.shape
    for dim, free in zip((shape.dim[0], *shape.dim[2:]), "NHW", strict=True):
        dim.dim_param = free
    proto.graph.input[0].name, old_in = INPUT, proto.graph.input[0].name
    proto.graph.output[0].name, old_out = OUTPUT, proto.graph.output[0].name
    renamed = {old_in: INPUT, old_out: OUTPUT}
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(value, value) for value in names]
    onnx.save(proto, path)
    return exporter


def export_twin(name, model, path):
    import warnings

    import torch
    import twins

    size = model.config["image_size"]
    with warnings.catch_warnings():  # this exporter is deprecated, but needs no other package
        warnings.simplefilter("ignore")
        torch.onnx.export(
            twins.build(name, state_arrays(model)),
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
        )
