"""What has started this process: mpiexec, srun, or nobody that starts several."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

OPEN_MPI = "Open MPI"


class _Variables(NamedTuple):
    """What a launcher sets in the environment of a process: names of variables."""

    launcher: str
    size: str
    rank: str
    host: str


# Within a job of Slurm, mpiexec has srun start its daemons, one on each host, so that processes
# have the variables of both. Those of mpiexec come first.
_LAUNCHERS = (
    _Variables(
        f"the mpiexec of {OPEN_MPI}",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "PMIX_HOSTNAME",
    ),
    _Variables("mpiexec", "PMI_SIZE", "PMI_RANK", "PMI_HOSTNAME"),
    _Variables("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURMD_NODENAME"),
)

# A batch script, or the shell of salloc, is a step of a single process. It may have inherited the
# number of tasks of another step.
_SLURM_SHELLS = {str(0xFFFF_FFFB), str(0xFFFF_FFFA)}


class Launch(NamedTuple):
    """How many processes a launcher has started, which of them this is, and where.

    host: what the launcher calls this host
    """

    launcher: str
    size: int
    rank: int
    host: str


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What the environment says of a launcher that has started several processes, if one has.

    How many processes a job may start (SLURM_NTASKS) does not count, only how many were started.
    """
    for variables in _LAUNCHERS:
        size = environment.get(variables.size, "")
        if not size.isdecimal() or _is_a_shell(variables, environment):
            continue
        if int(size) < 2:
            return None
        rank = environment.get(variables.rank, "")
        return Launch(
            variables.launcher,
            int(size),
            int(rank) if rank.isdecimal() else 0,
            environment.get(variables.host) or socket.gethostname(),
        )
    return None


def end_others(status: int, environment: Mapping[str, str] = os.environ) -> None:
    """Have the launcher end all processes, where no MPI can. To be called before this one ends.

    Most launchers do so by themselves if a process ends with another status than 0. That of MPICH
    does not unless MPI was started, and the others may wait in just that. It is told by PMI-1.
    """
    descriptor = environment.get("PMI_FD", "")
    if descriptor.isdecimal():
        with contextlib.suppress(OSError):
            os.write(int(descriptor), f"cmd=abort exitcode={status}\n".encode())


def _is_a_shell(variables: _Variables, environment: Mapping[str, str]) -> bool:
    return variables.launcher == "srun" and environment.get("SLURM_STEP_ID") in _SLURM_SHELLS
