"""The benchmark of a step that ranks share, on a toy model: here ranks are threads."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from autograd import references
from benchmarks import scaling, two_hosts
from benchmarks.scaling import Bench, measure, result_of
from benchmarks.training_step import Setting
from npformer import TransformerConfig
from tests.train.sums_in_threads import Meeting, Member
from train.ranks.ranks import ALONE, Ranks

CONFIG = TransformerConfig(vocab_size=64, layers=1, d_model=32, d_ff=64, heads=2)
TOKENS = 300
_Value = TypeVar("_Value")


class Threads(Ranks):
    """Ranks that are threads, as far as the benchmark needs them."""

    def __init__(self, rank: int, barrier: threading.Barrier, values: list[Any]) -> None:
        self.rank, self.size = rank, barrier.parties
        self._barrier, self._values = barrier, values

    def all(self, value: _Value) -> list[_Value]:
        self._values[self.rank] = value
        self._barrier.wait()
        found = list(self._values)
        self._barrier.wait()
        return found


def on_two_ranks(work: Callable[[Bench], Any]) -> list[Any]:
    barrier, values = threading.Barrier(2, timeout=60), [None, None]

    def of_rank(rank: int, member: Member) -> Any:
        with references():
            return work(Bench(Threads(rank, barrier, values), member, CONFIG, TOKENS, batches=2))

    return Meeting(2).run(of_rank)


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    """What the first of two ranks publishes."""
    first, second = on_two_ranks(lambda bench: result_of(bench, measure(bench, 1, warmup=1)))
    assert first.keys() == second.keys()
    return first


def test_two_ranks_sum_all_gradients_and_the_losses(shared: dict[str, Any]) -> None:
    sizes = shared["bytes"]
    assert sizes["gradients"] >= 4 * shared["parameters"]
    assert sizes["summed"] == sizes["gradients"] + 8  # loss and negative log-likelihood
    assert sizes["sent_by_ring"] == sizes["sent_by_recursive_doubling"] == sizes["summed"]
    assert sum(bucket["bytes"] for bucket in shared["buckets"]) == sizes["gradients"]


def test_ranks_share_a_batch_or_have_one_each(shared: dict[str, Any]) -> None:
    alone, strong, weak = (shared[key]["target_tokens"] for key in ("one_rank", "strong", "weak"))
    assert strong == alone <= TOKENS
    assert 1.6 * alone < weak <= 2 * TOKENS


def test_each_rank_computes_a_part_of_the_same_steps() -> None:
    parts = on_two_ranks(
        lambda bench: [
            [[batch.target_tokens for batch in step.batches] for step in steps]
            for steps in (bench.alone, bench.strong, bench.weak)
        ]
    )
    alone = [sum(step) for step in parts[0][0]]
    strong = [sum(a) + sum(b) for a, b in zip(parts[0][1], parts[1][1], strict=True)]
    assert strong == alone
    assert all(len(step) == 1 for part in parts for step in part[2])


def test_times_fit_into_each_other(shared: dict[str, Any]) -> None:
    for name in ("strong", "weak"):
        of = shared[name]
        assert 0 <= of["exposed_ms"] <= of["ms"]
        assert 0 <= of["held_ms"] <= of["ms"]
        assert of["imbalance_ms"] >= 0
        assert of["efficiency"] == pytest.approx(of["faster"] / 2, abs=1e-3)
    for bucket in shared["buckets"]:
        assert bucket["sent_ms"] > 0


def test_a_rank_alone_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(scaling.SETTINGS, "toy", Setting(64, TOKENS, "wmt", 1))
    monkeypatch.setattr(scaling.TransformerConfig, "preset", lambda name, vocab_size: CONFIG)
    out = tmp_path / "result.json"
    with references():
        scaling.run(ALONE, "toy", rounds=1, warmup=0, network=None, out=out)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1]) == result
    assert (result["benchmark"], result["config"], result["ranks"]) == ("scaling", "toy", 1)
    assert result["bytes"]["sent_by_ring"] == 0
    assert "buckets" not in result
    assert result["machine"]["cores"] >= 1
    assert result["strong"]["target_tokens"] == result["weak"]["target_tokens"]


# Two hosts.


def test_the_model_expects_what_can_be_followed_by_hand() -> None:
    result = {
        "buckets": [{"bytes": 300, "sent_ms": 10.0}, {"bytes": 100, "sent_ms": 20.0}],
        "communication": {"ms": 16.0},  # 12 and 4
        "backward_ms": 20.0,
    }
    assert two_hosts.expected_exposed(result) == 6.0


def test_two_hosts_are_made_and_gone_afterwards() -> None:
    if reason := two_hosts.missing():
        pytest.skip(reason)
    with suppress(KeyError), two_hosts.two_hosts():
        two_hosts.limit(100)
        for host in two_hosts._HOSTS:
            assert "rate 100Mbit" in two_hosts._run("tc", "-n", host, "qdisc", "show")
        before = two_hosts.sent_bytes()
        send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(999), "
        script = f"{send}('{two_hosts._ADDRESSES[1]}', 9))"
        two_hosts._run("ip", "netns", "exec", two_hosts._HOSTS[0], sys.executable, "-c", script)
        assert two_hosts.sent_bytes() >= before + 999
        raise KeyError
    assert two_hosts._NAME not in two_hosts._run("ip", "netns", "list")


def test_without_root_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_hosts.os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["two_hosts", "--config", "tiny"])
    with pytest.raises(SystemExit, match="no result: network namespaces need Linux and root"):
        two_hosts.main()
