"""All processes that a launcher has started together."""

from __future__ import annotations

import logging
import time
from functools import cache

from npformer.errors import UserError
from train.ranks.launcher import Launch, launched
from train.ranks.ranks import ALONE, Ranks
from train.ranks.threads import share_processors

_TURN, _LONGEST = 0.5, 10.0  # seconds


@cache
def world() -> Ranks:
    """The ranks that this process is one of, by what has launched it.

    MPI is started only if there are several. Raises UserError if it cannot be, or if it connects
    another number of processes than were launched.
    """
    launch = launched()
    if launch is None:
        return ALONE
    try:
        return _connected(launch)
    except UserError:
        # Nothing connects the processes, so they take turns: as soon as one has failed, a launcher
        # ends the others, before they say the same.
        time.sleep(min(launch.rank * _TURN, _LONGEST))
        raise


def _connected(launch: Launch) -> Ranks:
    started = f"{launch.launcher} has started {launch.size} processes"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError if there is no library of MPI
        raise UserError(
            f"{started}, and MPI cannot be imported on {launch.host} to connect them "
            f"({str(error).splitlines()[0]}): pip install 'npformer[mpi]', and an MPI: mpich, "
            "openmpi or that of your cluster"
        ) from error
    from train.ranks.mpi import MPIRanks

    connected = MPI.COMM_WORLD.Get_size()
    if connected != launch.size:
        version = MPI.Get_library_version().split(",")[0].split("\n")[0]
        raise UserError(
            f"{started}, and MPI connects {connected}: mpi4py uses another MPI ({version}) than "
            "the launcher; start them with the mpiexec of that MPI, or set MPI4PY_LIBMPI to the "
            "libmpi.so of the launcher's"
        )
    ranks = MPIRanks(MPI.COMM_WORLD, launch.host)
    share_processors(ranks, launch.host)
    unconnected = ranks.connect()
    if ranks.is_first:
        for rank, why in unconnected.items():
            logging.getLogger("npformer").warning(
                "%s cannot connect to %s (%s): if a rank is killed and the launcher does not end "
                "the others, they may wait for ever",
                ranks.name(rank),
                launch.host,
                why,
            )
    return ranks
