"""What compiled code is made of: functions that are compiled, and instructions.

Both are only marked here. Numba, which takes long to import, turns them into functions of its own
where something has to be compiled: it asks whatever it meets in a function for its `_numba_type_`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any


class Piece:
    """A function that compiled code calls. Called from Python, it runs as it is written.

    Attributes:
        py_func, targetoptions: the function, and numba's options; by these names numba finds out
            whether it inlines a function, and which
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        functools.update_wrapper(self, function)
        self.py_func, self.targetoptions = function, options

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)

    @cached_property
    def _numba_type_(self) -> Any:
        # Its type refers to it weakly.
        self._compiled = import_module("numba").njit(
            no_cpython_wrapper=True, no_cfunc_wrapper=True, **self.targetoptions
        )(self.py_func)
        return self._compiled._numba_type_


class Instruction:
    """What only compiled code can call: an intrinsic in a module of autograd.cpu.compiling."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self.__name__ = module, name

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"only compiled code can call {self.__name__}")

    @cached_property
    def _numba_type_(self) -> Any:
        intrinsic = getattr(import_module(f"{_COMPILING}.{self._module}"), self.__name__)
        context = import_module("numba.core.registry").cpu_target.typing_context
        context.refresh()  # it has to know what the module defines
        return context.resolve_value_type(intrinsic)


def instructions(module: str, *names: str) -> list[Instruction]:
    """The instructions of a module of autograd.cpu.compiling, to be called by these names."""
    return [Instruction(module, name) for name in names]


_COMPILING = f"{__package__}.compiling"
