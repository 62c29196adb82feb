"""Which GPU each rank takes, and one sentence where two would have the same."""

from __future__ import annotations

import re
import threading
import types

import pytest

from tests.train.runs import refusal
from tests.train.thread_ranks import in_threads
from train.ranks import devices, nccl
from train.ranks.nccl import NCCLTransport
from train.ranks.ranks import ALONE, Ranks

ONE_HOST, TWO_HOSTS = ["a"] * 4, ["a", "a", "b", "b"]


def chosen(
    hosts: list[str], seen: list[str], monkeypatch: pytest.MonkeyPatch, backend: str = "cupy"
) -> str:
    """The GPUs that the ranks take, a letter each.

    hosts: of each rank. seen: the GPUs that each of them sees, a letter each
    """
    of_thread = threading.local()

    def choose_gpu(number: int) -> str:
        of_thread.gpu = of_thread.seen[number]
        return str(of_thread.gpu)

    monkeypatch.setattr(devices, "gpu_count", lambda: len(of_thread.seen))
    monkeypatch.setattr(devices, "choose_gpu", choose_gpu)

    def work(ranks: Ranks) -> str:
        of_thread.seen, of_thread.gpu = seen[ranks.rank], "-"
        devices.choose_device(ranks, hosts, backend)
        return str(of_thread.gpu)

    return "".join(in_threads(len(hosts), work))


@pytest.mark.parametrize(
    ("hosts", "seen", "taken"),
    [
        (ONE_HOST, ["0123"] * 4, "0123"),
        (ONE_HOST, ["01234567"] * 4, "0123"),
        (TWO_HOSTS, ["01"] * 4, "0101"),
        (["a", "b", "a", "b"], ["01"] * 4, "0011"),
        (ONE_HOST, ["0", "1", "2", "3"], "0123"),  # srun --gpus-per-task=1
        (TWO_HOSTS, ["0", "1", "0", "1"], "0101"),
        (["a", "a"], ["01", "23"], "03"),  # srun --gpus-per-task=2
        (["a", "b"], ["0", "0"], "00"),
    ],
)
def test_each_rank_takes_a_gpu_of_its_own(
    hosts: list[str], seen: list[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(hosts, seen, monkeypatch) == taken


@pytest.mark.parametrize(
    ("hosts", "seen", "said"),
    [
        (ONE_HOST, ["01"] * 4, "rank 0 and rank 2 .* GPU 0 of a, which shows 2 GPUs to 4 ranks"),
        (TWO_HOSTS, ["01", "01", "0", "0"], "rank 2 and rank 3 .* of b, which shows 1 GPU to 2 "),
        (["a", "a"], ["01", "10"], "rank 0 and rank 1 .* GPU 0 of a, which shows 2 GPUs to 2 "),
    ],
)
def test_two_ranks_with_one_gpu_are_refused(
    hosts: list[str], seen: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.search(said, refusal(lambda: chosen(hosts, seen, monkeypatch)))


def test_ranks_share_a_gpu_where_nccl_is_asked_to_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    assert chosen(ONE_HOST, ["01"] * 4, monkeypatch) == "0101"


def test_the_cpu_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(ONE_HOST, ["0"] * 4, monkeypatch, backend="numpy") == "----"


def test_without_nccl_one_sentence_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = types.SimpleNamespace(runtimeGetVersion=lambda: 13010)
    modules = {
        "cupy": types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)),
        "cupy.cuda.nccl": types.SimpleNamespace(available=False),
    }
    monkeypatch.setattr(nccl, "importlib", types.SimpleNamespace(import_module=modules.__getitem__))
    message = refusal(lambda: NCCLTransport(ALONE))
    assert "pip install nvidia-nccl-cu13 (npformer[cuda13] brings it)" in message
