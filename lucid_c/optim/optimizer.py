# SPDX-License-Identifier: MIT
"""The base class of optimizers: groups of parameters, state, and the state dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core
from .._tensor import Parameter, known
from ..autograd import enable_grad

# What a group may hold besides its parameters and the optimizer's options.
_EXTRAS = ("name", "initial_lr")


class Optimizer:
    """Groups of parameters with options, and what an algorithm remembers of each parameter.

    Subclasses give `_check`, `_step` and the names of their state, and call ``__init__``.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        What to train. A dict is a group: its parameters under ``"params"``, and options that
        differ from the defaults. It may have a ``"name"``.
    defaults : dict
        The options of groups that do not set them.

    Attributes
    ----------
    param_groups : list of dict
        The groups. Options may be changed between steps, as schedulers do with ``"lr"``.
    state : dict
        What is remembered of each parameter, by name.
    defaults : dict
        The options of groups that do not set them.

    Raises
    ------
    ValueError
        For an empty list, a parameter that is given twice, an option that the optimizer does not
        have or that is out of range.
    TypeError
        For what is no parameter.
    """

    _moments: tuple[str, ...] = ()  # names of the state tensors, each of the parameter's shape
    _optional: tuple[str, ...] = ()  # those that are there only under some options
    _counts_steps = False  # whether state has "step"

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.state: dict[Parameter, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        self._check(self.defaults)
        if isinstance(params, (_core.Tensor, Mapping, str)) or not isinstance(params, Iterable):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of parameters or "
                f"dicts, but got {type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _check(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError for options out of range."""
        raise NotImplementedError

    def _step(self, rows: list[tuple], groups: list[Mapping[str, Any]]) -> None:
        """Change parameters and state: one row per parameter that has a gradient.

        A row is the number of its group, the number of the step, the parameter, and its state
        tensors in the order of `_moments`.
        """
        raise NotImplementedError

    def _wants(self, name: str, options: Mapping[str, Any]) -> bool:
        """Whether a group with these options keeps the state tensor `name`."""
        return True

    # --- groups

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group, e.g. of layers that are trained from now on.

        Parameters
        ----------
        param_group : Mapping
            Parameters under ``"params"``, and options that differ from the defaults.
        """
        if not isinstance(param_group, Mapping):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        group = dict(param_group)
        params = group.get("params")
        if params is None:
            raise ValueError("a parameter group needs its parameters under 'params'")
        if isinstance(params, (set, frozenset)):
            raise TypeError("parameters must be in an ordered collection, not in a set")
        params = [params] if isinstance(params, _core.Tensor) else list(params)
        for each in params:
            if not isinstance(each, Parameter):
                raise TypeError(
                    f"optimizer can only optimize parameters, but one is {type(each).__name__}"
                )
        params = [known(each) for each in params]
        for name in group:
            if name not in self.defaults and name not in ("params", *_EXTRAS):
                raise ValueError(
                    f"{type(self).__name__} has no option {name!r}; it has "
                    + ", ".join(self.defaults)
                )
        taken = {each._key() for other in self.param_groups for each in other["params"]}
        keys = [each._key() for each in params]
        if len(set(keys)) < len(keys):
            raise ValueError("a parameter is in the parameter group twice")
        if not taken.isdisjoint(keys):
            raise ValueError("some parameters appear in more than one parameter group")
        options = self.defaults | group
        self._check(options)
        self.param_groups.append({"params": params} | options | {"params": params})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients, or fill them with zeros.

        Parameters
        ----------
        set_to_none : bool, optional
            Remove them, so that a parameter that gets no gradient is left alone by `step`.
        """
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = np.zeros(param.shape, np.float32)

    # --- the step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters that have a gradient.

        Arrays that were read from a parameter or a state dict before keep their numbers. An
        error leaves parameters and state as they were.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients; called before the step, under `enable_grad`.

        Returns
        -------
        object
            What the closure returned, or None.
        """
        loss = None if closure is None else enable_grad(closure)()
        rows, new = [], []
        for number, group in enumerate(self.param_groups):
            names = [name for name in self._moments if self._wants(name, group)]
            for param in group["params"]:
                if not _core.has_grad(param):
                    continue
                old = self.state.get(param, {})
                state = {
                    name: old[name] if name in old else _core.new_like(param) for name in names
                }
                step = old.get("step", 0) + 1
                new.append((param, old, state, step))
                rows.append((number, step, param, *map(state.get, self._moments)))
        self._step(rows, self.param_groups)
        for param, old, state, step in new:
            if self._counts_steps:
                state["step"] = step
            if state:
                self.state[param] = old | state
        return loss

    # --- the state dict

    def state_dict(self) -> dict[str, Any]:
        """Return the state and the options, in PyTorch's structure.

        Returns
        -------
        dict
            ``"state"``: by the parameter's number, its state by name, as read-only arrays that
            keep the numbers of this moment. ``"param_groups"``: the options of each group, with
            the numbers of its parameters under ``"params"``.
        """
        numbers: dict[Parameter, int] = {}
        groups = []
        for group in self.param_groups:
            first = len(numbers)
            numbers.update((param, first + i) for i, param in enumerate(group["params"]))
            options = {name: value for name, value in group.items() if name != "params"}
            groups.append(options | {"params": list(range(first, len(numbers)))})
        state = {}
        for param, number in numbers.items():
            if param in self.state:
                state[number] = {
                    name: np.array(value, np.float32) if name == "step" else value.numpy()
                    for name, value in self.state[param].items()
                }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state and the options of `state_dict`, of this class or of PyTorch's.

        Parameters are told apart by their order. Options that PyTorch has and lucid_c has not
        (``foreach`` and the like) are passed over.

        Parameters
        ----------
        state_dict : Mapping
            What `state_dict` returned; arrays may be tensors of any kind.

        Raises
        ------
        ValueError
            If it does not fit; nothing is changed then.
        """
        groups, saved = self._fitting(state_dict)
        state = {}
        for new, old in zip(groups, state_dict["param_groups"], strict=True):
            for param, number in zip(new["params"], old["params"], strict=True):
                given = saved.get(number)
                if given:
                    state[param] = self._state_from(given, param, number)
        self.param_groups, self.state = groups, state

    def _fitting(self, state_dict: Any) -> tuple[list[dict[str, Any]], Mapping]:
        """Return the groups with the options of a state dict, and its state."""
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise ValueError("the state dict needs 'state' and 'param_groups'")
        saved_groups, state = state_dict["param_groups"], state_dict["state"]
        if not isinstance(state, Mapping) or not isinstance(saved_groups, (list, tuple)):
            raise ValueError("'state' must be a dict, and 'param_groups' a list")
        if len(saved_groups) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(saved_groups)}, not {len(self.param_groups)}"
            )
        groups = []
        for i, (group, saved) in enumerate(zip(self.param_groups, saved_groups, strict=True)):
            if not isinstance(saved, Mapping) or not isinstance(saved.get("params"), list):
                raise ValueError(f"parameter group {i} of the state dict has no list 'params'")
            if len(saved["params"]) != len(group["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group {i}: {len(saved['params'])}, not {len(group['params'])}"
                )
            names = {*self.defaults, *_EXTRAS}
            options = {name: value for name, value in saved.items() if name in names}
            merged = {name: value for name, value in group.items() if name in self.defaults}
            merged |= {name: _plain(value, name) for name, value in options.items()}
            self._check(merged)
            groups.append(merged | {"params": group["params"]})
        return groups, state

    def _state_from(self, given: Any, param: Parameter, number: Any) -> dict[str, Any]:
        where = f"the state of parameter {number}"
        if not isinstance(given, Mapping):
            raise ValueError(f"{where} is no dict")
        result = {}
        for name, value in given.items():
            if name == "step" and self._counts_steps:
                result[name] = _count(value, where)
            elif name not in self._moments:
                raise ValueError(f"{where} has {name!r}, which {type(self).__name__} has not")
            elif value is not None:
                array = np.asarray(value)
                if array.shape != param.shape or array.dtype.kind != "f":
                    raise ValueError(
                        f"{where}: {name!r} must be floats of shape {param.shape}, not "
                        f"{array.dtype} of shape {array.shape}"
                    )
                result[name] = _core.new_param(array, True)
        needed = {*self._moments} - {*self._optional} | ({"step"} if self._counts_steps else set())
        missing = sorted(needed - {*result})
        if result and missing:
            raise ValueError(f"{where} has no {missing[0]!r}")
        return result

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _plain(value: Any, name: str) -> Any:
    """Return an option of a loaded state dict: numbers of other libraries become Python's."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each, name) for each in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    try:
        return np.asarray(value).item()
    except (TypeError, ValueError):
        raise ValueError(f"the option {name!r} is no number: {value!r}") from None


def _count(value: Any, where: str) -> int:
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "fiu" or not 0 <= number.item() < 2**53:
        raise ValueError(f"{where}: 'step' must be a count, not {value!r}")
    return int(number.item())


def check_number(
    value: Any, text: str, low: float = 0.0, high: float = math.inf, open_end: bool = False
) -> None:
    """Raise ValueError unless `value` is a number from `low` to `high` (or below, `open_end`)."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{text} must be a number, not {value!r}")
    number = float(value)
    if not (low <= number < high if open_end else low <= number <= high) or math.isinf(number):
        raise ValueError(f"Invalid {text}: {value}")
