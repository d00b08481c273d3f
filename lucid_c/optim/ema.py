# SPDX-License-Identifier: MIT
"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import _core
from ..nn import Module
from .optimizer import check_number


class EMA:
    """A moving average of a model's parameters; its buffers are copied.

    ``average += (weights - average) * (1 - decay)`` at each `update`. The averaged weights often
    classify better than the last ones (Polyak and Juditsky 1992; Szegedy et al. 2016, section 8).

    Parameters
    ----------
    model : Module
        The model; it is not changed, except between `apply` and `restore`.
    decay : float, optional
        How much of the average is kept at each update, 0 to 1.
    warmup : bool, optional
        Keep less in the beginning: ``min(decay, (1 + n) / (10 + n))`` at update n, counted from 0,
        so that the initial weights are forgotten soon.

    Examples
    --------
    >>> ema = EMA(model, decay=0.9999)  # doctest: +SKIP
    >>> optimizer.step()  # doctest: +SKIP
    >>> ema.update()  # doctest: +SKIP
    >>> with ema.applied():  # doctest: +SKIP
    ...     evaluate(model)
    """

    def __init__(self, model: Module, decay: float = 0.9999, warmup: bool = False) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"model must be a Module, not {type(model).__name__}")
        check_number(decay, "decay", high=1.0)
        self.model, self.decay, self.warmup = model, float(decay), bool(warmup)
        self.updates = 0
        self._backup: dict[str, Any] | None = None
        slots = model._state_slots()
        self._average = {name: _core.new_like(slot) for name, slot in slots.items()}
        self._mix(self._average, slots, 1.0)

    def _mix(self, to: Mapping[str, Any], source: Mapping[str, Any], weight: float) -> None:
        _core.average(list(to.values()), [source[name] for name in to], weight)

    def _slots(self) -> dict[str, Any]:
        """Return what the model holds now; an error if it is another model than before."""
        slots = self.model._state_slots()
        shapes = {name: slot.shape for name, slot in slots.items()}
        for name in {*shapes, *self._average}:
            own = self._average.get(name)
            if own is None or shapes.get(name) != own.shape:
                raise RuntimeError(f"the model has changed: {name!r} does not fit its average")
        return slots

    def update(self) -> None:
        """Take the model's present weights into the average.

        Raises
        ------
        RuntimeError
            If the average is applied, or if the model has other parameters than before.
        """
        if self._backup is not None:
            raise RuntimeError("the model holds its average; call restore() first")
        slots = self._slots()
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        trained = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        mixed = {name: own for name, own in self._average.items() if name in trained}
        copied = {name: own for name, own in self._average.items() if name not in trained}
        self._mix(mixed, slots, 1.0 - decay)
        self._mix(copied, slots, 1.0)
        self.updates += 1

    def apply(self) -> None:
        """Give the model the averaged weights, until `restore`.

        The memory is shared until one of the two changes, so this takes no time.
        """
        if self._backup is not None:
            raise RuntimeError("the average is applied already")
        slots = self._slots()
        backup = {name: _core.new_like(slot) for name, slot in slots.items()}
        self._mix(backup, slots, 1.0)
        self._mix(slots, self._average, 1.0)
        self._backup = backup

    def restore(self) -> None:
        """Give the model the weights back that it had before `apply`."""
        if self._backup is None:
            raise RuntimeError("the average is not applied")
        self._mix(self._slots(), self._backup, 1.0)
        self._backup = None

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """Give the model the averaged weights within a ``with`` statement."""
        self.apply()
        try:
            yield self.model
        finally:
            self.restore()

    def weights(self) -> dict[str, np.ndarray]:
        """Return the averaged weights as a state dict of the model.

        Returns
        -------
        dict of str to ndarray
            Read-only arrays, which keep the numbers of this moment.
        """
        return {name: own.numpy() for name, own in self._average.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return ``"weights"``, ``"updates"``, ``"decay"`` and ``"warmup"``."""
        return {
            "weights": self.weights(),
            "updates": self.updates,
            "decay": self.decay,
            "warmup": self.warmup,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises
        ------
        ValueError
            If it does not fit the model; nothing is changed then.
        """
        names = {"weights", "updates", "decay", "warmup"}
        if not isinstance(state_dict, Mapping) or not names <= set(state_dict):
            raise ValueError(f"the state dict needs {', '.join(sorted(names))}")
        weights, updates = state_dict["weights"], state_dict["updates"]
        if not isinstance(weights, Mapping) or set(weights) != set(self._average):
            raise ValueError("the averaged weights in the state dict are not those of the model")
        if isinstance(updates, bool) or not isinstance(updates, int) or updates < 0:
            raise ValueError(f"'updates' must be a count, not {updates!r}")
        check_number(state_dict["decay"], "decay", high=1.0)
        arrays = {}
        for name, own in self._average.items():
            array = np.asarray(weights[name])
            if array.shape != own.shape or array.dtype.kind != "f":
                raise ValueError(
                    f"{name!r} must be floats of shape {own.shape}, not {array.dtype} of shape "
                    f"{array.shape}"
                )
            arrays[name] = np.array(array, np.float32, order="C")
        _core.commit([(own, arrays[name]) for name, own in self._average.items()])
        self.updates = updates
        self.decay, self.warmup = float(state_dict["decay"]), bool(state_dict["warmup"])
