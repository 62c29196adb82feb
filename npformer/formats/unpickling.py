"""A reader of pickles that executes nothing.

A pickle is a program for a small stack machine, and Python's own reader lets it import and call
anything. This one knows the few instructions and names that a PyTorch state dict needs. A name is
only ever compared: what it would call becomes one of the plain records below. Every other
instruction, and every other name, is refused.
"""

from __future__ import annotations

import pickletools  # for the names of instructions
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from npformer.errors import UserError

MAGIC = b"\x80\x02"  # how a pickle of protocol 2 begins, the only one that PyTorch writes
LARGEST_PICKLE = 4 << 20  # bytes: a model's needs a few hundred thousand

_ORDERED_DICT = "collections.OrderedDict"
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": "<f4",
        "Double": "<f8",
        "Half": "<f2",
        "BFloat16": "bfloat16",
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}
_NAMES = {_ORDERED_DICT, _TENSOR, _PARAMETER, *STORAGES}


class PickleError(UserError):
    """What a pickle holds that a state dict does not."""


@dataclass(frozen=True)
class Name:
    """Something that a pickle would import."""

    text: str


@dataclass(frozen=True)
class Storage:
    """The memory of tensors. dtype: as NumPy has it, or bfloat16; count: of numbers."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class StridedTensor:
    """A tensor in a storage: offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class _Machine:
    """The state of a pickle that is being read. numbers: see `unpickled`."""

    data: memoryview
    position: int
    numbers: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.position + count
        if end > len(self.data):
            raise PickleError("it is cut short")
        found = bytes(self.data[self.position : end])
        self.position = end
        return found

    def number(self, form: str) -> Any:
        """The next number, in a format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """The text up to the next line feed."""
        found = bytearray()
        while (byte := self.take(1)) != b"\n":
            found += byte
            if len(found) > _LONGEST_NAME:
                raise PickleError("a name in it is too long")
        return _text(bytes(found))

    def pop(self) -> Any:
        """The top of the stack."""
        least = self.marks[-1] if self.marks else 0
        if len(self.stack) <= least:
            raise PickleError("it takes something from an empty stack")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        """Everything above the last mark."""
        if not self.marks:
            raise PickleError("it goes back to a mark that was never set")
        first = self.marks.pop()
        found = self.stack[first:]
        del self.stack[first:]
        return found

    def top(self, kind: type) -> Any:
        """The top of the stack, which stays there."""
        value = self.pop()
        self.stack.append(value)
        if type(value) is not kind:
            raise PickleError(f"it fills {_kind(value)} as if it were a {kind.__name__}")
        return value


_LONGEST_NAME = 200
_LARGEST_STORAGE = 1 << 48  # numbers
_KNOWN_TO_PYTHON = {code.code: code.name for code in pickletools.opcodes}


def unpickled(data: memoryview, position: int = 0, numbers: int = 0) -> tuple[Any, int]:
    """The value of the pickle at a position, and where it ends.

    It is made of dicts, lists, tuples, texts, numbers, None and the records of this module. The
    keys of dicts are texts, and numbers below `numbers`. Raises PickleError if it has anything
    else.
    """
    limit = position + LARGEST_PICKLE
    machine = _Machine(data[:limit], position, numbers)
    if machine.take(1) != b"\x80" or machine.take(1) != b"\x02":
        raise PickleError("it is no pickle of protocol 2, the one that PyTorch writes")
    while (code := machine.take(1)) != b".":
        instruction = _INSTRUCTIONS.get(code)
        if instruction is None:
            name = _KNOWN_TO_PYTHON.get(code.decode("latin-1"), repr(code))
            raise PickleError(f"it has the instruction {name}, which a state dict does not need")
        instruction(machine)
    if machine.marks or len(machine.stack) != 1:
        raise PickleError("it ends with other things than one value")
    return machine.pop(), machine.position


def _push(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value(machine))


def _mark(machine: _Machine) -> None:
    machine.marks.append(len(machine.stack))


def _global(machine: _Machine) -> Name:
    name = f"{machine.line()}.{machine.line()}"
    if name not in _NAMES:
        raise PickleError(f"it names {name!r:.100}, which a state dict does not need")
    return Name(name)


def _persistent(machine: _Machine) -> Storage:
    about = machine.pop()
    if type(about) is not tuple or len(about) not in (5, 6) or about[0] != "storage":
        raise PickleError("it refers to something that is not the memory of a tensor")
    _, kind, key, _, count = about[:5]
    if len(about) == 6 and about[5] is not None:
        raise PickleError("it has a storage that is a view of another one")
    if type(kind) is not Name or kind.text not in STORAGES or type(key) is not str:
        raise PickleError("it has a storage of an unknown kind")
    if type(count) is not int or not 0 <= count <= _LARGEST_STORAGE:
        raise PickleError("it has a storage of an impossible size")
    return Storage(key, STORAGES[kind.text], count)


def _reduce(machine: _Machine) -> Any:
    arguments, name = machine.pop(), machine.pop()
    if type(name) is not Name or type(arguments) is not tuple:
        raise PickleError(f"it calls {_kind(name)}")
    if name.text == _ORDERED_DICT and not arguments:
        return {}
    if name.text == _TENSOR and len(arguments) >= 4:
        storage, offset, shape, strides = arguments[:4]
        if (
            type(storage) is Storage
            and type(offset) is int
            and _whole_numbers(shape)
            and _whole_numbers(strides)
            and len(shape) == len(strides)
        ):
            return StridedTensor(storage, offset, shape, strides)
    if name.text == _PARAMETER and arguments and type(arguments[0]) is StridedTensor:
        return arguments[0]
    raise PickleError(f"it calls {name.text} with unusual arguments")


def _whole_numbers(value: Any) -> bool:
    return type(value) is tuple and all(type(i) is int for i in value)


def _build(machine: _Machine) -> None:
    machine.pop()  # attributes of an OrderedDict: versions of modules, which nothing needs
    machine.top(dict)


def _set_items(machine: _Machine, values: list[Any]) -> None:
    if len(values) % 2:
        raise PickleError("it has a key without a value")
    target = machine.top(dict)
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Of large integers, many could have the same hash.
        if type(key) is not str and not (type(key) is int and 0 <= key < machine.numbers):
            raise PickleError(f"it has {_kind(key)} as a key")
        target[key] = value


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _append(machine: _Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)


def _append_one(machine: _Machine) -> None:
    value = machine.pop()
    _append(machine, [value])


def _put(machine: _Machine, index: int) -> None:
    value = machine.pop()
    machine.stack.append(value)
    machine.memo[index] = value


def _get(machine: _Machine, index: int) -> Any:
    if index not in machine.memo:
        raise PickleError(f"it refers to the value {index}, which was never kept")
    return machine.memo[index]


def _tuple(count: int) -> Callable[[_Machine], None]:
    def instruction(machine: _Machine) -> None:
        found = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(found[::-1]))

    return instruction


def _long(machine: _Machine) -> int:
    return int.from_bytes(machine.take(machine.number("<B")), "little", signed=True)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise PickleError("it has a text that is not UTF-8") from error


def _kind(value: Any) -> str:
    return repr(value.text) if type(value) is Name else f"a {type(value).__name__}"


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _mark,
    b"N": _push(lambda machine: None),
    b"\x88": _push(lambda machine: True),
    b"\x89": _push(lambda machine: False),
    b"J": _push(lambda machine: machine.number("<i")),
    b"K": _push(lambda machine: machine.number("<B")),
    b"M": _push(lambda machine: machine.number("<H")),
    b"\x8a": _push(_long),
    b"G": _push(lambda machine: machine.number(">d")),
    b"X": _push(lambda machine: _text(machine.take(machine.number("<I")))),
    b")": _push(lambda machine: ()),
    b"]": _push(lambda machine: []),
    b"}": _push(lambda machine: {}),
    b"t": _push(lambda machine: tuple(machine.pop_marked())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"s": _set_item,
    b"u": lambda machine: _set_items(machine, machine.pop_marked()),
    b"a": _append_one,
    b"e": lambda machine: _append(machine, machine.pop_marked()),
    b"q": lambda machine: _put(machine, machine.number("<B")),
    b"r": lambda machine: _put(machine, machine.number("<I")),
    b"h": _push(lambda machine: _get(machine, machine.number("<B"))),
    b"j": _push(lambda machine: _get(machine, machine.number("<I"))),
    b"c": _push(_global),
    b"Q": _push(_persistent),
    b"R": _push(_reduce),
    b"b": _build,
}
