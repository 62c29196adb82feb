"""Machine code as a function of Python's, by llvmlite alone.

Code is a C function with Python's calling convention for functions written in C (METH_FASTCALL). So
a call costs less than that of a function written in Python.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from autograd.cpu.cache import Code

_FASTCALL = 0x0080  # METH_FASTCALL of <methodobject.h>

# The functions of numba's that code may need: what their names begin with, and where they are.
_OF_NUMBA = {"NRT_": "core.runtime._nrt_python", "numba_": "_helperlib"}


class CannotLinkError(Exception):
    """Machine code that needs what is not there."""


class _Method(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


# Code is never unloaded: when the interpreter ends, a thread may still run it. This list stays.
_kept: list[Any] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))

_numbers = itertools.count()

_new_function = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p
)(("PyCFunction_NewEx", ctypes.pythonapi))


def linked(code: Code, name: str, known: list[Any]) -> Callable[..., Any]:
    """The function that code is. Raises CannotLinkError.

    known: the objects that it gets as `self`.
    """
    builder = llvm.JITLibraryBuilder().add_object_img(code.object).export_symbol(code.entry)
    builder.add_current_process()
    for needed in code.needs:
        address = _address(needed)
        if address:
            builder.import_symbol(needed, address)
    try:
        library = builder.link(_linker(), f"loop{next(_numbers)}")
    except RuntimeError as error:
        raise CannotLinkError(str(error)) from error
    method = _Method(name.encode(), library[code.entry], _FASTCALL, None)
    _kept.extend((library, method))
    return _new_function(ctypes.addressof(method), tuple(known), None)


@cache
def _linker() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    linker = llvm.create_lljit_compiler(machine, suppress_errors=True)
    _kept.append(linker)
    return linker


def _address(symbol: str) -> int:
    """The address of a function of Python's or of numba's; 0 for those of the system."""
    if symbol.startswith("Py"):
        return int(ctypes.cast(getattr(ctypes.pythonapi, symbol), ctypes.c_void_p).value or 0)
    found = llvm.address_of_symbol(symbol)  # if numba has been imported
    for start, module in _OF_NUMBA.items():
        if not found and symbol.startswith(start):
            found = _functions_of(module).get(symbol.removeprefix(start))
    return int(found or 0)


@cache
def _functions_of(module: str) -> dict[str, int]:
    """The addresses of functions of an extension module of numba's, without importing numba."""
    name = f"numba.{module}"
    if name in sys.modules:
        functions: dict[str, int] = sys.modules[name].c_helpers
        return functions
    numba = importlib.util.find_spec("numba")
    for folder in (numba and numba.submodule_search_locations) or []:
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder, *module.split(".")).with_suffix(suffix)
            if path.is_file():
                found = importlib.util.spec_from_file_location(name, path)
                made = importlib.util.module_from_spec(found)
                found.loader.exec_module(made)
                sys.modules.pop(name, None)  # which is for numba to fill
                return dict(made.c_helpers)
    return {}
