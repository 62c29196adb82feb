"""The cost of an all-reduce: what the algorithms send, and how long the model says it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.interconnects import (
    CLUSTERS,
    DGX_H100,
    LINKS,
    NDR,
    NVLINK_4,
    START,
    TWO_NODES,
    Link,
    fastest,
    hierarchical,
    recursive_doubling_bytes,
    ring,
    ring_bytes,
    tree,
)

SIZE = 64 << 20
FREE = Link("without latency", 1e9, 1e9, 0.0)
ENDLESS = Link("without a limit", math.inf, math.inf, 1e-6)


@pytest.mark.parametrize("ranks", range(2, 10))
def test_a_ring_sends_what_the_formula_says(ranks: int) -> None:
    """Played with parts of vectors: reduce-scatter, then all-gather."""
    rng = np.random.default_rng(ranks)
    vectors = rng.standard_normal((ranks, ranks))  # [rank, part], a number each
    total, sent, rounds = vectors.sum(axis=0), 0, 0
    for offset, adds in ((0, True), (1, False)):
        for k in range(ranks - 1):
            parts = [(rank - k + offset) % ranks for rank in range(ranks)]
            messages = [vectors[rank, part] for rank, part in enumerate(parts)]
            for rank, (part, message) in enumerate(zip(parts, messages, strict=True)):
                to = (rank + 1) % ranks
                vectors[to, part] = message + (vectors[to, part] if adds else 0)
            sent, rounds = sent + 1, rounds + 1
    np.testing.assert_allclose(vectors, np.broadcast_to(total, vectors.shape))
    assert sent == pytest.approx(ring_bytes(ranks, ranks))
    assert ring(SIZE, ranks, ENDLESS) == pytest.approx(START + rounds * ENDLESS.latency)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_recursive_doubling_sends_all_in_every_round(ranks: int) -> None:
    sums, sent = list(range(ranks)), 0
    for k in range(int(math.log2(ranks))):
        sums = [sums[rank] + sums[rank ^ (1 << k)] for rank in range(ranks)]
        sent += 1
    assert sums == [ranks * (ranks - 1) // 2] * ranks
    assert sent == recursive_doubling_bytes(1, ranks)


def test_two_ranks_send_the_gradients_once_either_way() -> None:
    assert ring_bytes(SIZE, 2) == recursive_doubling_bytes(SIZE, 2) == SIZE


def test_nobody_sends_anything_to_itself() -> None:
    assert ring_bytes(SIZE, 1) == recursive_doubling_bytes(SIZE, 1) == 0
    assert ring(SIZE, 1, NVLINK_4) == tree(SIZE, 1, NVLINK_4) == 0
    assert hierarchical(SIZE, 1, 1, NVLINK_4, NDR) == 0


@pytest.mark.parametrize("ranks", [2, 3, 8, 64, 512])
def test_bandwidth_alone_bounds_large_sums(ranks: int) -> None:
    assert ring(SIZE, ranks, FREE) - START == pytest.approx(ring_bytes(SIZE, ranks) / 1e9)
    assert tree(SIZE, ranks, FREE) - START == pytest.approx(2 * SIZE / 1e9)
    assert fastest(SIZE, ranks, FREE) == ring(SIZE, ranks, FREE)


def test_a_tree_has_fewer_messages_in_turn() -> None:
    assert tree(1, 512, NDR) - START == pytest.approx(18 * NDR.latency)
    assert ring(1, 512, NDR) - START == pytest.approx(1022 * NDR.latency)
    assert fastest(1, 512, NDR) == tree(1, 512, NDR)


def test_one_node_is_a_ring_within_it_and_single_gpus_are_a_network() -> None:
    assert hierarchical(SIZE, 1, 8, NVLINK_4, NDR) == ring(SIZE, 8, NVLINK_4)
    assert hierarchical(SIZE, 8, 1, NVLINK_4, NDR) == fastest(SIZE, 8, NDR)


def test_between_nodes_each_gpu_sums_its_part() -> None:
    expected = ring(SIZE, 8, NVLINK_4) + fastest(SIZE / 8, 4, NDR) - START
    assert DGX_H100.all_reduce(SIZE, 32) == pytest.approx(expected)


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
def test_more_gpus_and_more_bytes_take_longer(cluster) -> None:
    times = [cluster.all_reduce(SIZE, 2**k) for k in range(1, 10)]
    assert times == sorted(times)
    assert cluster.all_reduce(2 * SIZE, 64) > cluster.all_reduce(SIZE, 64)


@pytest.mark.parametrize("published", TWO_NODES, ids=lambda p: f"{p.size >> 20} MiB")
def test_the_model_is_near_what_others_have_measured(published) -> None:
    expected = DGX_H100.all_reduce(published.size, 16)
    assert 0.75 < expected / published.seconds < 1.33


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_what_is_reached_is_less_than_the_line_rate(link) -> None:
    assert 0.4 * link.line_rate < link.bandwidth < link.line_rate
    assert link.source.startswith("https://github.com/NVIDIA/")


def test_gpus_that_share_a_card_have_a_part_of_it_each() -> None:
    assert NDR.shared(8).bandwidth == NDR.bandwidth / 8
    assert NDR.shared(8).latency == NDR.latency
