"""Sequential and ModuleList."""

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Self

from numpy.typing import ArrayLike

from .. import _core
from .._tensor import Tensor
from .module import Module, NativeModule

__all__ = ["ModuleList", "Sequential"]


class _Numbered(NativeModule):
    """Children in order, found by position."""

    def _rows(self) -> list[tuple[str, Module]]:
        return [(name, value) for name, kind, value, _ in self._entries() if kind == "child"]

    def _name_at(self, index: Any) -> str:
        rows, place = self._rows(), operator.index(index)
        if not -len(rows) <= place < len(rows):
            raise IndexError(f"index {place} is out of range for {len(rows)} modules")
        return rows[place][0]

    def __len__(self) -> int:
        return len(self._rows())

    def __iter__(self) -> Iterator[Module]:
        return (value for _, value in self._rows())

    def __contains__(self, module: object) -> bool:
        return any(value is module for value in self)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._part(self._rows()[index])
        return self._get(self._name_at(index))

    def __setitem__(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"a Module is expected, not {type(module).__name__}")
        self._set_child(self._name_at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        gone = {name for name, _ in self._rows()[index]} if isinstance(index, slice) else None
        gone = {self._name_at(index)} if gone is None else gone
        self._replace([value for name, value in self._rows() if name not in gone])

    def _replace(self, modules: Iterable[Module]) -> None:
        """Number modules from 0 in place of what is there."""
        for name, _ in self._rows():
            self._remove(name)
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        taken = {name for name, _ in self._rows()}  # a slice keeps its modules' numbers
        number = next(n for n in count(len(taken)) if str(n) not in taken)
        self.register_module(str(number), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take a module out and return it; the later ones move up."""
        module = self[operator.index(index)]
        del self[index]
        return module

    def __add__(self, other: Iterable[Module]) -> Self:
        if not isinstance(other, (_Numbered, list, tuple)):
            return NotImplemented
        rows = [(str(i), module) for i, module in enumerate((*self, *other))]
        return self._part(rows)

    def __iadd__(self, other: Iterable[Module]) -> Self:
        if not isinstance(other, (_Numbered, list, tuple)):
            return NotImplemented
        return self.extend(other)

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before another one; the rest moves up."""
        if not isinstance(module, Module):
            raise TypeError(f"a Module is expected, not {type(module).__name__}")
        modules = list(self)
        modules.insert(index, module)
        self._replace(modules)
        return self


class Sequential(_Numbered):
    """Modules that are called one after the other.

    Parameters
    ----------
    *modules : Module
        In order, or one mapping of names to modules.
    """

    def __init__(self, *modules: Any) -> None:
        _core.init_sequential(self)
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, module)
        else:
            self.extend(modules)
        self._made(False)

    def _part(self, rows: list[tuple[str, Module]]) -> "Sequential":
        return type(self)(dict(rows))


class ModuleList(_Numbered):
    """A list of modules, whose parameters belong to the module that holds the list.

    Parameters
    ----------
    modules : iterable of Module, optional
        In order.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        _core.init_module_list(self)
        self.extend(modules or ())
        self._made(False)

    def forward(self, input: ArrayLike) -> Tensor:
        """Raise an error: a list is not called, its modules are."""
        raise NotImplementedError("a ModuleList is not called; call its modules")

    def _part(self, rows: list[tuple[str, Module]]) -> "ModuleList":
        return type(self)(value for _, value in rows)


CLASSES = {"Sequential": Sequential, "ModuleList": ModuleList}
