"""Fast implementations of the large operations for float32 on NumPy: loops compiled by numba.

Numba is optional (the extra `fast`). It is imported only to compile: machine code is kept on disk.
If it is missing or cannot be imported, the references of these operations run. Any other fault is
an error.
"""

from __future__ import annotations

import functools
import logging
from importlib import import_module

from autograd import ops
from autograd.backend import Array, NoRecorder, Recorder

MODULES = {
    ops.linear: "linear",
    ops.feed_forward: "feed_forward",
    ops.swish: "activations",
    ops.gelu: "activations",
    ops.attention: "attention",
    ops.add_dropout_norm: "norm",
    ops.layer_norm: "norm",
    ops.dropout: "norm",
    ops.embedding: "embedding",
    ops.no_token_first: "embedding",
    ops.projected_cross_entropy: "cross_entropy",
    ops.cached_attention: "cached_attention",
    ops.append_to_cache: "cached_attention",
    ops.count_up: "cached_attention",
    ops.top_k: "top_k",
    ops.beam_step: "beam",
    ops.int8_linear: "int8",
    ops.int8_embedding: "int8",
    ops.int8_top_k: "int8_top_k",
    ops.adam_step: "adam",
    ops.squared_norm: "adam",
}

# Of their first arguments, where it is not float32.
_OTHER_DTYPES = {
    ops.no_token_first: ("int32",),
    ops.count_up: ("int32",),
    ops.beam_step: ("float64",),
}

# What importing numba raises if it is missing, or too old or too new for NumPy or Python.
_BROKEN = (ImportError, AttributeError, TypeError, SystemError, OSError)


def enable() -> None:
    """Let the large operations run their fast implementations, if numba can be imported."""
    for operation, module in MODULES.items():
        dtypes = _OTHER_DTYPES.get(operation, ())
        operation.found_in(f"{__name__}.{module}", "numpy", *dtypes, usable=_loops_can_run)


def disable() -> None:
    """Let the large operations run their references. What is recorded goes on playing loops."""
    for operation in MODULES:
        operation.forget("numpy", *_OTHER_DTYPES.get(operation, ()))


def recorder() -> Recorder:
    """What makes functions whose loops are played back (recording.py), if numba is there."""
    if not _loops_can_run():
        return NoRecorder()
    made: Recorder = import_module(f"{__name__}.recording").LoopRecorder()
    return made


def pack_for_top_k(weight: Array, rows: int, earlier: Array | None) -> Array | None:
    """See `Backend`: the weight as panels, if there are loops and so many rows that they pay."""
    if not _loops_can_run():
        return None
    packed: Array | None = import_module(f"{__name__}.top_k").packed_weight(weight, rows, earlier)
    return packed


def add_to(total: Array, x: Array) -> None:
    """total += x, shared by all threads if that pays."""
    if _loops_can_run():
        import_module(f"{__name__}.addition").add_to(total, x)
    else:
        total += x


@functools.cache
def _loops_can_run() -> bool:
    """Whether there is numba, or what it has compiled before; logs one warning if not.

    Where it has compiled something, with the same versions of everything, it can be imported.
    """
    try:
        if not import_module(f"{__name__}.cache").opened().is_filled:
            import_module("numba")
    except _BROKEN as error:
        logging.getLogger("autograd").warning(
            "running without compiled loops (%s): pip install 'npformer[fast]' makes this several "
            "times faster",
            error,
        )
        return False
    return True
