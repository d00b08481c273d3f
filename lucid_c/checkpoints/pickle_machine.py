# SPDX-License-Identifier: MIT
"""A pickle reader that builds data and runs nothing.

The machine knows the opcodes, imports no module and calls no object from the file. A global
such as ``os.system`` becomes a `Placeholder`, an inert note of its name; calling one gives
either the value that an allow-listed rule makes (see `torch_globals`) or another placeholder.
All sizes are checked against the bytes that are really there before anything is allocated, and
the number of objects is limited.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .entry import Blob, Entry, MemoryBlob
from .pickle_stream import MAX_LINE, FileStream
from .placeholder import Placeholder

# An object costs 1, a container 10, a copy its length: at most a few hundred MB in all.
BUDGET = 5_000_000
MAX_INT_BYTES = 256
MAX_TUPLE_KEYS = 4096
_MARK = object()

Rule = Callable[["Machine", tuple], Any]


class Machine:
    """One pickle, read opcode by opcode.

    Parameters
    ----------
    stream : FileStream
        Where the pickle begins; afterwards it stands behind its end.
    rules : Mapping of str to callable
        What calling a global gives: ``rule(machine, args)``. Without a rule: a placeholder.
    persistent : callable, optional
        What a persistent id (a storage) stands for: ``persistent(machine, id)``.
    """

    def __init__(
        self,
        stream: FileStream,
        rules: Mapping[str, Rule],
        persistent: Rule | None = None,
    ) -> None:
        self._stream = stream
        self._rules = rules
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._budget = BUDGET
        self._tuple_keys = 0

    def load(self) -> Any:
        """Run to the end of the pickle and return its object."""
        take = self._stream.take
        try:
            while True:
                opcode = take(1)
                self._budget -= 1
                if self._budget < 0:
                    raise ValueError("the pickle holds too many objects")
                if opcode == b".":
                    return self.pop()
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise ValueError(f"unsupported pickle opcode {opcode!r}")
                action(self)
        except IndexError:
            raise ValueError("broken pickle: its stack is empty") from None

    def charge(self, cost: int) -> None:
        """Pay for an allocation that is larger than its opcode."""
        self._budget -= cost
        if self._budget < 0:
            raise ValueError("the pickle holds too many objects")

    # Stack and numbers.

    def push(self, value: Any) -> None:
        """Push a value."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Pop a value; a mark is not one."""
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("broken pickle: a mark where a value should be")
        return value

    def pop_marked(self) -> list:
        """Pop all values above the last mark, and the mark."""
        stack = self._stack
        index = len(stack) - 1
        while stack[index] is not _MARK:
            index -= 1
            if index < 0:
                raise ValueError("broken pickle: no mark")
        items = stack[index + 1 :]
        del stack[index:]
        return items

    def _top(self) -> Any:
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("broken pickle: a mark where a value should be")
        return value

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._stream.take(struct.calcsize(layout)))[0]

    def _text_line(self) -> str:
        return self._stream.line().decode("utf-8", "replace")

    # Opcodes with an argument in the file.

    def _int_line(self) -> None:
        text = self._text_line()
        self.push(text == "01" if text in ("00", "01") else _int(text))

    def _long_line(self) -> None:
        self.push(_int(self._text_line().removesuffix("L")))

    def _long_binary(self, layout: str) -> None:
        count = self._number(layout)
        if not 0 <= count <= MAX_INT_BYTES:
            raise ValueError(f"the pickle holds an integer of {count} bytes")
        self.push(int.from_bytes(self._stream.take(count), "little", signed=True))

    def _float_line(self) -> None:
        try:
            self.push(float(self._text_line()))
        except ValueError:
            raise ValueError("broken pickle: not a number") from None

    def _unicode(self, layout: str) -> None:
        data = self._stream.take(self._number(layout))
        self.push(data.decode("utf-8", "surrogatepass"))

    def _byte_string(self, data: bytes | Blob) -> None:
        # A str of Python 2: text if it can be, else bytes.
        if isinstance(data, Blob):
            self.push(data)
            return
        try:
            self.push(data.decode("utf-8"))
        except UnicodeDecodeError:
            self.push(data)

    def _string_line(self) -> None:
        text = self._stream.line()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[:1] != text[-1:]:
            raise ValueError("broken pickle: a string without quotes")
        if b"\\" in text:
            raise ValueError("unsupported pickle: a string with escapes (protocol 0)")
        self._byte_string(text[1:-1])

    def _bytes(self, layout: str) -> None:
        self.push(self._stream.take_bytes(self._number(layout)))

    def _frame(self) -> None:
        self._number("<Q")

    def _protocol(self) -> None:
        if (version := self._number("B")) > 5:
            raise ValueError(f"unsupported pickle protocol {version}")

    # Containers.

    def _container(self, value: Any) -> None:
        self.charge(10)
        self.push(value)

    def _tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self._container(tuple(reversed(items)))

    def _append(self) -> None:
        value = self.pop()
        self._extend([value])

    def _extend(self, items: list) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise ValueError("broken pickle: append to something that is not a list")

    def _set_item(self) -> None:
        value = self.pop()
        self._set_items([self.pop(), value])

    def _set_items(self, items: list) -> None:
        target = self._top()
        if isinstance(target, dict):
            target.update(self.pairs(items[::2], items[1::2]))
        elif not isinstance(target, Placeholder):
            raise ValueError("broken pickle: an item for something that is not a dict")

    def _add_items(self) -> None:
        items = self.pop_marked()
        target = self._top()
        if isinstance(target, set):
            target.update(self.keys(items))
        elif not isinstance(target, Placeholder):
            raise ValueError("broken pickle: an element for something that is not a set")

    def _dict(self) -> None:
        items = self.pop_marked()
        self._container(self.pairs(items[::2], items[1::2]))

    def pairs(self, keys: list, values: list) -> dict:
        """Make a dict of keys and values."""
        if len(keys) != len(values):
            raise ValueError("broken pickle: a key without a value")
        return dict(zip(self.keys(keys), values, strict=True))

    def keys(self, items: list) -> list:
        """Make items fit to be keys: what may take long to hash becomes a placeholder."""
        return [item if self._is_key(item) else _stand_in(item) for item in items]

    def _is_key(self, item: Any) -> bool:
        if not isinstance(item, tuple):
            return _is_simple(item)
        self._tuple_keys += 1
        return (
            self._tuple_keys <= MAX_TUPLE_KEYS
            and len(item) <= 8
            and all(_is_simple(part) for part in item)
        )

    # Memo.

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"broken pickle: nothing stored under {index}")
        self.push(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    # Globals and calls.

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("broken pickle: a global without a name")
        if len(module) + len(name) > MAX_LINE:
            raise ValueError("broken pickle: a global with a very long name")
        self._container(Placeholder(f"{_MODULES.get(module, module)}.{name}"))

    def _stack_global(self) -> None:
        name = self.pop()
        self._global(self.pop(), name)

    def call(self, function: Any, args: Any) -> Any:
        """Give what calling a global stands for; nothing of the file is really called."""
        if not isinstance(function, Placeholder):
            raise ValueError(f"the pickle calls an object of type {type(function).__name__}")
        if not isinstance(args, tuple):
            raise ValueError(f"the pickle calls {function.name} without a tuple of arguments")
        self.charge(10)
        rule = self._rules.get(function.name)
        return Placeholder(function.name, args) if rule is None else rule(self, args)

    def _reduce(self) -> None:
        args = self.pop()
        self.push(self.call(self.pop(), args))

    def _new_object_with_keywords(self) -> None:
        self.pop()
        self._reduce()

    def _object(self) -> None:
        function, *args = self.pop_marked() or [None]
        self.push(self.call(function, tuple(args)))

    def _instance(self) -> None:
        self._global(self._text_line(), self._text_line())
        function = self.pop()
        self.push(self.call(function, tuple(self.pop_marked())))

    def _build(self) -> None:
        state = self.pop()
        target = self._top()
        if isinstance(target, Placeholder):
            target.state = state
        elif hasattr(target, "set_state"):
            target.set_state(self, state)
        elif not isinstance(target, (dict, Entry)):
            raise ValueError(f"broken pickle: state for an object of type {type(target).__name__}")

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise ValueError("the pickle refers to storages outside of it")
        self.push(self._persistent(self, self.pop()))


def as_blob(value: Any) -> Blob | MemoryBlob | None:
    """Return the bytes of a pickled bytes or Python 2 str value; None if it is something else."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray)):
        return MemoryBlob(bytes(value))
    return value if isinstance(value, Blob) else None


def _int(text: str) -> int:
    try:
        if len(text) > MAX_INT_BYTES:
            raise ValueError
        return int(text)
    except ValueError:
        raise ValueError("broken pickle: not an integer") from None


def _is_simple(value: Any) -> bool:
    # Integers beyond 64 bits could be chosen to collide.
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 64
    simple = (str, bytes, float, np.generic, Placeholder, Entry)
    return value is None or isinstance(value, simple)


def _stand_in(value: Any) -> Placeholder:
    return Placeholder(f"builtins.{type(value).__name__}", (value,))


# Old names of modules.
_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}

_ACTIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine._protocol,
    b"\x95": Machine._frame,
    b"(": lambda m: m.push(_MARK),
    b"0": lambda m: m._stack.pop(),
    b"1": lambda m: m.pop_marked(),
    b"2": lambda m: m.push(m._top()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": Machine._int_line,
    b"L": Machine._long_line,
    b"J": lambda m: m.push(m._number("<i")),
    b"K": lambda m: m.push(m._number("B")),
    b"M": lambda m: m.push(m._number("<H")),
    b"\x8a": lambda m: m._long_binary("B"),
    b"\x8b": lambda m: m._long_binary("<i"),
    b"F": Machine._float_line,
    b"G": lambda m: m.push(m._number(">d")),
    b"V": lambda m: m.push(m._text_line()),
    b"X": lambda m: m._unicode("<I"),
    b"\x8c": lambda m: m._unicode("B"),
    b"\x8d": lambda m: m._unicode("<Q"),
    b"S": Machine._string_line,
    b"U": lambda m: m._byte_string(m._stream.take(m._number("B"))),
    b"T": lambda m: m._byte_string(m._stream.take_bytes(m._number("<i"))),
    b"C": lambda m: m._bytes("B"),
    b"B": lambda m: m._bytes("<I"),
    b"\x8e": lambda m: m._bytes("<Q"),
    b"\x96": lambda m: m._bytes("<Q"),
    b"]": lambda m: m._container([]),
    b"l": lambda m: m._container(m.pop_marked()),
    b"a": Machine._append,
    b"e": lambda m: m._extend(m.pop_marked()),
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._container(tuple(m.pop_marked())),
    b"}": lambda m: m._container({}),
    b"d": Machine._dict,
    b"s": Machine._set_item,
    b"u": lambda m: m._set_items(m.pop_marked()),
    b"\x8f": lambda m: m._container(set()),
    b"\x90": Machine._add_items,
    b"\x91": lambda m: m._container(frozenset(m.keys(m.pop_marked()))),
    b"g": lambda m: m._get(_int(m._text_line())),
    b"h": lambda m: m._get(m._number("B")),
    b"j": lambda m: m._get(m._number("<I")),
    b"p": lambda m: m._put(_int(m._text_line())),
    b"q": lambda m: m._put(m._number("B")),
    b"r": lambda m: m._put(m._number("<I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"c": lambda m: m._global(m._text_line(), m._text_line()),
    b"\x93": Machine._stack_global,
    b"R": Machine._reduce,
    b"\x81": Machine._reduce,
    b"\x92": Machine._new_object_with_keywords,
    b"i": Machine._instance,
    b"o": Machine._object,
    b"b": Machine._build,
    b"Q": Machine._persistent_id,
}
