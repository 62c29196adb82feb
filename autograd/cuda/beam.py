"""beam_step: a step of beam search as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autograd.backend import Array, array_module, backend_of
from autograd.cuda.device import FLOAT32, INT64, as_indices, contiguous, device_of
from autograd.ops.large.beam import Trace, beam_step

_FLOAT64, _INT32 = np.dtype(np.float64), np.dtype(np.int32)
_MOST_ROWS = 32  # of a beam: one for each thread of a warp
_MOST_CONTINUATIONS = 2048  # of a sentence, for which there is shared memory


def _covers(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    ids: Array,
    found: Array | None,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    trace: Trace,
    **_: Any,
) -> bool:
    beam, doubles = log_p.shape[1], (found, coverage, divisors, trace.log_p, trace.coverage)
    in_place = log_p, ids, found, *trace
    return (
        0 < beam <= _MOST_ROWS
        and beam * next_ids.shape[1] <= _MOST_CONTINUATIONS
        and (found is None or found.shape[1] <= beam)
        and next_log_p.dtype == FLOAT32
        and next_ids.dtype == limits.dtype == INT64
        and ids.dtype == trace.rows.dtype == trace.ids.dtype == _INT32
        and all(x is None or x.dtype == _FLOAT64 for x in doubles)
        and all(x is None or x.flags.c_contiguous for x in in_place)
    )


@beam_step.on("cupy", "float64", covers=_covers)
def fast_beam_step(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    ids: Array,
    found: Array | None,
    until_full: bool = False,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    lengths: Array,
    end_id: int,
    groups: int = 1,
    diversity: float = 0.0,
    tokens: Sequence[Array] = (),
    histories: Sequence[Array] = (),
    trace: Trace,
    sentence_ids: Array,
) -> None:
    running, beam = log_p.shape
    constants = {"BEAM": beam, "COUNT": next_ids.shape[1], "GROUPS": groups, "REAL_BYTES": 4}
    lengths = as_indices(lengths)
    # The kernel reorders the slots of the KV cache, which each search has.
    in_kernel = next((x for x in tokens if _in_rows(x)), None)
    others = [x for x in tokens if x is not in_kernel]
    rows = backend_of(log_p).empty((running * beam,), INT64) if others or histories else None
    device_of(log_p).launch(
        *("beam", constants, "beam_step", (running,), 32),
        log_p=log_p,
        next_log_p=contiguous(next_log_p),
        next_ids=contiguous(next_ids),
        ids=ids,
        found=found,
        kept=0 if found is None else found.shape[1],
        until_full=int(until_full),
        coverage=None if coverage is None else contiguous(coverage),
        limits=contiguous(limits),
        divisors=contiguous(divisors),
        lengths=lengths,
        end_id=end_id,
        diversity=float(diversity),
        tokens_so_far=in_kernel,
        stride=0 if in_kernel is None else in_kernel.strides[0] // in_kernel.itemsize,
        rows=rows,
        trace_log_p=trace.log_p,
        trace_rows=trace.rows,
        trace_ids=trace.ids,
        trace_coverage=trace.coverage,
        places=trace.log_p.shape[1],
        sentence_ids=as_indices(sentence_ids),
    )
    xp = array_module(log_p)
    for x in others:
        x[...] = xp.where(xp.arange(x.shape[1]) < lengths[:, None], x[rows], x)
    for x in histories:
        x[...] = x[rows]


def _in_rows(x: Array) -> bool:
    """Whether the kernel can reorder it: int32, each row of it contiguous."""
    return bool(x.dtype == _INT32 and x.strides[1] == x.itemsize)
