"""The tables of docs/scaling.md: what was measured, and what is projected from it.

python -m docs.fill    puts them there
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.interconnects import (
    CLUSTERS,
    DGX_H100,
    LINKS,
    NVLINK_1,
    PCIE_3,
    TWO_NODES,
    Cluster,
    fastest,
    ring_bytes,
)
from benchmarks.markdown import NOTHING, Table, head, line
from benchmarks.projection import GPUS, PAPER, efficiency, host_seconds, step_of, strong, weak
from benchmarks.report import RESULTS

_CONFIGS = ("base", "big")
_PAPERS_GPUS = 8


def links() -> Table:
    """The published bandwidths, and what is counted on."""
    rows = head(["link of a GPU, one direction", "line rate, GB/s", "reached, GB/s", "latency, µs"])
    for link in LINKS:
        reached = f"[{link.bandwidth / 1e9:.1f}]({link.source})"
        cells = [link.name, f"{link.line_rate / 1e9:.1f}", reached, f"{link.latency * 1e6:.1f}"]
        rows.append(line(cells))
    return rows


def sent() -> Table:
    """The bytes that a GPU sends in a step."""
    within = [f"within a node, {DGX_H100.per_node} GPUs, MB"]
    between = [f"and to other nodes, {gpus} GPUs, MB" for gpus in GPUS if gpus > 8]
    rows = head(["gradients of", "float32, MB", "buckets", *within, *between])
    for config in _CONFIGS:
        step, per_node = step_of(config), DGX_H100.per_node
        nodes = [gpus // per_node for gpus in GPUS if gpus > per_node]
        sizes = [step.size, ring_bytes(step.size, per_node)]
        sizes += [ring_bytes(step.size / per_node, count) for count in nodes]
        first, *others = [f"{size / 1e6:,.0f}" for size in sizes]
        rows.append(line([config, first, f"{len(step.buckets)}", *others]))
    return rows


def model() -> Table:
    """The cost model against what others have measured."""
    rows = head(["all-reduce of", "measured, µs", "model, µs", "ratio"])
    for published in TWO_NODES:
        expected = DGX_H100.all_reduce(published.size, 2 * DGX_H100.per_node)
        times = [f"{published.seconds * 1e6:,.0f}", f"{expected * 1e6:,.0f}"]
        ratio = f"{expected / published.seconds:.2f}"
        rows.append(line([f"{published.size >> 20} MiB", *times, ratio]))
    return rows


def passes() -> Table:
    """What a step on one GPU is divided into."""
    rows = head(
        ["a step on one H100", "measured, ms", "forward, ms", "backward, ms", "norm and Adam, ms"]
    )
    for config in _CONFIGS:
        step = step_of(config)
        parts = (step.seconds, step.forward, step.backward, step.rest)
        rows.append(line([config, *(_ms(seconds) for seconds in parts)]))
    few = "base, 4,096 + 4,096 tokens, bound by the host"
    return [*rows, line([few, _ms(host_seconds()), *[NOTHING] * 3])]


def weak_scaling() -> Table:
    """Every GPU has a batch of 25,000 + 25,000 tokens."""
    heads = ["GPUs", "interconnect", "step, ms", "communication, ms", "hidden", "efficiency"]
    rows = head(["weak scaling", *heads])
    for config in _CONFIGS:
        for gpus in GPUS:
            for cluster in _clusters(gpus):
                found = weak(config, cluster, gpus)
                times = [_ms(found.seconds), _ms(found.communication)]
                shares = [_percent(found.hidden), _percent(efficiency(config, found))]
                rows.append(line([config, f"{gpus}", _name(cluster, gpus), *times, *shares]))
    return rows


def strong_scaling() -> Table:
    """All GPUs share a batch of 25,000 + 25,000 tokens."""
    heads = ["GPUs", "interconnect", "step, ms", "hidden", "speed-up"]
    rows = head(["strong scaling", *heads, "without the host, ms", "speed-up"])
    for config in _CONFIGS:
        alone = step_of(config).seconds
        for gpus in GPUS:
            for cluster in _clusters(gpus):
                cells = [config, f"{gpus}", _name(cluster, gpus)]
                found, unbounded = (strong(config, cluster, gpus, host) for host in (None, 0.0))
                cells += [_ms(found.seconds), _percent(found.hidden)]
                cells += [f"{alone / found.seconds:.2f}", _ms(unbounded.seconds)]
                rows.append(line([*cells, f"{alone / unbounded.seconds:.2f}"]))
    return rows


def papers_training() -> Table:
    """The paper's runs, and what our steps make of them."""
    heads = ["steps", "8 P100, published", "1 H100, from a measured step", "8 H100, projected"]
    rows = head(["the paper's training", *heads, "8 H100, steps of 8 batches, projected"])
    for config, paper in PAPER.items():
        shared = strong(config, DGX_H100, _PAPERS_GPUS).seconds
        whole = weak(config, DGX_H100, _PAPERS_GPUS).seconds / _PAPERS_GPUS
        took = [_time(paper.steps * s) for s in (step_of(config).seconds, shared, whole)]
        published = f"{paper.took}, {paper.seconds} s a step"
        rows.append(line([config, f"{paper.steps:,}", published, *took]))
    return rows


