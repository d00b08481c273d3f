"""ResNet, ResNeXt and ResNeSt on CPUs, from NumPy arrays.

>>> import numpy as np, lucid_c
>>> model = lucid_c.create_model("resnet_50", checkpoint_path="resnet50.safetensors")
>>> logits = model(np.zeros((1, 3, 224, 224), np.float32))
>>> logits.shape
(1, 1000)

Modules start in eval mode and compute in float32. Everything that takes long runs in C without
the global interpreter lock, on `get_num_threads` threads.
"""

from typing import TYPE_CHECKING, Any

try:
    from ._core import config, get_num_threads, memory_stats, set_num_threads
except ImportError as error:
    raise ImportError(
        "the C core of lucid_c (lucid_c._core) cannot be imported: "
        f"{error}. Build it with `pip install .` in the source folder; if it is installed, do not "
        "start Python in that folder, where the plain sources hide the installed package."
    ) from error

from . import _core, autograd, models, nn, ops, random
from ._gradients import Slot as _Slot
from ._tensor import Tensor, from_dlpack, from_numpy, tensor
from .autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .models import create_model, list_models

if TYPE_CHECKING:
    from . import checkpoints, data, imagenet, logs, optim, training, transforms
    from .checkpoints import load, save
    from .profiling import profile
    from .tuning import clear_tuning, explain, load_tuning

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "autograd",
    "checkpoints",
    "clear_tuning",
    "config",
    "create_model",
    "data",
    "explain",
    "enable_grad",
    "from_dlpack",
    "from_numpy",
    "get_num_threads",
    "imagenet",
    "is_grad_enabled",
    "list_models",
    "load",
    "load_tuning",
    "logs",
    "memory_stats",
    "models",
    "nn",
    "no_grad",
    "ops",
    "profile",
    "optim",
    "random",
    "save",
    "set_grad_enabled",
    "set_num_threads",
    "show_config",
    "tensor",
    "training",
    "transforms",
]

_core.register(
    tensor=Tensor,
    parameter=nn.Parameter,
    module=nn.Module,
    classes=nn.layers.CLASSES | nn.containers.CLASSES | models.blocks.CLASSES | models.CLASSES,
    slot=_Slot,
)


def show_config() -> None:
    """Print what this process computes with: processor, instruction set, caches, threads."""
    print(f"lucid_c {__version__}")
    for key, value in config().items():
        if value not in ("", None):
            print(f"{key:>16}: {', '.join(value) if isinstance(value, list) else value}")


_LATE = {
    "clear_tuning": "tuning",
    "explain": "tuning",
    "load": "checkpoints",
    "load_tuning": "tuning",
    "profile": "profiling",
    "save": "checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import on first use what most programs do not need."""
    from importlib import import_module

    if name in ("checkpoints", "data", "imagenet", "logs", "optim", "training", "transforms"):
        return import_module(f"{__name__}.{name}")
    if name in _LATE:
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
