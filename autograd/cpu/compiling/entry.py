"""The entry of a compiled function: a C function that Python calls.

It has the calling convention METH_FASTCALL. It looks whether its arguments are of the kinds
that it was compiled for, and returns NotImplemented if they are not. Otherwise it reads them, lets
go of Python's global lock, and calls the function, whose result is an integer or None.

`self` is a tuple of the objects that arguments are compared with (autograd.cpu.kinds.known).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np.numpy_support import from_dtype

from autograd.cpu.kinds import (
    ALIGNED,
    C_CONTIGUOUS,
    FLAGS,
    WRITEABLE,
    Kind,
    OfArray,
    OfNumber,
    OfTuple,
    known,
)

_INT, _WORD = ir.IntType(32), ir.IntType(64)
_POINTER = ir.IntType(8).as_pointer()  # to an object, mostly
_ENTRY = ir.FunctionType(_POINTER, [_POINTER, _POINTER.as_pointer(), _WORD])

# Where things are in Python's objects: the type at the end of what all have, then a number's value,
# or what the public struct PyArrayObject_fields has.
_VALUE = object.__basicsize__
_TYPE = _VALUE - 8
_DATA, _NDIM, _SHAPE, _STRIDES, _BASE, _DTYPE, _FLAGS = (_VALUE + 8 * i for i in range(7))
_TUPLE_LENGTH, _TUPLE_PARTS = _VALUE, tuple.__basicsize__

_NUMBERS = {int: types.int64, float: types.float64, bool: types.boolean, type(None): types.none}


def type_of(kind: Kind) -> types.Type:
    """Numba's type of arguments of a kind."""
    if isinstance(kind, OfArray):
        layout = "C" if kind.flags & C_CONTIGUOUS else "A"
        writeable, aligned = bool(kind.flags & WRITEABLE), bool(kind.flags & ALIGNED)
        number = from_dtype(kind.dtype)
        return types.Array(number, kind.ndim, layout, readonly=not writeable, aligned=aligned)
    if isinstance(kind, OfTuple):
        of_class = None if kind.type is tuple else kind.type
        return types.BaseTuple.from_types(tuple(map(type_of, kind.kinds)), of_class)
    return _NUMBERS.get(kind.type) or from_dtype(np.dtype(kind.type))


def types_of(function: Callable[..., Any], kinds: Sequence[Kind]) -> tuple[types.Type, ...]:
    """Numba's types of the parameters of a function, of which the last may be `*arguments`."""
    found = tuple(map(type_of, kinds))
    named = function.__code__.co_argcount
    if not function.__code__.co_flags & inspect.CO_VARARGS:
        return found
    return *found[:named], types.StarArgTuple.from_types(found[named:])


def add_entry(context: Any, library: Any, function: Any, kinds: Sequence[Kind]) -> str:
    """Add the entry of a compiled function to its library. Returns its symbol."""
    module = context.create_module(f"{function.mangled_name}.entry")
    entry = ir.Function(module, _ENTRY, module.name)
    made = _Entry(context, ir.IRBuilder(entry.append_basic_block()), kinds)
    made.call(function, kinds, *entry.args)
    library.add_ir_module(module)
    return str(entry.name)


