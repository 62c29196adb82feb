"""What has started this process, and an MPI that cannot connect several."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.train.runs import refusal
from train.__main__ import main
from train.ranks.launcher import Launch, end_others, launched
from train.ranks.ranks import ALONE
from train.ranks.world import world

HYDRA = {"PMI_SIZE": "3", "PMI_RANK": "2", "PMI_HOSTNAME": "node2", "PMI_FD": "9"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "PMIX_RANK": "1",
    "PMIX_HOSTNAME": "node1",
}
SRUN = {
    "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURMD_NODENAME": "node3",
}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        (HYDRA, Launch("mpiexec", 3, 2, "node2")),
        (OPEN_MPI, Launch("the mpiexec of Open MPI", 2, 1, "node1")),
        (SRUN, Launch("srun", 4, 3, "node3")),
        # mpiexec has srun start a daemon on each of two hosts, which start three processes.
        (SRUN | {"SLURM_STEP_NUM_TASKS": "2"} | HYDRA, Launch("mpiexec", 3, 2, "node2")),
        # mpiexec that is called in the shell of an interactive step
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"} | HYDRA, launched(HYDRA)),
    ],
)
def test_a_launcher_is_known_by_its_variables(environment: dict[str, str], launch: Launch) -> None:
    assert launched(environment) == launch


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"PMI_SIZE": "", "PMI_RANK": ""},
        # A batch script: its job has four tasks, and none of them is started.
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},
        # The shell of salloc, which keeps what it was called with.
        SRUN | {"SLURM_STEP_ID": str(0xFFFF_FFFA)},
        SRUN | {"SLURM_STEP_ID": str(0xFFFF_FFFB)},
        # One process of mpiexec, on a host where srun has started daemons.
        SRUN | {"PMI_SIZE": "1", "PMI_RANK": "0"},
    ],
)
def test_a_process_alone_is_not_taken_for_one_of_several(environment: dict[str, str]) -> None:
    assert launched(environment) is None


def test_a_host_without_a_name_from_the_launcher_has_its_own() -> None:
    launch = launched({"PMI_SIZE": "2", "PMI_RANK": "0"})
    assert launch is not None
    assert launch.host == os.uname().nodename


@pytest.fixture
def two_by_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if srun had started two processes, of which this is the first."""
    monkeypatch.setattr("train.ranks.world.launched", lambda: Launch("srun", 2, 0, "node0"))
    world.cache_clear()


def _library(monkeypatch: pytest.MonkeyPatch, version: str, size: int = 1) -> None:
    """As if mpi4py used this library, which connects `size` processes."""
    package, module = ModuleType("mpi4py"), ModuleType("mpi4py.MPI")
    values: dict[str, Any] = {
        "Get_library_version": lambda: version,
        "Is_initialized": lambda: True,
        "COMM_WORLD": SimpleNamespace(Get_size=lambda: size),
    }
    module.__dict__.update(values)
    package.__dict__.update(rc=SimpleNamespace(), MPI=module)
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", module)


@pytest.mark.usefixtures("two_by_srun")
class TestNoWorld:
    """What is said when several processes cannot be connected."""

    def test_mpi4py_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        message = refusal(world)
        assert message.startswith("srun has started 2 processes, and MPI cannot be imported on")
        assert "pip install 'npformer[mpi]'" in message

    def test_there_is_no_library_of_mpi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class NoLibrary(ModuleType):
            rc = SimpleNamespace()

            def __getattr__(self, name: str) -> Any:
                raise RuntimeError("cannot load MPI library\nlibmpi.so.12: no such file")

        monkeypatch.setitem(sys.modules, "mpi4py", NoLibrary("mpi4py"))
        assert "on node0 to connect them (cannot load MPI library): pip" in refusal(world)

    def test_another_mpi_connects_each_process_with_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _library(monkeypatch, "MPICH Version:      5.0.2\nMPICH Release date: ...")
        message = refusal(world)
        assert message.startswith("srun has started 2 processes, and MPI connects 1: start them")
        assert "(MPICH Version: 5.0.2)" in message

    def test_another_mpi_is_refused_before_open_mpi_ends_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        launch = Launch("the mpiexec of Open MPI", 2, 0, "node0")
        monkeypatch.setattr("train.ranks.world.launched", lambda: launch)
        _library(monkeypatch, "MPICH Version:      5.0.2", size=2)
        assert "has started 2 processes, and mpi4py uses another MPI" in refusal(world)

    def test_others_wait_for_the_first_to_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr("train.ranks.world.time.sleep", slept.append)
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        for rank in (0, 1, 63):
            launch = Launch("srun", 64, rank, "node0")
            monkeypatch.setattr("train.ranks.world.launched", lambda launch=launch: launch)
            refusal(world)
        assert slept[0] == 0 < slept[1] < slept[2] <= 10

    def test_the_command_line_tells_in_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        assert main(["status", "none"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("npformer: error: srun has started 2 processes")
        assert said.count("\n") == 1


def test_a_launcher_of_mpich_is_told_to_end_all() -> None:
    reading, writing = os.pipe()
    end_others(2, {"PMI_FD": str(writing)})
    assert os.read(reading, 100) == b"cmd=abort exitcode=2\n"
    os.close(reading)
    os.close(writing)
    end_others(2, {"PMI_FD": str(writing)})  # a descriptor that is closed
    end_others(2, {})


def test_a_process_alone_imports_nothing_of_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.ranks.world.launched", lambda: None)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    world.cache_clear()
    assert world() is ALONE
