"""What has started this process: mpirun, srun, or nobody that starts several."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

# The launcher's own names first: under srun, MPI's variables may describe another launcher.
_VARIABLES = (
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("mpirun of Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("mpirun", "PMI_SIZE", "PMI_RANK"),
)


class Launch(NamedTuple):
    """How many processes a launcher has started, and which of them this is."""

    launcher: str
    size: int
    rank: int


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What the environment says of a launcher that has started several processes, if one has."""
    for launcher, size, rank in _VARIABLES:
        if int(environment.get(size, 1)) > 1:
            return Launch(launcher, int(environment[size]), int(environment.get(rank, 0)))
    return None
