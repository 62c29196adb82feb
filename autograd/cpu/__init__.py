"""Fast implementations of the large operations, for float32 on NumPy: loops compiled by numba.

Numba is optional (the extra `fast`) and slow to import, so it is imported when the first of these
operations runs. Without it their references run.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from autograd import ops
from autograd.op import Kernel

_MODULES = {
    ops.linear: "linear",
    ops.attention: "attention",
    ops.add_dropout_norm: "norm",
    ops.layer_norm: "norm",
    ops.dropout: "norm",
    ops.embedding: "embedding",
    ops.projected_cross_entropy: "cross_entropy",
    ops.cached_attention: "cached_attention",
    ops.append_to_cache: "cached_attention",
    ops.likeliest_symbols: "likeliest",
    ops.adam_step: "adam",
    ops.squared_norm: "adam",
}


def enable() -> None:
    """Have the large operations run their fast implementations, where numba can be imported."""
    for kernel in _MODULES:
        kernel.on("numpy")(_at_first_call(kernel))


def disable() -> None:
    """Have the large operations run their references."""
    for kernel in _MODULES:
        kernel.on("numpy")(kernel.reference)


def _at_first_call(kernel: Kernel) -> Any:
    """Stands for a fast implementation until it is needed: then its module takes this place."""

    def implementation(*arrays: Any, **settings: Any) -> Any:
        try:
            import_module(f"autograd.cpu.{_MODULES[kernel]}")
        except (ImportError, AttributeError, TypeError) as error:  # no numba, or another one
            disable()
            logging.getLogger("autograd").info(
                "running without compiled loops (%s): pip install 'npformer[fast]' makes this "
                "several times faster",
                error,
            )
        return kernel.implementation(arrays[0])(*arrays, **settings)

    return implementation
