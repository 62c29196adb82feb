"""Checks that all ranks are about to do, and have done, the same."""

from __future__ import annotations

import zlib

import numpy as np

from autograd import to_host
from autograd.backend import Array
from npformer.errors import UserError
from train.ranks.ranks import Ranks


def check_same_parameters(ranks: Ranks, values: Array, step: int) -> None:
    """Raise UserError on all ranks unless they have the same parameters, to the last bit."""
    if ranks.size == 1:
        return
    sums = ranks.all(zlib.crc32(np.ascontiguousarray(to_host(values)).data))
    with ranks.together():
        for rank, found in enumerate(sums):
            if found != sums[0]:
                raise UserError(
                    f"after step {step} rank {rank} has other parameters than rank 0: their "
                    "processors, GPUs or libraries differ; use machines of one kind"
                )