def papers_machine() -> Table:
    """What summing the gradients takes on 8 P100."""
    rows = head(["8 P100, float32", "link", "all-reduce, ms", "share of the paper's step"])
    for config, paper in PAPER.items():
        for link in (NVLINK_1, PCIE_3):
            took = fastest(step_of(config).size, _PAPERS_GPUS, link)
            rows.append(line([config, link.name, _ms(took), _percent(took / paper.seconds)]))
    return rows


def shared_memory() -> Table:
    """Two ranks on two cores of one machine."""
    heads = ["MB sent", "one rank, ms", "strong, ms", "faster", "weak, ms", "faster"]
    heads += ["communication alone, ms", "held up, ms", "exposed, ms", "load"]
    rows = head(["two ranks", *heads])
    for result in _results("scaling"):
        one, shared, each = (result[key] for key in ("one_rank", "strong", "weak"))
        cells = [_machine(result), f"{result['bytes']['sent_by_ring'] / 1e6:.1f}"]
        cells += [_spread(one), _spread(shared), f"{shared['faster']:.2f}"]
        cells += [_spread(each), f"{each['faster']:.2f}", _spread(result["communication"])]
        cells += [f"{shared['held_ms']:.1f}", f"{shared['exposed_ms']:.1f}"]
        rows.append(line([*cells, f"{result['load']}"]))
    return rows


def network() -> Table:
    """Two ranks on two hosts whose network is slowed down."""
    heads = ["Mbit/s", "MB on the wire", "strong, ms", "communication alone, ms"]
    rows = head(["two hosts", *heads, "hidden", "exposed, ms", "by the model, ms", "load"])
    for result in _results("two_hosts"):
        for rate in result["rates"]:
            shared = rate["strong"]
            cells = [_machine(result), f"{rate['megabits_per_s']:,}"]
            cells += [f"{rate['wire_bytes'] / 1e6:.1f}", _spread(shared)]
            cells += [_spread(rate["communication"]), _percent(shared["hidden"])]
            model = f"{rate['expected_exposed_ms']:,.0f}"
            rows.append(line([*cells, f"{shared['exposed_ms']:,.0f}", model, f"{rate['load']}"]))
    return rows


TABLES: dict[str, Callable[[], Table]] = {
    "links": links,
    "sent": sent,
    "model": model,
    "passes": passes,
    "weak": weak_scaling,
    "strong": strong_scaling,
    "training": papers_training,
    "paper": papers_machine,
    "memory": shared_memory,
    "network": network,
}


def _clusters(gpus: int) -> list[Cluster]:
    """Those that differ: within a node, the network does not matter."""
    if gpus > min(cluster.per_node for cluster in CLUSTERS):
        return list(CLUSTERS)
    return list({cluster.inside: cluster for cluster in reversed(CLUSTERS)}.values())[::-1]


def _name(cluster: Cluster, gpus: int) -> str:
    return cluster.inside.name if gpus <= cluster.per_node else cluster.name


def _results(benchmark: str) -> Iterator[dict[str, Any]]:
    for path in sorted(RESULTS.glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["benchmark"] == benchmark:
            yield {**result, "folder": path.parent.name}


def _machine(result: dict[str, Any]) -> str:
    return f"{result['config']}, {result['folder']}"


def _spread(summary: dict[str, float]) -> str:
    """A median, and the distance between the quartiles as a share of it."""
    return f"{summary['ms']:,.0f} ± {_percent(summary['spread'] / 2)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