class _Entry:
    def __init__(self, context: Any, builder: ir.IRBuilder, kinds: Sequence[Kind]) -> None:
        self.context, self.builder = context, builder
        self.known = known(kinds)

    def call(self, function, kinds, own, arguments, count):
        """The whole function."""
        builder = self.builder
        self.own = own
        self.others = builder.append_basic_block("others")
        with builder.goto_block(self.others):
            builder.ret(self.returned(NotImplemented))
        self.expect(builder.icmp_unsigned("==", count, _WORD(len(kinds))))
        objects = [builder.load(builder.gep(arguments, [_WORD(i)])) for i in range(len(kinds))]
        values = [self.value(kind, x) for kind, x in zip(kinds, objects, strict=True)]
        last = function.argtypes[-1]
        if isinstance(last, (types.StarArgTuple, types.StarArgUniTuple)):
            named = len(function.argtypes) - 1
            values[named:] = [self.context.make_tuple(builder, last, values[named:])]
        thread = self.python("PyEval_SaveThread", _POINTER)
        callee = self.context.declare_function(builder.module, function)
        status, result = self.context.call_conv.call_function(
            builder, callee, function.restype, function.argtypes, values
        )
        self.python("PyEval_RestoreThread", ir.VoidType(), thread)
        with cgutils.if_unlikely(builder, status.is_error):  # it lacks memory
            builder.ret(self.python("PyErr_NoMemory", _POINTER))
        if function.restype == types.none:
            builder.ret(self.returned(None))
        else:
            assert function.restype == types.int64
            builder.ret(self.python("PyLong_FromLongLong", _POINTER, result))

    def value(self, kind: Kind, x):
        """The value of an argument, if it is of this kind."""
        builder = self.builder
        if isinstance(kind, OfArray):
            return self.array(kind, x)
        if isinstance(kind, OfTuple):
            self.expect_type(x, kind.type)
            length = self.field(x, _TUPLE_LENGTH, _WORD)
            self.expect(builder.icmp_unsigned("==", length, _WORD(len(kind.kinds))))
            parts = [self.field(x, _TUPLE_PARTS + 8 * i) for i in range(len(kind.kinds))]
            values = [self.value(of, part) for of, part in zip(kind.kinds, parts, strict=True)]
            return self.context.make_tuple(builder, type_of(kind), values)
        return self.number(kind, x)

    def number(self, kind: OfNumber, x):
        builder = self.builder
        if kind.type is type(None):
            self.expect(self.is_known(x, None))
            return self.context.get_dummy_value()
        if kind.type is bool:
            is_true = self.is_known(x, True)
            self.expect(builder.or_(is_true, self.is_known(x, False)))
            return is_true
        self.expect_type(x, kind.type)
        if kind.type is int:
            overflow = cgutils.alloca_once(builder, _INT)
            value = self.python("PyLong_AsLongLongAndOverflow", _WORD, x, overflow)
            self.expect(builder.icmp_signed("==", builder.load(overflow), _INT(0)))
            return value
        model = self.context.data_model_manager[type_of(kind)]
        place = self.pointer(x, _VALUE, model.get_data_type())
        return model.load_from_data_pointer(builder, place)

    def array(self, kind: OfArray, x):
        builder = self.builder
        self.expect_type(x, np.ndarray)
        self.expect(self.is_known(self.field(x, _DTYPE), kind.dtype))
        self.expect(builder.icmp_signed("==", self.field(x, _NDIM, _INT), _INT(kind.ndim)))
        flags = builder.and_(self.field(x, _FLAGS, _INT), _INT(FLAGS))
        self.expect(builder.icmp_unsigned("==", flags, _INT(kind.flags)))
        array = self.context.make_array(type_of(kind))(self.context, builder)
        words = [self.field(x, at, _WORD.as_pointer()) for at in (_SHAPE, _STRIDES)]
        shape, strides = (
            [builder.load(builder.gep(of, [_WORD(i)])) for i in range(kind.ndim)] for of in words
        )
        size = _WORD(1)
        for length in shape:
            size = builder.mul(size, length, flags=["nsw"])
        array.data = builder.bitcast(self.field(x, _DATA), array.data.type)
        array.shape = cgutils.pack_array(builder, shape, _WORD)
        array.strides = cgutils.pack_array(builder, strides, _WORD)
        array.itemsize, array.nitems = _WORD(kind.dtype.itemsize), size
        # The caller keeps the array: nothing here counts who has it.
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()

    def expect(self, condition) -> None:
        """Go on if the condition holds, else return NotImplemented."""
        further = self.builder.append_basic_block("further")
        self.builder.cbranch(condition, further, self.others)
        self.builder.position_at_end(further)

    def expect_type(self, x, of_class: type) -> None:
        self.expect(self.is_known(self.field(x, _TYPE), of_class))

    def is_known(self, x, other: Any):
        """Whether x is an object that is known."""
        return self.builder.icmp_unsigned("==", x, self.object(other))

    def object(self, x: Any):
        """A pointer to a known object."""
        [place] = [i for i, other in enumerate(self.known) if other is x]
        return self.field(self.own, _TUPLE_PARTS + 8 * place)

    def returned(self, x: Any):
        """A known object, as the result."""
        x = self.object(x)
        self.python("Py_IncRef", ir.VoidType(), x)
        return x

    def pointer(self, x, offset: int, kind: ir.Type):
        return self.builder.bitcast(self.builder.gep(x, [_WORD(offset)]), kind.as_pointer())

    def field(self, x, offset: int, kind: ir.Type = _POINTER):
        """What is at an offset in an object."""
        return self.builder.load(self.pointer(x, offset, kind))

    def python(self, name: str, result: ir.Type, *arguments):
        """Call a function of Python's."""
        kind = ir.FunctionType(result, [x.type for x in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, arguments)
