"""Fast implementations of the large operations on a GPU: CUDA kernels, and products by cuBLAS.

An operation's module is imported when the operation first runs. CuPy builds each kernel for the
sizes that it is used with, and caches it on disk.
"""

from __future__ import annotations

from autograd import ops

_BOTH = "float32", "bfloat16"

# The module of each implementation, and the dtypes that it handles.
MODULES = {
    ops.linear: ("linear", *_BOTH),
    ops.feed_forward: ("feed_forward", *_BOTH),
    ops.attention: ("attention", *_BOTH),
    ops.add_dropout_norm: ("norm", *_BOTH),
    ops.dropout: ("dropout", *_BOTH),
    ops.layer_norm: ("norm", *_BOTH),
    ops.embedding: ("embedding", *_BOTH),
    ops.projected_cross_entropy: ("cross_entropy", *_BOTH),
    ops.cached_attention: ("cached_attention", *_BOTH),
    ops.append_to_cache: ("cached_attention", *_BOTH),
    ops.top_k: ("top_k", *_BOTH),
    ops.largest: ("top_k", "float32"),
    ops.beam_step: ("beam", "float64"),
    ops.adam_step: ("adam", "float32"),
    ops.squared_norm: ("adam", "float32"),
}


def enable() -> None:
    """Let the large operations run their kernels on CuPy's arrays."""
    for operation, (module, *dtypes) in MODULES.items():
        operation.found_in(f"{__name__}.{module}", "cupy", *dtypes)
