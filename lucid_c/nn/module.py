"""Modules: the base class of layers, blocks, models and of modules written in Python."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .._tensor import Parameter, Tensor, known, new_buffer
from ..random import next_seed
from ._text import describe, mismatch
from ._tree import Tree

if TYPE_CHECKING:
    import os

    from ..checkpoints import LoadResult
    from ..tuning import Tuning

__all__ = ["Module", "NativeModule", "RemovableHandle"]

_hook_keys = count()


class RemovableHandle:
    """What registering a hook gives; also a context manager that removes it at its end."""

    def __init__(self, module: "Module", hooks: dict[int, tuple], key: int) -> None:
        self._module, self._hooks, self._key = module, hooks, key

    def remove(self) -> None:
        """Remove the hook; twice does no harm."""
        self._hooks.pop(self._key, None)
        self._module._choose_call()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Module(Tree):
    """A node of a model: parameters, buffers and other modules under names, and a `forward`.

    Subclass it, call ``super().__init__()``, assign layers to attributes, and write
    ``forward(self, x)`` with layers, `lucid_c.ops` and operators on tensors. Everything inside
    of the outermost call is recorded and runs as one graph, fused like the built-in models.

    Modules start in eval mode.
    """

    # by key: the hook, and whether it takes the keyword arguments as well
    _forward_hooks: dict[int, tuple[Callable, bool]] | None = None
    _forward_pre_hooks: dict[int, tuple[Callable, bool]] | None = None
    _python_call = True  # whether calls go through forward() in Python

    def __init__(self) -> None:
        self._init_python()
        self._set_override(True)

    # --- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call_recorded(*args, **kwargs)

    def _forward_with_hooks(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(Tensor(each) if isinstance(each, np.ndarray) else each for each in args)
        for hook, with_kwargs in list((self._forward_pre_hooks or {}).values()):
            changed = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if changed is not None and with_kwargs:
                args, kwargs = changed
            elif changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook, with_kwargs in list((self._forward_hooks or {}).values()):
            given = (args, kwargs, result) if with_kwargs else (args, result)
            changed = hook(self, *given)
            result = result if changed is None else changed
        return result

    def _choose_call(self) -> None:
        """Let callers in C go through Python where a forward or hooks in Python ask for it."""
        own = "forward" in self.__dict__ or self._forward_hooks or self._forward_pre_hooks
        python = bool(type(self)._python_call or own)
        self.__dict__["_python_call"] = python
        self._set_override(python)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward.

        What the hook returns, unless None, replaces the output.

        Parameters
        ----------
        hook : callable
            The function; with ``with_kwargs`` it is called ``hook(module, args, kwargs, output)``.
        prepend : bool, optional
            Call it before the hooks that are there already.
        with_kwargs : bool, optional
            Whether the hook takes the keyword arguments of the call.
        """
        return self._add_hook("_forward_hooks", hook, prepend, with_kwargs)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward.

        What the hook returns, unless None, replaces the arguments.

        Parameters
        ----------
        hook : callable
            The function; with ``with_kwargs`` it is called as ``hook(module, args, kwargs)`` and
            returns None or ``(args, kwargs)``.
        prepend : bool, optional
            Call it before the hooks that are there already.
        with_kwargs : bool, optional
            Whether the hook takes the keyword arguments of the call.
        """
        return self._add_hook("_forward_pre_hooks", hook, prepend, with_kwargs)

    def _add_hook(
        self, attribute: str, hook: Callable, prepend: bool, with_kwargs: bool
    ) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"a hook must be callable, not {hook!r}")
        hooks = self.__dict__.setdefault(attribute, {})
        key = next(_hook_keys)
        later = list(hooks.items()) if prepend else []
        if prepend:
            hooks.clear()
        hooks[key] = hook, bool(with_kwargs)
        hooks.update(later)
        self._choose_call()
        return RemovableHandle(self, hooks, key)

    # --- attributes

    def __getattr__(self, name: str) -> Any:
        if self._is_set_up and not name.startswith("__"):
            try:
                return known(self._get(name))
            except KeyError:
                config = _core.module_config(self)
                if name in config:
                    return config[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(getattr(type(self), name, None), "__set__"):
            object.__setattr__(self, name, value)
            return
        if isinstance(value, Parameter):
            self._set_param(name, value)
        elif isinstance(value, _core.Module):
            self._set_child(name, value)
        elif not self._is_set_up or not self._assign_entry(name, value):
            self._set_plain(name, value)
            return
        self.__dict__.pop(name, None)

    def _assign_entry(self, name: str, value: Any) -> bool:
        """Assign to a parameter, buffer or child; False if there is none of that name."""
        try:
            self._get(name)
        except KeyError:
            return False
        _, kind, _, persistent = next(row for row in self._entries() if row[0] == name)
        if kind == "buffer" and (value is None or isinstance(value, Tensor)):
            buffer = None if value is None else _as_buffer(value)
            self._set_param(name, buffer, True, persistent)
        elif value is not None:
            wanted = {"param": "a Parameter", "buffer": "a Tensor", "child": "a Module"}[kind]
            raise TypeError(f"{name!r} must be {wanted} or None, not {type(value).__name__}")
        elif kind == "param":
            self._set_param(name, None)
        else:
            self._set_child(name, None)
        return True

    def _set_plain(self, name: str, value: Any) -> None:
        if not self._python_call and name in _core.module_config(self) and name != "inplace":
            raise AttributeError(
                f"{name!r} of {type(self).__name__} is fixed; make a new layer instead"
            )
        object.__setattr__(self, name, value)
        if name == "forward":
            self._choose_call()

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            object.__delattr__(self, name)
            if name == "forward":
                self._choose_call()
            return
        try:
            self._remove(name)
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            ) from None

    def __dir__(self) -> list[str]:
        rows = self._entries() if self._is_set_up else []
        return sorted({*object.__dir__(self), *(row[0] for row in rows)})

    @property
    def training(self) -> bool:
        """Whether the module is in training mode; new modules are not."""
        return _core.Module.training.__get__(self)

    @training.setter
    def training(self, mode: bool) -> None:
        self._set_training(bool(mode))

    @property
    def recompute(self) -> bool:
        """Whether `backward` computes this module again instead of keeping its inner values.

        It takes less memory and more time. Set it on blocks (`ResNet.set_grad_checkpointing` does
        so for all of them): what enters and leaves the module is kept. Results are the same bits,
        running statistics are updated once, and dropout draws the same numbers again.
        """
        return _core.Module.recompute.__get__(self)

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self._set_recompute(bool(on))

    def _check_free(self, name: str, kind: str) -> None:
        taken = next((row for row in self._entries() if row[0] == name), None)
        if taken[1] != kind if taken else hasattr(self, name):
            raise KeyError(f"{type(self).__name__} has another attribute {name!r} already")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None for one that is left out."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"parameter {name!r} must be a Parameter, not {type(param).__name__}")
        self._check_free(name, "param")
        self._set_param(name, param)

    def register_buffer(self, name: str, tensor: ArrayLike | None, persistent: bool = True) -> None:
        """Add a float32 tensor that is kept with the module but not trained.

        Parameters
        ----------
        name : str
            Its name, also in the state dict.
        tensor : array_like or None
            The numbers, which are copied.
        persistent : bool
            Whether the state dict has it.
        """
        self._check_free(name, "buffer")
        buffer = None if tensor is None else _as_buffer(tensor)
        self._set_param(name, buffer, True, persistent)

    def register_module(self, name: str, module: "Module | None") -> None:
        """Add a module under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r} must be a Module, not {type(module).__name__}")
        self._check_free(name, "child")
        self._set_child(name, module)

    add_module = register_module

    # --- modes; conveniences for code that was written for PyTorch

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or eval mode with ``mode=False``, here and below."""
        if not isinstance(mode, (bool, np.bool)):
            raise ValueError(f"the training mode must be a bool, not {mode!r}")
        self._set_training(bool(mode))
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Set eval mode here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all parameters."""
        for value in self.parameters():
            value.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients of all parameters, or set them to zero."""
        for value in self.parameters():
            if set_to_none:
                value.grad = None
            elif value.grad is not None:
                value.grad = np.zeros(value.shape, np.float32)

    def to(self, *targets: Any, **named: Any) -> Self:
        """Return the module itself: it is on the CPU and float32, anything else is an error."""
        for target in (*targets, *named.values()):
            text = getattr(target, "__name__", str(target)).removeprefix("torch.")
            if text not in ("cpu", "cpu:0", "float32", "float", "None", "True", "False"):
                raise ValueError(f"lucid_c computes on CPUs and in float32; {text!r} is not there")
        return self

    def cpu(self) -> Self:
        """Return the module itself."""
        return self

    def float(self) -> Self:
        """Return the module itself."""
        return self

    # --- the state dict

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        rows = self._entries()
        for wanted in ("param", "buffer"):
            for name, kind, value, persistent in rows:
                if kind == wanted and value is not None and (persistent or kind == "param"):
                    yield prefix + name, value
        for name, kind, value, _ in rows:
            if kind == "child" and value is not None:
                yield from value._named_state(f"{prefix}{name}.")

    def _state_slots(self) -> dict[str, Tensor]:
        """Return what the state dict consists of; checkpoints read their shapes."""
        return dict(self._named_state())

    def _fresh(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return arrays for new contents, to be filled and given to `_commit`."""
        slots = self._state_slots()
        names = list(names)
        return dict(zip(names, _core.fresh([slots[name] for name in names]), strict=True))

    def _commit(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take float32 arrays over as contents, all or none."""
        slots = self._state_slots()
        _core.commit([(slots[name], array) for name, array in arrays.items()])

    def state_dict(self, *, prefix: str = "") -> dict[str, np.ndarray]:
        """Return the parameters and buffers by dotted name.

        Returns
        -------
        dict of str to ndarray
            Read-only arrays, not copied. They keep the numbers of this moment when the module
            changes later.
        """
        return {name: value.numpy() for name, value in self._named_state(prefix)}

    def load_state_dict(
        self, state_dict: Mapping[str, ArrayLike], strict: bool = True
    ) -> "LoadResult":
        """Copy parameters and buffers from a state dict.

        Names of timm, torchvision, the ResNeSt authors and lucid 2.x are understood, with the
        usual prefixes; ``num_batches_tracked`` is passed over.

        Parameters
        ----------
        state_dict : Mapping of str to array_like
            Arrays, tensors or nested lists by name.
        strict : bool
            Whether missing and unexpected names are errors. Wrong shapes always are.

        Returns
        -------
        LoadResult
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        ValueError
            If the state dict does not fit; the message lists the names, and nothing is changed.
        """
        from ..checkpoints import LoadResult, map_keys

        if not isinstance(state_dict, Mapping):
            raise TypeError(f"a mapping is expected, not {type(state_dict).__name__}")
        wrong = next((name for name in state_dict if not isinstance(name, str)), None)
        if wrong is not None:
            raise TypeError(f"the names in a state dict are str, not {wrong!r}")
        given = {name: np.asarray(value) for name, value in state_dict.items()}
        slots = self._state_slots()
        targets = {name: tuple(slot.shape) for name, slot in slots.items()}
        keys = map_keys({name: array.shape for name, array in given.items()}, targets)
        if keys.misshapen or (strict and (keys.missing or keys.unexpected)):
            raise ValueError(mismatch(type(self).__name__, keys))
        arrays = self._fresh(keys.sources)
        for target, source in keys.sources.items():
            if given[source].dtype.kind not in "fiub":
                raise TypeError(f"{source!r} must hold numbers, not {given[source].dtype}")
            np.copyto(arrays[target], given[source], casting="unsafe")
        self._commit(arrays)
        return LoadResult(keys.missing, keys.unexpected)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the state dict to a safetensors file, whole or not at all."""
        from .. import checkpoints

        checkpoints.save(path, self.state_dict())

    def load(self, path: "str | os.PathLike[str]", strict: bool = True) -> "LoadResult":
        """Load a checkpoint (safetensors, ``.pth``, ``.npz``, ...); see `load_state_dict`."""
        from .. import checkpoints

        return checkpoints.load_into(self, path, strict)

    def tune(
        self, x: ArrayLike | Sequence[int], *, cache: "str | os.PathLike[str] | None" = None
    ) -> "Tuning":
        """Measure which algorithm is fastest for each convolution, and use it from now on.

        Every algorithm that can do a layer, whether or not it would be taken without measuring
        (see `lucid_c.explain`), is measured with as many images as ``x`` has, on
        `lucid_c.get_num_threads` threads. The fastest is used for such layers in all models of
        this process, for any batch size and number of threads.

        **Bits of results may change**: algorithms round differently, and another machine, or
        another measurement on this one, may choose another. Results still do not depend on batch
        size, neighbours in the batch, or threads. Without a call of `tune` or
        `lucid_c.load_tuning` nothing is ever measured; `lucid_c.clear_tuning` undoes it.

        Parameters
        ----------
        x : array_like or tuple of int
            The model's input, or its shape.
        cache : str or os.PathLike, optional
            The file that keeps the measurements, by version of lucid_c, CPU and instruction set.
            What is in it already is used and not measured again; a damaged file is ignored, with
            a warning, and replaced. Default: ``lucid_c/tune-*.json`` in ``$XDG_CACHE_HOME``
            (``~/.cache``).

        Returns
        -------
        Tuning
            What was measured and chosen; ``print`` shows a table.

        Raises
        ------
        OSError
            If the file in ``cache`` cannot be written; the choice stays as it was then. (For the
            default file it is a warning.)
        """
        from ..tuning import tune

        return tune(self, x, cache=cache)

    def export_onnx(
        self,
        path: "str | os.PathLike[str]",
        *,
        input_shape: Sequence[int] | None = None,
        dynamic_batch: bool = True,
        opset: int = 17,
        external_data: bool | None = None,
    ) -> None:
        """Write the model as an ONNX file, whole or not at all.

        The graph is what a call in eval mode records, in standard operators, with one input
        ``input`` and one output ``output``. Initializers have the names of the state dict; a
        parameter that several layers share is written once. Needs the onnx package
        (``pip install lucid_c[onnx]``).

        Parameters
        ----------
        path : str or os.PathLike
            The file to write.
        input_shape : sequence of int, optional
            Shape of the input, (N, C, H, W). Default: one image of the size that belongs to a
            model of `lucid_c.create_model`.
        dynamic_batch : bool, optional
            Whether the file takes any batch size (default) or the one in ``input_shape`` only.
            Height and width are fixed.
        opset : int, optional
            Version of ONNX's operators, 13 or later. Default 17.
        external_data : bool, optional
            Whether the weights go into a second file, named as the first with ``.data`` added.
            Default: if they take more than 2 GiB, the limit of one ONNX file.

        Raises
        ------
        ImportError
            If the onnx package is missing.
        ValueError
            If something cannot be expressed (the message names the operation and the module), if
            ``forward`` reads the numbers of a tensor, or if with ``dynamic_batch`` it does
            something else for another batch size.
        """
        from ..onnx_export import export

        export(
            self,
            path,
            input_shape=input_shape,
            dynamic_batch=dynamic_batch,
            opset=opset,
            external_data=external_data,
        )

    # --- copies and text

    def __reduce__(self) -> tuple:
        rows = [(name, kind, known(value), keep) for name, kind, value, keep in self._entries()]
        flags = {"training": self.training, "recompute": self.recompute}
        state = {"entries": rows, "attributes": self.__dict__, **flags}
        class_name, config = _core.dump(self)
        return _revive, (type(self), class_name, config or b""), state

    def __setstate__(self, state: dict) -> None:
        for name, kind, value, persistent in state["entries"]:
            if kind == "child":
                self._set_child(name, value)
            else:
                self._set_param(name, value, kind == "buffer", persistent)
        self.__dict__.update(state["attributes"])
        self._set_training(state["training"])
        self._set_recompute(state.get("recompute", False))
        self._choose_call()

    def extra_repr(self) -> str:
        """Return what `repr` shows between the parentheses; subclasses may define it."""
        return ""

    def __repr__(self) -> str:
        return describe(self)


class NativeModule(Module):
    """A module whose forward is C, unless a subclass, an attribute or a hook says otherwise."""

    _python_call = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._python_call = cls.forward is not NativeModule.forward

    def _made(self, draw: bool = True) -> None:
        """Finish construction: initial values, and the way in which C calls this module."""
        if draw:
            self._reset(next_seed())
        if self._python_call:
            self._set_override(True)

    def forward(self, input: ArrayLike) -> Tensor:
        """Compute the result."""
        return self._call_native(input)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._python_call or kwargs or len(args) != 1:
            return self._call_recorded(*args, **kwargs)
        return self._call_native(*args)


def _as_buffer(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value._is_param and not isinstance(value, Parameter):
        return value
    return new_buffer(value)


def _revive(cls: type[Module], class_name: str, config: bytes) -> Module:
    self = cls.__new__(cls)
    if class_name == "Module":
        self._init_python()
    else:
        _core.restore(self, class_name, config)
    return self
