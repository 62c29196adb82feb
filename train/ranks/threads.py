"""How many threads a rank computes with.

Alone, a process has a thread for each processor that it may use. Several ranks on a host would so
have several threads for each processor, which are in each other's way, since idle ones spin for a
while. So each gets its part: on 16 processors, 4 ranks have 4 threads each, whether the launcher
lets every rank use all 16 processors or binds it to 4 of its own.

NUMBA_NUM_THREADS, of the compiled loops, and OPENBLAS_NUM_THREADS and its like, of the library that
multiplies matrices without them, hold where they are set.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from fractions import Fraction

from train.processors import usable_processors
from train.ranks.ranks import Ranks

_OF_LIBRARIES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def share_processors(ranks: Ranks, host: str) -> int:
    """Limit this rank's threads to its part of the processors of `host`. Collective.

    Returns how many processors that are, whatever the environment says. Must be called before the
    first operation that is compiled, which starts the threads.
    """
    own = usable_processors()
    found = ranks.all((host, own))
    threads = share(own, [processors for name, processors in found if name == host])
    os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))
    if not any(name in os.environ for name in _OF_LIBRARIES):
        with suppress(ImportError):  # a dependency of the extra `mpi`
            from threadpoolctl import threadpool_limits

            threadpool_limits(threads)
    return threads


def share(own: Collection[int], of_each: Iterable[Collection[int]]) -> int:
    """The number of threads, at least 1, of a rank that may use the processors `own`.

    of_each: the processors that each rank on the host may use, this one included. A processor
    counts for the same part to all that may use it.
    """
    users = Counter(processor for processors in of_each for processor in processors)
    return max(1, int(sum(Fraction(1, users[processor]) for processor in own)))
