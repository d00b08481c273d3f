"""Layers, containers and the base class of modules, with PyTorch's names."""

from typing import TYPE_CHECKING, Any

from .._tensor import Parameter
from . import containers, functional, layers, losses, module, utils
from .containers import ModuleList, Sequential
from .layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvBNReLU2d,
    DropBlock2d,
    Dropout,
    DropPath,
    Flatten,
    GlobalAvgPool2d,
    Identity,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
)
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss
from .module import Module

if TYPE_CHECKING:
    from ..models import ResNeSt, ResNet, ResNeXt

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Conv2d",
    "ConvBNReLU2d",
    "CrossEntropyLoss",
    "DropBlock2d",
    "DropPath",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "ResNeSt",
    "ResNeXt",
    "ResNet",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "containers",
    "functional",
    "layers",
    "losses",
    "module",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name in ("ResNet", "ResNeXt", "ResNeSt"):  # they are built on this package
        from .. import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
