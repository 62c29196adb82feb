"""Ranks with a GPU each, emulated, train through NCCL as one process does, and end together."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.mpi import MPIEXEC, ONE_THREAD, needs_mpi, run_on_ranks
from tests.train import hosts
from tests.train.ranks_alike import key_biases
from tests.train.ranks_on_gpus import LAST, STEPS, new_model
from tests.train.runs import timeless
from tests.train.small_corpus import make_corpus
from tests.without_gpu import cupy
from train.runs.metrics import read_metrics

REASON = cupy.reason_to_skip()
pytestmark = [
    needs_mpi,
    pytest.mark.skipif(bool(REASON), reason=REASON),
    pytest.mark.limit(600),  # the first run builds kernels
]
EMULATED = "tests.without_gpu.cupy.run"


class Ended(NamedTuple):
    """How a command on two ranks has ended, and all that it has said."""

    status: int
    said: str


def on_two_ranks(*words: object, gpus: tuple[int, int] = (2, 2), **variables: str) -> Ended:
    """Run python -m WORDS on emulated GPUs, of which each rank sees so many.

    The launcher does not end a rank since another has.
    """
    one = [sys.executable, "-m", EMULATED, *map(str, words)]
    (first, *begin), (second, *more) = (
        ["-n", "1", "env", f"{cupy.GPUS}={count}", *one] for count in gpus
    )
    assert MPIEXEC is not None
    alone = "-disable-auto-cleanup"
    return ended([MPIEXEC, alone, first, *begin, ":", second, *more], **variables)


def ended(words: list[str], **variables: str) -> Ended:
    """Run a command, on ranks of one thread each, to its end."""
    done = subprocess.run(
        words,
        env={**os.environ, **ONE_THREAD, **variables},
        timeout=500,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus")).directory


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ranks_on_gpus.py has written."""
    out = tmp_path_factory.mktemp("ranks")
    script = "tests.train.ranks_on_gpus"
    run_on_ranks(2, EMULATED, script, "runs", corpus, out, **{cupy.GPUS: "2"})
    return out


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[Any, Any]]:
    """What each rank has found."""
    results: list[dict[Any, Any]] = pickle.loads((folder / "found.pickle").read_bytes())
    return results


def test_each_rank_has_the_gpu_of_its_number(found: list[dict[Any, Any]], folder: Path) -> None:
    assert [of_rank["device"] for of_rank in found] == [0, 1]
    reports = [json.loads((folder / f"run/ranks/{rank}.json").read_text()) for rank in range(2)]
    assert [report["device"].split(" (")[0] for report in reports] == ["GPU 0", "GPU 1"]


def assert_as_alone(found: list[dict[Any, Any]], precision: str, tolerance: float) -> None:
    """Assert that both ranks have what one of them had alone, but for rounding."""
    alone = found[["float32", "bf16"].index(precision)]["alone", precision]
    first, second = (of_rank[precision] for of_rank in found)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    np.testing.assert_allclose(first["numbers"], alone["numbers"], rtol=tolerance)
    for step in range(STEPS):
        difference = np.linalg.norm(first["gradients"][step] - alone["gradients"][step])
        assert difference < tolerance * np.linalg.norm(alone["gradients"][step])
    compared = ~key_biases(new_model())
    np.testing.assert_allclose(
        first["parameters"][:, compared], alone["parameters"][:, compared], atol=tolerance
    )


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_losses_gradients_and_parameters_are_those_of_one_process(
    found: list[dict[Any, Any]], precision: str
) -> None:
    assert_as_alone(found, precision, 1e-5)


def test_hosts_with_a_gpu_each_train_as_one_process(corpus: Path, tmp_path: Path) -> None:
    if why := hosts.missing():
        pytest.skip(f"several hosts on one machine: {why}")
    assert MPIEXEC is not None
    with hosts.two_hosts(tmp_path) as two:
        begin = [*two.on_first, MPIEXEC, "-launcher-exec", str(two.remote_shell)]
        where = ["-hosts", ",".join(two.addresses), "-ppn", "1", "-iface", "eth0", "-n", "2"]
        script = [sys.executable, "-m", EMULATED, "tests.train.ranks_on_gpus", "sums"]
        done = ended([*begin, *where, *script, str(corpus), str(tmp_path)], **{cupy.GPUS: "1"})
    assert done.status == 0, done.said
    found = pickle.loads((tmp_path / "found.pickle").read_bytes())
    assert [of_rank["device"] for of_rank in found] == [0, 0]
    for precision in ("float32", "bf16"):
        assert_as_alone(found, precision, 1e-5)


def assert_overlapped(found: list[dict[Any, Any]]) -> None:
    """Assert that the first rank went through its backward pass while sums were under way."""
    first, second = (of_rank["overlapped"] for of_rank in found)
    assert first["pending"]
    assert first["sent"][len(first["sent"]) // 2] > 0
    np.testing.assert_array_equal(first["gradients"], second["gradients"])


def test_sums_are_under_way_while_the_backward_pass_goes_on(found: list[dict[Any, Any]]) -> None:
    assert_overlapped(found)


def test_a_run_has_the_metrics_of_one_process_and_resumes(folder: Path) -> None:
    run, alone = (timeless(read_metrics(folder / name)) for name in ("run", "alone"))
    assert len(run) == len(alone) == LAST + 1
    for entry, expected in zip(run, alone, strict=True):
        assert entry == pytest.approx(expected, rel=1e-5)


def test_each_rank_tells_of_a_sum_that_has_failed(found: list[dict[Any, Any]]) -> None:
    for of_rank in found:
        message = of_rank["mistaken"]
        assert message.startswith("NCCL cannot connect the GPUs (NCCL_ERROR_INVALID_USAGE: ")
        assert "NCCL_DEBUG=WARN" in message


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed by NCCL", "not noticed by NCCL"])
def test_a_rank_that_has_gone_ends_the_other(corpus: Path, tmp_path: Path, noticed: bool) -> None:
    variables = {} if noticed else {cupy.SILENT: "1"}
    done = on_two_ranks("tests.train.ranks_on_gpus", "left", corpus, tmp_path, **variables)
    assert done.status != 0
    assert done.said.count("npformer: error: ") == 1, done.said
    assert "npformer: error: rank 1 on " in done.said
    assert " has gone without a word, so all ranks end" in done.said


def error_of(done: Ended) -> str:
    """The one line that the user is told."""
    assert done.status == 2, done.said
    (line,) = done.said.splitlines()
    return line


def test_two_ranks_on_one_card_are_refused(corpus: Path, tmp_path: Path) -> None:
    run = ["--data", corpus, "--out", tmp_path / "run", "--backend", "cupy"]
    line = error_of(on_two_ranks("train", "train", *run, gpus=(1, 1)))
    assert "rank 0 and rank 1 would both compute on GPU 0000:01:00.0 of " in line
    assert ", which shows 1 GPU to 2 ranks; " in line
    assert not (tmp_path / "run").exists()


def test_a_rank_without_a_gpu_is_named(tmp_path: Path) -> None:
    words = ["translate", "--model", tmp_path / "model", "--backend", "cupy"]
    line = error_of(on_two_ranks("train", *words, gpus=(1, 0)))
    assert line.startswith("npformer: error: rank 1 on ")
    assert ": the backend 'cupy' finds no usable GPU (" in line
