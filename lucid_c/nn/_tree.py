"""Walks over the tree of modules: children, parameters, buffers."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from .. import _core
from .._tensor import Parameter, Tensor, known

if TYPE_CHECKING:
    from .module import Module


class Tree(_core.Module):
    """The part of `Module` that looks at what is below."""

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield the modules directly below, with their names, each once."""
        seen = set()
        for name, kind, value, _ in self._entries():
            if kind == "child" and value is not None and value not in seen:
                seen.add(value)
                yield name, value

    def children(self) -> Iterator["Module"]:
        """Yield the modules directly below, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, "Module"]]:
        """Yield this module and all below with their dotted names; this one's is ``prefix``."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, kind, value, _ in self._entries():
            if kind == "child" and value is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from value.named_modules(memo, path, remove_duplicate)

    def modules(self) -> Iterator["Module"]:
        """Yield this module and all below, each once."""
        return (module for _, module in self.named_modules())

    def _named(
        self, wanted: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        below = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in below:
            for name, kind, value, _ in module._entries():
                if kind == wanted and value is not None and value._key() not in seen:
                    if remove_duplicate:
                        seen.add(value._key())
                    yield (f"{path}.{name}" if path else name), known(value)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters of this module and all below, with their dotted names."""
        return self._named("param", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters of this module and all below, each once."""
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers of this module and all below, with their dotted names."""
        return self._named("buffer", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers of this module and all below, each once."""
        return (value for _, value in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> "Module":
        """Return the module with that dotted name; ``""`` is this one."""
        module = self
        for name in target.split(".") if target else ():
            module = getattr(module, name)
            if not isinstance(module, Tree):
                raise AttributeError(f"{name!r} in {target!r} is not a module")
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter with that dotted name."""
        path, _, name = target.rpartition(".")
        value = getattr(self.get_submodule(path), name)
        if not isinstance(value, Parameter):
            raise AttributeError(f"{target!r} is not a parameter")
        return value

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer with that dotted name."""
        path, _, name = target.rpartition(".")
        rows = self.get_submodule(path)._entries()
        found = [value for label, kind, value, _ in rows if label == name and kind == "buffer"]
        if not found or found[0] is None:
            raise AttributeError(f"{target!r} is not a buffer")
        return known(found[0])

    def apply(self, function: Callable[["Module"], Any]) -> Self:
        """Call a function with every module below and then with this one."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def num_parameters(self) -> int:
        """Return how many numbers are trained; shared ones count once."""
        return sum(value.numel() for value in self.parameters())
