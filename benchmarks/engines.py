# SPDX-License-Identifier: MIT
"""The engines that are compared, behind one interface.

An engine is made, told to load a model for one shape, and called with NumPy arrays. It starts and
ends with an array in (N, C, H, W) order, so every engine pays for its own conversions. Batch norms
are folded by everyone who can: lucid_c, ONNX Runtime and OpenVINO do so by themselves, PyTorch's
compiler because its parameters are frozen.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from files import BATCH, checkpoint_path

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4


class Engine:
    """What all engines have.

    Attributes
    ----------
    name : str
        As in tables and in ``--engines``.
    library : str
        The package that must be importable, which is also the one whose version is reported.
    formats : tuple of str
        The files that it loads from (see `files.write_files`).
    trains : bool
        Whether it has `load_training` and `step`.
    compiles : bool
        Whether loading takes so long that it is limited.
    obeys_isa : bool
        Whether the instruction set can be capped from outside.
    info : dict
        What is to be said about the loaded model.
    """

    name = library = ""
    formats = ()
    trains = compiles = False
    obeys_isa = True

    def __init__(self):
        self.info = {}

    @classmethod
    def available(cls):
        """None, or why the engine cannot be used here. Imports nothing."""
        if find_spec(cls.library) is None:
            return f"{cls.library} is not installed"
        return None

    def load(self, model_name, folder, shape, threads):
        """Load a model.

        Parameters
        ----------
        model_name : str
            A model of lucid_c.
        folder : str
            Where its files are.
        shape : tuple of int
            (N, C, H, W) of the arrays that `run` will get.
        threads : int
            How many to use.
        """
        raise NotImplementedError

    def run(self, x):
        """The logits (N, classes) of ``x`` (N, C, H, W), float32."""
        raise NotImplementedError

    def load_training(self, model_name, folder, shape, threads):
        """Load a model in training mode with an SGD optimizer; arguments as for `load`."""
        raise NotImplementedError

    def step(self, x, y):
        """One step of training on images ``x`` and labels ``y`` (int64); gives the loss."""
        raise NotImplementedError


class LucidC(Engine):
    name = library = "lucid_c"
    formats = ("checkpoint",)
    trains = True

    def load(self, model_name, folder, shape, threads):
        import lucid_c

        lucid_c.set_num_threads(threads)
        self.model = lucid_c.create_model(model_name, checkpoint_path=checkpoint_path(folder))
        self.info = {"isa": lucid_c.config()["isa"]}

    def run(self, x):
        return np.asarray(self.model(x))

    def load_training(self, model_name, folder, shape, threads):
        import lucid_c

        if not hasattr(lucid_c, "optim") or not hasattr(lucid_c.nn.functional, "cross_entropy"):
            raise NotImplementedError("not available: this lucid_c does not train")
        self.load(model_name, folder, shape, threads)
        self.model.train()
        self.loss = lucid_c.nn.functional.cross_entropy
        self.optimizer = lucid_c.optim.SGD(
            self.model.parameters(),
            lr=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        )

    def step(self, x, y):
        loss = self.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())


class Torch(Engine):
    """PyTorch as it comes: eager, NCHW."""

    name = "torch"
    library = "torch"
    formats = ("torch",)
    trains = True
    channels_last = False

    def _build(self, model_name, folder, threads):
        import torch
        import twins

        torch.set_num_threads(threads)
        with torch.device("meta"):
            model = twins.Network(*twins.TWINS[model_name][:2], **twins.TWINS[model_name][2])
        state = torch.load(Path(folder) / "model.pt", weights_only=True)
        model.load_state_dict(state, strict=True, assign=True)
        self.format = torch.channels_last if self.channels_last else torch.contiguous_format
        self.info = {"isa": torch.backends.cpu.get_cpu_capability()}
        return model.to(memory_format=self.format)

    def _tensor(self, x):
        import torch

        return torch.from_numpy(x).to(memory_format=self.format)

    def load(self, model_name, folder, shape, threads):
        import torch

        self.model = self._build(model_name, folder, threads).eval()
        self.inference_mode = torch.inference_mode

    def run(self, x):
        with self.inference_mode():
            return self.model(self._tensor(x)).numpy()

    def load_training(self, model_name, folder, shape, threads):
        import torch

        model = self._build(model_name, folder, threads).train()
        self.model = self._prepare_training(model)
        self.loss = torch.nn.functional.cross_entropy
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )

    def _prepare_training(self, model):
        return model

    def step(self, x, y):
        import torch

        loss = self.loss(self.model(self._tensor(x)), torch.from_numpy(y))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


class TorchChannelsLast(Torch):
    """PyTorch eager on channels-last memory."""

    name = "torch channels_last"
    channels_last = True


class TorchCompile(Torch):
    """torch.compile with the inductor; for inference with frozen parameters, which folds batch
    norms and lets the compiler choose layouts."""

    name = "torch.compile"
    compiles = True

    @classmethod
    def available(cls):
        import shutil

        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"no C++ compiler ({compiler})"
        return super().available()

    def load(self, model_name, folder, shape, threads):
        import torch
        import torch._inductor.config

        torch._inductor.config.freezing = True
        super().load(model_name, folder, shape, threads)
        self.model = torch.compile(self.model, dynamic=False)
        self.run(np.zeros(shape, np.float32))

    def _prepare_training(self, model):
        import torch

        return torch.compile(model, dynamic=False)


class OnnxRuntime(Engine):
    """ONNX Runtime on its CPU provider, every graph optimisation, shapes fixed, threads spinning
    as is its default."""

    name = library = "onnxruntime"
    formats = ("onnx",)
    obeys_isa = False

    def load(self, model_name, folder, shape, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name(BATCH, shape[0])
        self.session = onnxruntime.InferenceSession(
            Path(folder) / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def run(self, x):
        return self.session.run(None, {self.input: x})[0]


class OpenVino(Engine):
    """OpenVINO in float32, for latency, one stream."""

    name = "openvino"
    library = "openvino"
    formats = ("openvino",)

    def settings(self):
        return {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }

    def load(self, model_name, folder, shape, threads):
        import openvino

        core = openvino.Core()
        model = core.read_model(Path(folder) / "model.xml")
        model.reshape(list(shape))
        settings = {"INFERENCE_NUM_THREADS": threads, **self.settings()}
        compiled = core.compile_model(model, "CPU", settings)
        self.request = compiled.create_infer_request()
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.info = {"precision": precision, "streams": compiled.get_property("NUM_STREAMS")}

    def run(self, x):
        return self.request.infer(x, share_inputs=True, share_outputs=True)[0]


class OpenVinoDefault(OpenVino):
    """OpenVINO as it comes, except for the number of threads. On some processors it then computes
    in bfloat16, which is another problem than ours."""

    name = "openvino default"

    def settings(self):
        return {}


ENGINES = {
    engine.name: engine
    for engine in (
        LucidC,
        Torch,
        TorchChannelsLast,
        TorchCompile,
        OnnxRuntime,
        OpenVino,
        OpenVinoDefault,
    )
}
OURS = LucidC.name
