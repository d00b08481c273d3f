"""Losses as modules, with PyTorch's arguments and defaults."""

from typing import Any

from numpy.typing import ArrayLike

from .._tensor import Tensor
from . import functional
from .module import Module

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "MSELoss", "NLLLoss"]


class _Loss(Module):
    def __init__(self, size_average: None, reduce: None, reduction: str) -> None:
        super().__init__()
        functional.check_reduction(size_average, reduce, reduction)
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """The cross-entropy between logits and classes, or shares of classes.

    Parameters
    ----------
    weight : array_like, optional
        (C,), what a class counts; a buffer.
    size_average, reduce : None
        PyTorch's old spelling of ``reduction``; must be None.
    ignore_index : int, optional
        A class number whose places have no loss.
    reduction : str, optional
        ``"none"``, ``"mean"`` or ``"sum"``, as in `functional.cross_entropy`.
    label_smoothing : float, optional
        Share of every target that all classes have alike.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = functional.whole(ignore_index, "ignore_index")
        self.label_smoothing = functional.real(label_smoothing, "label_smoothing")
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of logits and targets; see `functional.cross_entropy`."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """The negative log-likelihood of classes.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction
        As for `CrossEntropyLoss`.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = functional.whole(ignore_index, "ignore_index")

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of log-probabilities (N, C, ...) and class numbers (N, ...)."""
        return functional.nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class BCEWithLogitsLoss(_Loss):
    """The cross-entropy between logits and independent probabilities.

    Parameters
    ----------
    weight : array_like, optional
        What an element counts; a buffer, broadcast to the input's shape.
    size_average, reduce : None
        PyTorch's old spelling of ``reduction``; must be None.
    reduction : str, optional
        ``"none"``, ``"mean"`` or ``"sum"``.
    pos_weight : array_like, optional
        What positive targets count; a buffer, broadcast to the input's shape.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of logits and targets of one shape."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class MSELoss(_Loss):
    """Squared differences.

    Parameters
    ----------
    size_average, reduce : None
        PyTorch's old spelling of ``reduction``; must be None.
    reduction : str, optional
        ``"none"``, ``"mean"`` or ``"sum"``.
    """

    def __init__(
        self, size_average: None = None, reduce: None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of an input and a target of one shape."""
        return functional.mse_loss(input, target, reduction=self.reduction)
