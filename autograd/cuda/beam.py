"""beam_step: a step of beam search as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, INT64, contiguous, device_of
from autograd.ops.large.beam import BeamStep, beam_step

_FLOAT64 = np.dtype(np.float64)
_MOST_ROWS = 32  # of a beam: one for each thread of a warp
_MOST_CONTINUATIONS = 2048  # of a sentence, for which there is shared memory


def _covers(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    found: Array | None,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    **_: Any,
) -> bool:
    beam, doubles = log_p.shape[1], (found, coverage, divisors)
    return (
        0 < beam <= _MOST_ROWS
        and beam * next_ids.shape[1] <= _MOST_CONTINUATIONS
        and (found is None or found.shape[1] <= beam)
        and next_log_p.dtype == FLOAT32
        and next_ids.dtype == limits.dtype == INT64
        and all(x is None or x.dtype == _FLOAT64 for x in doubles)
    )


@beam_step.on("cupy", "float64", covers=_covers)
def fast_beam_step(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    found: Array | None,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    length: int,
    divisor: float,
    end_id: int,
    groups: int = 1,
    diversity: float = 0.0,
    histories: Sequence[Array] = (),
) -> BeamStep:
    empty, (running, beam) = backend_of(log_p).empty, log_p.shape
    count = next_ids.shape[1]
    constants = {"BEAM": beam, "COUNT": count, "GROUPS": groups, "REAL_BYTES": 4}
    best = running, groups * min(beam * count // groups, 2 * (beam // groups))
    # The kernel reorders the slots of the KV cache, which each search has.
    in_kernel = next((x for x in histories if _is_history(x)), None)
    rows = empty((running * beam,), INT64)
    step = BeamStep(
        log_p=empty(log_p.shape, _FLOAT64),
        ids=empty(log_p.shape, np.dtype(np.int32)),
        found=None if found is None else empty(found.shape, _FLOAT64),
        best_log_p=empty(best, _FLOAT64),
        best_rows=empty(best, INT64),
        best_ids=empty(best, INT64),
        best_coverage=None if coverage is None else empty(best, _FLOAT64),
    )
    device_of(log_p).launch(
        *("beam", constants, "beam_step", (running,), 32),
        log_p=contiguous(log_p),
        next_log_p=contiguous(next_log_p),
        next_ids=contiguous(next_ids),
        found=None if found is None else contiguous(found),
        alternatives=0 if found is None else found.shape[1],
        coverage=None if coverage is None else contiguous(coverage),
        limits=contiguous(limits),
        divisors=contiguous(divisors),
        length=length,
        divisor=float(divisor),
        end_id=end_id,
        diversity=float(diversity),
        new_log_p=step.log_p,
        new_ids=step.ids,
        new_found=step.found,
        rows=rows,
        best_log_p=step.best_log_p,
        best_rows=step.best_rows,
        best_ids=step.best_ids,
        best_coverage=step.best_coverage,
        # The first columns of a wider matrix.
        history=None if in_kernel is None else in_kernel.data.ptr,
        stride=0 if in_kernel is None else in_kernel.strides[0] // in_kernel.itemsize,
        columns=0 if in_kernel is None else in_kernel.shape[1],
    )
    for x in histories:
        if x is not in_kernel:
            x[...] = x[rows]
    return step


def _is_history(x: Array) -> bool:
    """Whether the kernel can reorder it: rows of int32, each of them contiguous."""
    return bool(x.ndim == 2 and x.dtype == np.int32 and x.strides[1] == x.itemsize)
