"""Which GPU of its host each rank computes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations

from autograd.cuda.opening import choose_gpu, gpu_count
from train.ranks.ranks import AgreedError, Ranks

# With it NCCL, from 2.30 on, lets ranks share a GPU: slow, but enough to try things out.
_MAY_SHARE = "NCCL_MULTI_RANK_GPU_ENABLE"


def choose_device(ranks: Ranks, hosts: Sequence[str], backend: str) -> None:
    """Have each rank's arrays of a backend on a GPU of its own, if it is the backend of GPUs.

    hosts: the name of each rank's host. Of the GPUs that a rank sees, it takes the one with its
    number among the ranks of its host, whether it sees all of them or one that no other rank sees.

    Collective. Raises UserError on all ranks if a rank has no GPU, or two have the same.
    """
    if backend != "cupy":
        return
    number = hosts[: ranks.rank].count(hosts[ranks.rank])
    with ranks.together():
        seen = gpu_count()
        address = choose_gpu(number % seen)
    found = ranks.all((seen, address))
    if os.environ.get(_MAY_SHARE) == "1":
        return
    for one, other in combinations(range(ranks.size), 2):
        seen, address = found[other]
        if hosts[one] == hosts[other] and found[one][1] == address:
            gpus = "1 GPU" if seen == 1 else f"{seen} GPUs"
            raise AgreedError(
                f"rank {one} and rank {other} would both compute on GPU {address} of "
                f"{hosts[one]}, which shows {gpus} to {hosts.count(hosts[one])} ranks; start no "
                "more ranks on a host than it has GPUs, and let each see all of them, or one of "
                "its own (CUDA_VISIBLE_DEVICES, srun --gpus-per-task)"
            )
