"""Gradients: when they are kept, gradients without ``grad``, functions with their own backward.

`Tensor.backward` needs a forward that kept what it reads. Forwards keep it

* where a module in training mode is called,
* where an input requires gradients, or was computed from something that does,
* where a parameter is used outside of modules,
* and under `enable_grad`;

never under `no_grad`. A model in eval mode keeps nothing else, so its results are plain numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from . import _core
from ._gradients import Slot, _as_gradient, _edge_of, gradients_of
from ._tensor import Tensor

__all__ = [
    "Context",
    "Function",
    "backward",
    "enable_grad",
    "grad",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]

_AUTO, _OFF, _ON = range(3)


class _Mode:
    """Sets this thread's mode; a context manager and a decorator."""

    def __init__(self, mode: int) -> None:
        self._mode = mode
        self._before: list[int] = []

    def __enter__(self) -> Self:
        self._before.append(_core.set_grad_mode(self._mode))
        return self

    def __exit__(self, *_: object) -> None:
        _core.set_grad_mode(self._before.pop())

    def __call__(self, function: Callable) -> Callable:
        mode = self._mode

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _Mode(mode):
                return function(*args, **kwargs)

        return call


class no_grad(_Mode):
    """Keep nothing for gradients in this thread: ``with no_grad():`` or ``@no_grad()``."""

    def __new__(cls, function: Callable | None = None) -> Any:
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()
        return self(function)

    def __init__(self) -> None:
        super().__init__(_OFF)


class enable_grad(_Mode):
    """Keep what gradients need in this thread, in eval mode too."""

    def __new__(cls, function: Callable | None = None) -> Any:
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()
        return self(function)

    def __init__(self) -> None:
        super().__init__(_ON)


class set_grad_enabled(_Mode):
    """Switch to `enable_grad` (True) or `no_grad` (False) at once, and back at the end of ``with``.

    Parameters
    ----------
    mode : bool
        Whether gradients are kept.
    """

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, (bool, np.bool)):
            raise TypeError(f"the mode must be a bool, not {mode!r}")
        super().__init__(_ON if mode else _OFF)
        self._before.append(_core.set_grad_mode(self._mode))

    def __enter__(self) -> Self:
        return self

    def __call__(self, function: Callable) -> Callable:
        _core.set_grad_mode(self._before.pop())
        return super().__call__(function)


def is_grad_enabled() -> bool:
    """Return whether gradients may be kept in this thread: False under `no_grad`."""
    return _core.grad_mode() != _OFF


def _tensors(values: Any, what: str) -> list[Tensor]:
    items = [values] if isinstance(values, Tensor) else list(values)
    for each in items:
        if not isinstance(each, Tensor):
            raise TypeError(f"{what} must be tensors, not {each!r}")
    if not items:
        raise ValueError(f"{what} must not be empty")
    return items


def _seeds(values: Any, count: int) -> list:
    items = list(values) if isinstance(values, (list, tuple)) else [values] * (values is not None)
    items = items or [None] * count
    if len(items) != count:
        raise ValueError(f"{count} gradients are expected, one per output, got {len(items)}")
    return items


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of outputs with respect to inputs, without touching any ``grad``.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
        Inputs are leaves that require gradients, parameters, or computed tensors.
    grad_outputs : array_like or sequence, optional
        The gradients with respect to the outputs; outputs of one element can do without.
    retain_graph : bool, optional
        Keep what backward needs, so that it can be run again.
    create_graph : bool, optional
        Must be False: gradients have no gradients.
    allow_unused : bool, optional
        Give None for inputs that no output depends on, instead of a RuntimeError.
    """
    if create_graph:
        raise ValueError("create_graph=True is not possible: gradients have no gradients")
    y, x = _tensors(outputs, "outputs"), _tensors(inputs, "inputs")
    seeds = _seeds(grad_outputs, len(y))
    found = gradients_of(y, seeds, x, bool(retain_graph), bool(allow_unused))
    return tuple(None if each is None else Tensor(each) for each in found)


def backward(
    tensors: Tensor | Sequence[Tensor], grad_tensors: Any = None, retain_graph: bool = False
) -> None:
    """Compute the gradients of several tensors at once; see `Tensor.backward`."""
    from ._gradients import _seed, _Walk

    y = _tensors(tensors, "tensors")
    walk = _Walk(bool(retain_graph))
    for tensor, seed in zip(y, _seeds(grad_tensors, len(y)), strict=True):
        walk.deliver(*_seed(tensor, seed, "grad_tensors"))
    walk.run()
    walk.commit()


class Context:
    """What `Function.forward` leaves for `Function.backward`.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        Whether the gradient of each argument is wanted.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._saved: tuple | None = ()

    def save_for_backward(self, *values: Any) -> None:
        """Keep tensors or arrays until backward has run."""
        self._saved = values

    @property
    def saved_tensors(self) -> tuple:
        """What was saved."""
        if self._saved is None:
            raise RuntimeError(
                "backward has been through this graph already, and what it had kept is gone; pass "
                "retain_graph=True the first time to call it again"
            )
        return self._saved


