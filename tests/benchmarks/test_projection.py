"""The projection to many GPUs: the measured step, its buckets, and what of them is exposed."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import projection
from benchmarks.interconnects import CLUSTERS, DGX_H100, PCIE_ETHERNET
from benchmarks.projection import (
    GPUS,
    TOKENS,
    Bucket,
    buckets_of,
    efficiency,
    exposed,
    host_seconds,
    on_one,
    project,
    step_of,
    strong,
    weak,
)
from benchmarks.report import RESULTS
from npformer import Transformer, TransformerConfig
from train.ranks.exchange import BucketedExchange

every_config = pytest.mark.parametrize("config", ["base", "big"])


def measured(name: str) -> float:
    result = json.loads((RESULTS / "h100" / f"{name}.json").read_text(encoding="utf-8"))
    return result["ours"]["ms"] / 1000


# What is exposed.


@pytest.mark.parametrize(
    ("ready", "costs", "late"),
    [
        ([1, 2, 3], [1, 1, 1], 0),  # each is done when the next is ready
        ([1, 2, 4], [1, 1, 1], 1),  # the last is ready when the backward pass ends
        ([4, 4, 4], [1, 1, 1], 3),  # all are
        ([1, 2, 3], [5, 1, 1], 4),  # the first holds the others up
        ([1, 2, 3], [0, 0, 0], 0),
    ],
)
def test_the_exposed_time_of_cases_that_can_be_followed_by_hand(
    ready: list[float], costs: list[float], late: float
) -> None:
    buckets = [Bucket(1, at) for at in ready]
    assert exposed(buckets, costs, backward=4) == late


@pytest.mark.parametrize("seed", range(20))
def test_exposed_is_at_most_all_and_at_least_what_does_not_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ready, costs = np.sort(rng.random(6)), rng.random(6) * rng.random()
    late = exposed([Bucket(1, at) for at in ready], costs, backward=1.0)
    assert max(0, ready[0] + costs.sum() - 1) - 1e-12 <= late <= costs.sum() + 1e-12
    assert late >= costs[-1] + ready[-1] - 1 - 1e-12


# Buckets.


@pytest.mark.parametrize("bucket_bytes", [256, 1024, 4096, 1 << 20])
def test_buckets_are_cut_and_sent_as_in_training(bucket_bytes: int) -> None:
    config = TransformerConfig(vocab_size=64, layers=1, d_model=64, d_ff=128, heads=2)
    model = Transformer(config, seed=0)
    sent: list[tuple[int, int]] = []  # bytes, and after how many Parameters
    done = 0

    def start_sum(array: np.ndarray) -> SimpleNamespace:
        sent.append((array.nbytes, done))
        return SimpleNamespace(wait=lambda: None)

    transport = SimpleNamespace(start_sum=start_sum, poll=lambda: None)
    exchange = BucketedExchange(model.buffer, transport, bucket_bytes)
    exchange.begin(np.zeros(2, np.float32))
    sent.clear()
    parameters = model.parameters()
    order = list(reversed(parameters))
    for name in order:
        done += 1
        exchange.completed(parameters[name])
    # Every size is a multiple of the alignment, so there are no gaps.
    sizes = {name: parameter.value.nbytes for name, parameter in parameters.items()}
    ready = {name: k for k, name in enumerate(order, start=1)}
    assert buckets_of(sizes, ready, bucket_bytes) == sent


def test_a_bucket_waits_for_the_one_before_it() -> None:
    buckets = buckets_of({"first": 8, "last": 8}, {"first": 1, "last": 2}, bucket_bytes=8)
    assert buckets == [(8, 2), (8, 2)]


# The step on one GPU.


@every_config
def test_the_parts_of_a_step_add_up_to_what_was_measured(config: str) -> None:
    step = step_of(config)
    assert step.forward + step.backward + step.rest == pytest.approx(step.seconds)
    assert step.seconds == measured(f"gpu-training-{config}-25000")
    assert 0 < step.rest < step.forward < step.backward


@every_config
def test_all_gradients_are_sent_in_the_order_in_which_they_are_ready(config: str) -> None:
    step = step_of(config)
    shape = TransformerConfig.preset(config, vocab_size=37_000)
    parameters = Transformer(shape, allocate=False).parameters().values()
    assert step.size == 4 * sum(parameter.size for parameter in parameters)
    ready = [bucket.ready for bucket in step.buckets]
    assert ready == sorted(ready)
    assert ready[-1] == pytest.approx(step.backward)
    # The table of embeddings, 37,000 rows, is complete last of all.
    waiting = sum(bucket.size for bucket in step.buckets if bucket.ready == ready[-1])
    assert waiting > 4 * 37_000 * shape.d_model


@every_config
def test_every_matrix_has_its_kernels(config: str) -> None:
    shape = TransformerConfig.preset(config, vocab_size=37_000)
    results = json.loads((RESULTS / "h100" / "gpu-kernels-base.json").read_text("utf-8"))
    for name, parameter in Transformer(shape, allocate=False).parameters().items():
        kernels = projection.kernels_of(name, shape.d_model)
        assert kernels or len(parameter.shape) == 1, name
        for kernel in kernels:
            assert f"{kernel}, backward" in results["kernels"]
            assert f"{kernel}, forward" in results["kernels"]


def test_a_step_of_few_tokens_takes_what_the_host_needs() -> None:
    assert host_seconds() == measured("gpu-training-base-4096")
    for tokens in (1, 4096):
        assert on_one("base", tokens).seconds == pytest.approx(host_seconds())
    small = on_one("base", 4096, host=0.0)
    assert small.rest < small.seconds < 0.4 * host_seconds()
    assert small.backward == pytest.approx(4096 / TOKENS * step_of("base").backward)


@every_config
def test_a_whole_batch_on_one_gpu_is_the_measured_step(config: str) -> None:
    for host in (None, 0.0):
        assert on_one(config, TOKENS, host).seconds == pytest.approx(step_of(config).seconds)
    alone = project(config, DGX_H100, 1, TOKENS)
    assert alone.communication == alone.exposed == 0
    assert efficiency(config, alone) == pytest.approx(1)


# Many of them.


@every_config
@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
def test_more_gpus_are_less_efficient(config: str, cluster) -> None:
    for scaling in (weak, strong):
        shares = [efficiency(config, scaling(config, cluster, gpus)) for gpus in (1, *GPUS)]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[-1] < shares[0] == pytest.approx(1)


@every_config
def test_a_slower_interconnect_is_less_efficient(config: str) -> None:
    for gpus, scaling in itertools.product(GPUS, (weak, strong)):
        of = [scaling(config, cluster, gpus).seconds for cluster in CLUSTERS]
        assert of == sorted(of)
        assert of[0] < of[-1]


@every_config
def test_communication_adds_what_is_exposed(config: str) -> None:
    found = weak(config, PCIE_ETHERNET, 64)
    assert found.seconds == pytest.approx(step_of(config).seconds + found.exposed)
    assert found.hidden == pytest.approx(1 - found.exposed / found.communication)
    assert strong(config, PCIE_ETHERNET, 64).tokens == TOKENS / 64


@every_config
def test_a_host_that_keeps_up_only_helps(config: str) -> None:
    for gpus in GPUS:
        assert strong(config, DGX_H100, gpus, 0.0).seconds < strong(config, DGX_H100, gpus).seconds
