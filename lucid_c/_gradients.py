"""The methods of tensors that have to do with gradients, and the walk of `backward`.

What has been run with gradients kept is a graph of nodes: segments of the core (one per call of a
model or of a function) and calls of `autograd.Function`. A tensor that came out of a node knows it
and its place among the outputs. A node has ``edges``, one per thing that it has gradients for: a
parameter, the `Slot` of a leaf, or (node, output). Where an output is used within its own call as
well, the core tells its whole gradient: then the edge is the output's number.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from . import _core

if TYPE_CHECKING:
    from ._tensor import Tensor

_hook_keys = count()

NOT_KEPT = (
    "backward() needs a forward that kept what gradients need, and this tensor comes from none. "
    "Call model.train() before the forward, or let the input require gradients "
    "(x.requires_grad_()), or compute under lucid_c.enable_grad(); under lucid_c.no_grad() nothing "
    "is kept"
)


class Slot:
    """The gradient and the hooks of a leaf, or of an output of a node."""

    __slots__ = ("grad", "hooks", "retain")

    def __init__(self) -> None:
        self.grad: Tensor | None = None
        self.hooks: dict[int, Callable] = {}
        self.retain = False


class HookHandle:
    """What `Tensor.register_hook` gives; also a context manager that removes the hook."""

    def __init__(self, slot: Slot, key: int) -> None:
        self._slot, self._key = slot, key

    def remove(self) -> None:
        """Remove the hook; twice does no harm."""
        self._slot.hooks.pop(self._key, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _as_gradient(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return a float32 array of that shape; anything else is an error that names ``what``."""
    array = value._array() if isinstance(value, _core.Tensor) else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} must hold numbers, not {array.dtype}")
    if array.shape != tuple(shape):
        raise ValueError(f"{what} of shape {array.shape} does not fit a tensor of shape {shape}")
    return np.asarray(array, np.float32, order="C")


def _call_hooks(slot: Slot | None, array: np.ndarray) -> np.ndarray:
    from ._tensor import Tensor

    for hook in list(slot.hooks.values()) if slot else ():
        changed = hook(Tensor(array))
        if changed is not None:
            array = _as_gradient(changed, array.shape, "what a hook returns")
    return array


def _slot_of(edge: Any, make: bool = False) -> Slot | None:
    if isinstance(edge, Slot):
        return edge
    if isinstance(edge, tuple):
        return edge[0].slot(edge[1], make)
    return edge._slot(make)


def _key_of(edge: Any) -> Any:
    if isinstance(edge, tuple):
        return edge
    return id(edge) if isinstance(edge, Slot) else edge._key()


class _Walk:
    """Gradients on their way from outputs to leaves; nothing is stored before `commit`."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.ready: list[tuple[int, Any]] = []  # a heap: the newest node first
        self.coming: dict[Any, list[np.ndarray | None]] = {}  # node -> gradients of its outputs
        self.leaves: dict[Any, tuple[Any, np.ndarray]] = {}  # key -> leaf, gradient
        self.outputs: dict[Any, np.ndarray] = {}  # (node, output) -> gradient that was asked for
        self.retained: list[tuple[Slot, np.ndarray]] = []
        self.wanted: Any = ()

    def deliver(self, edge: Any, array: np.ndarray) -> None:
        if isinstance(edge, tuple):
            node, output = edge
            if node not in self.coming:
                self.coming[node] = [None] * node.outputs
                heapq.heappush(self.ready, (-node.order, node))
            known = self.coming[node][output]
            self.coming[node][output] = array if known is None else known + array
        else:
            key = _key_of(edge)
            if key in self.leaves:
                array = self.leaves[key][1] + array
            self.leaves[key] = edge, array

    def _arrived(self, node: Any, output: int, array: np.ndarray) -> np.ndarray:
        """The gradient of an output is complete: call its hooks, keep it where that is wanted."""
        slot = node.slot(output, False)
        array = _call_hooks(slot, array)
        if slot and slot.retain:
            self.retained.append((slot, array))
        if (node, output) in self.wanted:
            self.outputs[node, output] = array
        return array

    def _watch(self, node: Any, output: int, array: np.ndarray) -> None:
        """The same where the core has used it already: hooks can look but not change it."""
        if self._arrived(node, output, array) is not array:
            raise RuntimeError(
                "a hook on a tensor whose gradient comes from within one call cannot replace it; "
                "register it inside of the forward, on the value that is being recorded"
            )

    def run(self, wanted: Any = ()) -> None:
        self.wanted = wanted
        while self.ready:
            _, node = heapq.heappop(self.ready)
            arrays, edges = self.coming.pop(node), node.edges
            told = {edge for edge in edges if isinstance(edge, int)}
            for i, array in enumerate(arrays):
                if array is not None and i not in told:
                    arrays[i] = self._arrived(node, i, array)
            gradients = node.run(tuple(arrays), self.keep)
            for edge, array in zip(edges, gradients, strict=True):
                if isinstance(edge, int):
                    self._watch(node, edge, array)
                elif edge is not None and array is not None:
                    self.deliver(edge, array)
        for key, (edge, array) in self.leaves.items():
            self.leaves[key] = edge, _call_hooks(_slot_of(edge), array)

    def commit(self) -> None:
        """Add what has come to the leaves' gradients, all or none."""
        from ._tensor import Tensor, contents

        leaves = list(self.leaves.values())
        params = [pair for pair in leaves if not isinstance(pair[0], Slot)]
        sums: dict[Slot, np.ndarray] = {}
        for slot, array in [*leaves, *self.retained]:
            if isinstance(slot, Slot):
                known = sums.get(slot, slot.grad)
                sums[slot] = array if known is None else contents(known) + array
        _core.accumulate(params, [(slot, Tensor(array)) for slot, array in sums.items()])