class _Call:
    """The node of one call of a Function; see `_gradients`."""

    def __init__(self, function: type["Function"], context: Context, edges: tuple) -> None:
        self.function, self.context, self.edges = function, context, edges
        self.order = _core.next_node()
        self.shapes: list[tuple[int, ...]] = []
        self._slots: dict[int, Slot] = {}

    @property
    def outputs(self) -> int:
        return len(self.shapes)

    def slot(self, output: int, make: bool) -> Slot | None:
        if make:
            return self._slots.setdefault(output, Slot())
        return self._slots.get(output)

    def run(self, gradients: tuple, keep: bool) -> list[np.ndarray | None]:
        name = f"{self.function.__name__}.backward()"
        if self.context._saved is None:
            _ = self.context.saved_tensors  # raises
        given = [
            Tensor(np.zeros(shape, np.float32) if dy is None else dy)
            for dy, shape in zip(gradients, self.shapes, strict=True)
        ]
        with no_grad():
            results = _core.aside(self.function.backward, self.context, *given)
        results = list(results) if isinstance(results, tuple) else [results]
        if len(results) != len(self.edges):
            raise RuntimeError(
                f"{name} returned {len(results)} gradients for {len(self.edges)} arguments"
            )
        if not keep:
            self.context._saved = None
        checked: list[np.ndarray | None] = []
        for result, (edge, shape) in zip(results, self._targets, strict=True):
            if edge is None or result is None:
                checked.append(None)
            else:
                checked.append(_as_gradient(result, shape, f"what {name} returns"))
        return checked

    def finish(self, arguments: tuple) -> None:
        """Note the shapes that the gradients of the arguments have."""
        self._targets = [
            (edge, getattr(each, "shape", ()))
            for edge, each in zip(self.edges, arguments, strict=True)
        ]


class Function:
    """A function in NumPy, with a gradient in NumPy.

    Subclasses define two static methods: ``forward(ctx, *args)``, which gets tensors without a
    history (and other arguments as they are) and returns a tensor or array, or a tuple of them; and
    ``backward(ctx, *gradients)``, which gets a gradient per output and returns one per argument,
    None where there is none. Call it with `apply`.

    Inside of a model's forward it first runs what has been recorded so far.

    Examples
    --------
    >>> class Square(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x.numpy() ** 2
    ...
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         (x,) = ctx.saved_tensors
    ...         return 2 * x * dy
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Any:
        """Compute the result."""
        raise NotImplementedError("a Function defines forward()")

    @staticmethod
    def backward(ctx: Context, *gradients: Any) -> Any:
        """Compute the gradients of the arguments."""
        raise NotImplementedError("a Function defines backward()")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call the function."""
        edges = tuple(
            _edge_of(each)
            if isinstance(each, Tensor) and (not each._is_param or _core.keeps_grads())
            else None
            for each in args
        )
        if not is_grad_enabled():
            edges = (None,) * len(args)
        context = Context(tuple(edge is not None for edge in edges))
        plain = [each.detach() if isinstance(each, Tensor) else each for each in args]
        with no_grad():
            results = _core.aside(cls.forward, context, *plain)
        call = _Call(cls, context, edges)
        call.finish(args)
        alone = not isinstance(results, tuple)
        outputs = []
        for i, result in enumerate((results,) if alone else results):
            y = Tensor(result._array() if isinstance(result, Tensor) else result)
            call.shapes.append(y.shape)
            if any(context.needs_input_grad) and y._is_float32:
                y._history = call, i
            outputs.append(y)
        return outputs[0] if alone else tuple(outputs)
