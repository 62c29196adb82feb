"""Compiling a function for some kinds of arguments, by numba, to machine code that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba import njit
from numba.core import compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from autograd.cpu.cache import Code
from autograd.cpu.compiling.entry import add_entry, types_of
from autograd.cpu.kinds import Kind


@global_compiler_lock
def machine_code(
    function: Callable[..., Any], options: dict[str, Any], kinds: Sequence[Kind]
) -> Code:
    """The machine code of a function; `options` are those of numba's njit."""
    arguments = types_of(function, kinds)
    typing, context = cpu_target.typing_context, cpu_target.target_context
    flags = compiler.Flags()
    cpu_target.options.parse_as_flags(flags, njit(**options)(function).targetoptions)
    flags.no_compile = True  # before its entry is beside it
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    typing.refresh()
    context.refresh()
    made = compiler.compile_extra(typing, context, function, arguments, None, flags, {})
    entry = add_entry(context, made.library, made.fndesc, kinds)
    made.library.finalize()
    declared = [f.name for f in made.library._final_module.functions if f.is_declaration]
    needs = [name for name in declared if not name.startswith("llvm.")]
    return Code(entry, needs, made.library._get_compiled_object())