def _edge_of(tensor: Any) -> Any:
    """Return where the gradient of a tensor goes; None if it has no way to have one."""
    tensor._array()  # recorded values get their history now
    if tensor._history:
        return tensor._history
    if not tensor.requires_grad:
        return None
    return tensor if tensor._is_param else tensor._slot(True)


def _seed(tensor: Any, gradient: Any, what: str) -> tuple[Any, np.ndarray]:
    edge = _edge_of(tensor)
    if edge is None:
        raise RuntimeError(NOT_KEPT)
    if gradient is not None:
        return edge, _as_gradient(gradient, tensor.shape, what)
    if tensor.numel() != 1:
        raise RuntimeError(
            f"a gradient can be made up for a tensor of one element alone; this one has shape "
            f"{tensor.shape}: pass {what}, or reduce it first, e.g. with sum() or mean()"
        )
    return edge, np.ones(tensor.shape, np.float32)


def gradients_of(
    outputs: list, seeds: list, inputs: list, keep: bool, allow_unused: bool
) -> list[np.ndarray | None]:
    """Return the gradients of the outputs with respect to the inputs; nothing is stored."""
    walk = _Walk(keep)
    roots = [_seed(y, dy, "grad_outputs") for y, dy in zip(outputs, seeds, strict=True)]
    edges = []
    for i, x in enumerate(inputs):
        edge = _edge_of(x)
        if edge is None:
            raise RuntimeError(f"input {i} does not require gradients")
        edges.append(edge)
    for edge, array in roots:
        walk.deliver(edge, array)
    walk.run({edge for edge in edges if isinstance(edge, tuple)})
    found = []
    for i, edge in enumerate(edges):
        if isinstance(edge, tuple):
            array = walk.outputs.get(edge)
        else:
            array = walk.leaves.get(_key_of(edge), (None, None))[1]
        if array is None and not allow_unused:
            raise RuntimeError(
                f"no output depends on input {i}; pass allow_unused=True for None there"
            )
        found.append(array)
    return found


class Gradients:
    """`backward`, gradients and hooks of tensors."""

    __slots__ = ()

    def backward(
        self, gradient: ArrayLike | None = None, retain_graph: bool = False, **other: Any
    ) -> None:
        """Compute gradients and add them to ``grad`` of the parameters and leaves it depends on.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient with respect to this tensor, of its shape. Only a tensor of one element can
            do without: then it is 1.
        retain_graph : bool, optional
            Keep what backward needs, so that it can be called again. It takes a copy of what was
            kept; by default that memory is given back.

        Raises
        ------
        RuntimeError
            If the forward kept nothing; if backward has been called already; if a parameter that is
            needed has been changed since. No gradient is changed then.
        ValueError
            If the gradient has another shape.
        """
        wrong = [name for name, value in other.items() if name != "create_graph" or value]
        if wrong:
            raise TypeError(f"backward() does not take {wrong[0]}: gradients have no gradients")
        walk = _Walk(bool(retain_graph))
        walk.deliver(*_seed(self, gradient, "gradient"))
        walk.run()
        walk.commit()

    @property
    def grad(self) -> "Tensor | None":
        """The gradient, or None.

        `backward` adds to that of leaves that require gradients; of other tensors it is kept after
        `retain_grad`. Setting it copies the numbers; None removes it.
        """
        if self._is_param:
            return _core.Tensor.grad.__get__(self)
        edge = self._history
        slot = _slot_of(edge) if edge else self._slot(False)
        return slot.grad if slot else None

    @grad.setter
    def grad(self, value: ArrayLike | None) -> None:
        from ._tensor import Tensor

        if self._is_param:
            _core.Tensor.grad.__set__(self, value)
            return
        slot = self._slot(False)
        if value is None:
            if slot:
                slot.grad = None
            return
        if self._history or not self.requires_grad:
            raise RuntimeError("only the grad of a leaf that requires gradients can be set")
        self._slot(True).grad = Tensor(np.array(_as_gradient(value, self.shape, "grad")))

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @property
    def is_leaf(self) -> bool:
        """Whether it was not computed from something that requires gradients."""
        if self._recorded:
            return not self.requires_grad
        return self._history is None

    @property
    def grad_fn(self) -> Any:
        """The node that it came out of; None for leaves."""
        if self._recorded and self.requires_grad:
            self._array()
        return self._history[0] if self._history else None

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad`."""
        self.requires_grad = requires_grad
        return self

    def _own_slot(self, what: str) -> Slot:
        edge = _edge_of(self)
        if edge is None:
            raise RuntimeError(f"{what} needs a tensor that requires gradients")
        return _slot_of(edge, True)

    def register_hook(self, hook: Callable[["Tensor"], Any]) -> HookHandle:
        """Call ``hook(gradient)`` whenever backward has computed the tensor's gradient.

        What it returns, unless None, replaces the gradient. On a value that is being recorded,
        inside of a model's forward, it first runs what has been recorded so far.
        """
        if not callable(hook):
            raise TypeError(f"a hook must be callable, not {hook!r}")
        slot = self._own_slot("register_hook()")
        key = next(_hook_keys)
        slot.hooks[key] = hook
        return HookHandle(slot, key)

    def retain_grad(self) -> None:
        """Let backward keep the gradient of a tensor that is no leaf in ``grad``."""
        slot = self._own_slot("retain_grad()")
        slot.retain = self._history is not None

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called on a tensor that is no leaf."""
        edge = self._history
        slot = _slot_of(edge) if edge else None
        return bool(slot and slot.retain)
