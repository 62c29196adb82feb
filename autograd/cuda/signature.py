"""The parameters that kernels' sources declare, and arguments in the form that the driver expects.

A launcher passes arrays, None for a null pointer, and Python's numbers, by the names of the
kernel's parameters. Their types are declared once, in the kernel. A struct is passed as a tuple of
its fields.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)'
)
_PARAMETER = re.compile(
    r"\s*(?:const )?(?:__grid_constant__ )?"
    r"(?P<kind>\w+(?: \w+)*?)(?P<pointer>\*)? (?P<name>\w+)\s*"
)
_POINTER = "P"
SUMS = 96  # in the table that a launch of sum_parts takes (sums.cu)
# The types that a kernel may take by value, in the notation of the module struct. A struct's first
# field is its widest, and so determines its alignment; "x" is padding at its end.
_VALUES = {
    "unsigned": "I",
    "int": "i",
    "long long": "q",
    "float": "f",
    "double": "d",
    "Matrix": "PN",
    "Mask": "PP6If4x",
    "Sums": SUMS * "PPIIi" + "0P",
}


class Parameter(NamedTuple):
    """`code` is the type for the module struct; `pointee` is a pointer's target type, else None."""

    name: str
    code: str
    pointee: str | None

    @property
    def fields(self) -> int:
        """How many values are passed for it."""
        return len(struct.unpack(self.code, bytes(struct.calcsize(self.code))))


def signatures(text: str) -> dict[str, list[Parameter]]:
    """The parameters of every kernel in a source."""
    return {
        name: [_parameter(declared) for declared in between.split(",") if between.strip()]
        for name, between in _KERNEL.findall(text)
    }


def _parameter(declared: str) -> Parameter:
    found = _PARAMETER.fullmatch(declared)
    if found is None or (found["pointer"] is None and found["kind"] not in _VALUES):
        raise ValueError(f"a launcher cannot pass this parameter of a kernel: {declared.strip()!r}")
    if found["pointer"]:
        return Parameter(found["name"], _POINTER, found["kind"])
    return Parameter(found["name"], _VALUES[found["kind"]], None)


def in_order(kernel: str, parameters: Sequence[Parameter]) -> Callable[[Mapping[str, Any]], Any]:
    """A function that takes a kernel's arguments by name, and returns them in order.

    The function raises TypeError if the names are not those of the kernel's parameters.
    """
    names = [p.name for p in parameters]
    select = itemgetter(*names, names[0])  # one extra: for a single name it returns no tuple

    def ordered(arguments: Mapping[str, Any]) -> Any:
        try:
            found = select(arguments)
        except KeyError:
            found = ()
        if len(found) != len(arguments) + 1:
            raise TypeError(f"{kernel} takes {', '.join(names)}, got {', '.join(arguments)}")
        return found[:-1]

    return ordered


class Arguments:
    """A buffer for the arguments of a kernel.

    `pointers` is the address of an array of pointers to the arguments, for the driver.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        codes = [p.code for p in parameters]
        layout = struct.Struct("@" + "".join(codes))
        self._pack_into = layout.pack_into
        self._buffer = ctypes.create_string_buffer(layout.size)
        first = ctypes.addressof(self._buffer)
        # "0I" has no size, but the alignment of the type.
        widest = [code.lstrip("0123456789")[0] for code in codes]
        offsets = [
            struct.calcsize("@" + "".join(codes[:i]) + "0" + widest[i]) for i in range(len(codes))
        ]
        self._addresses = (ctypes.c_void_p * len(codes))(*(first + offset for offset in offsets))
        self.pointers = ctypes.addressof(self._addresses)

    def put(self, values: Sequence[int | float]) -> None:
        """Store the arguments, arrays as addresses. Raises struct.error if they do not fit."""
        self._pack_into(self._buffer, 0, *values)
