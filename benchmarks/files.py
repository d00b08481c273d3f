# SPDX-License-Identifier: MIT
"""The files from which engines load a model: one set of weights in every format.

Files are written in a process of its own, so that what that imports is in nobody's measurement.
"""

import re
from pathlib import Path

import numpy as np

BATCH = "N"  # the free dimension of the ONNX files
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


def write_files(name, folder, formats, size):
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
    size : tuple of int or None
        Height and width of the images for which the ONNX file is; None: the model's own.

    Returns
    -------
    dict
        ``size``, ``macs`` (multiply-adds for one image), ``exporter`` of the ONNX file, if one was
        written, and ``failed``: why a format could not be written.
    """
    import lucid_c
    from lucid_c import _core

    folder = Path(folder)
    model = lucid_c.create_model(name, init=False)
    model.load_state_dict(draw_weights({k: v.shape for k, v in model.state_dict().items()}))
    size = tuple(size or [model.config["image_size"]] * 2)
    about = {"size": size, "macs": _core.info(model, (1, 3, *size))["macs"], "failed": {}}
    if "openvino" in formats:  # which is made from the ONNX file
        formats = [*formats, "onnx"]
    for name_of_format, write in WRITERS.items():
        if name_of_format not in formats:
            continue
        try:
            write(name, model, folder, size, about)
        except Exception as error:
            about["failed"][name_of_format] = f"{type(error).__name__}: {error}"
    return about


def write_checkpoint(name, model, folder, size, about):
    model.save(checkpoint_path(folder))


def write_torch(name, model, folder, size, about):
    import torch
    import twins

    torch.save(twins.build(name, state_arrays(model)).state_dict(), folder / "model.pt")


def checkpoint_path(folder):
    from importlib.util import find_spec

    return Path(folder) / ("model.safetensors" if find_spec("safetensors") else "model.npz")


def state_arrays(model):
    return {key: np.array(value) for key, value in model.state_dict().items()}


def write_onnx(name, model, folder, size, about):
    """For images of one size and any batch size, which is called N in the file.

    lucid_c's own exporter is used where there is one, else PyTorch's with the twin.
    """
    import onnx

    path = folder / "model.onnx"
    if hasattr(model, "export_onnx"):
        about["exporter"] = "lucid_c"
        model.export_onnx(path, input_shape=(1, 3, *size), dynamic_batch=True)
    else:
        about["exporter"] = "torch.onnx"
        export_twin(name, model, path, size)
    proto = onnx.load(path, load_external_data=False)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.save(proto, path)


def export_twin(name, model, path, size):
    import warnings

    import torch
    import twins

    with warnings.catch_warnings():  # this exporter is deprecated, but needs no other package
        warnings.simplefilter("ignore")
        torch.onnx.export(
            twins.build(name, state_arrays(model)),
            (torch.zeros(1, 3, *size),),
            str(path),
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: BATCH}, "logits": {0: BATCH}},
        )


def write_openvino(name, model, folder, size, about):
    import openvino

    network = openvino.Core().read_model(folder / "model.onnx")
    openvino.save_model(network, folder / "model.xml", compress_to_fp16=False)


WRITERS = {
    "checkpoint": write_checkpoint,
    "torch": write_torch,
    "onnx": write_onnx,
    "openvino": write_openvino,
}
