"""All processes that a launcher has started together."""

from __future__ import annotations

from npformer.errors import UserError
from train.ranks.launcher import launched
from train.ranks.ranks import ALONE, Ranks


def world() -> Ranks:
    """The ranks that this process is one of, by what has launched it.

    MPI is started only if there are several. Raises UserError if it cannot be, or if it connects
    another number of processes than were launched.
    """
    launch = launched()
    if launch is None:
        return ALONE
    try:
        from mpi4py import MPI

        from train.ranks.mpi import MPIRanks
    except ImportError as error:
        raise UserError(
            f"{launch.launcher} has started {launch.size} processes, and MPI cannot be imported "
            f"to connect them ({error}): pip install 'npformer[mpi]'"
        ) from error
    ranks = MPIRanks(MPI.COMM_WORLD)
    if ranks.size != launch.size:
        raise UserError(
            f"{launch.launcher} has started {launch.size} processes, and MPI connects "
            f"{ranks.size}: mpi4py uses another MPI than that of {launch.launcher}; start them "
            "with the mpiexec of mpi4py's MPI, or install mpi4py for this one"
        )
    return ranks
