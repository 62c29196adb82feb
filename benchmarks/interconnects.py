"""How long an all-reduce takes over published interconnects.

A link has a bandwidth in one direction and a latency for each message. Bandwidths are what NCCL
reaches or counts on, which is less than the line rate that data sheets give; `source` says where
that is published. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_TOPOLOGY = "https://github.com/NVIDIA/nccl/blob/master/src/graph/topo.h"
LATENCIES_SOURCE = "https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc"

START = 8.4e-6  # of a collective operation, beside its messages: NCCL's `baseLat`, ring, Simple


class Link(NamedTuple):
    """A GPU's connection to others: bytes/s in one direction, at line rate and as reached."""

    name: str
    line_rate: float
    bandwidth: float
    latency: float  # of a message
    source: str = ""

    def shared(self, gpus: int) -> Link:
        """What each of several GPUs has of it."""
        return self._replace(line_rate=self.line_rate / gpus, bandwidth=self.bandwidth / gpus)


class Cluster(NamedTuple):
    """Nodes of `per_node` GPUs: the link of each GPU to its neighbours, and to other nodes."""

    name: str
    per_node: int
    inside: Link
    between: Link

    def all_reduce(self, size: float, gpus: int) -> float:
        """The time of an all-reduce of `size` bytes over so many GPUs, in the best known way."""
        if gpus <= self.per_node:
            return fastest(size, gpus, self.inside)
        nodes = -(-gpus // self.per_node)
        return hierarchical(size, nodes, self.per_node, self.inside, self.between)


def ring_bytes(size: float, ranks: int) -> float:
    """What each rank sends: a part of 1/ranks in each of 2 * (ranks - 1) messages."""
    return 2 * (ranks - 1) / ranks * size


def recursive_doubling_bytes(size: float, ranks: int) -> float:
    """What each rank sends if all is exchanged with one more partner in each round."""
    return math.ceil(math.log2(ranks)) * size


def ring(size: float, ranks: int, link: Link) -> float:
    """Reduce-scatter and all-gather around a ring: little to send, but many messages in turn."""
    if ranks == 1:
        return 0.0
    return START + 2 * (ranks - 1) * link.latency + ring_bytes(size, ranks) / link.bandwidth


def tree(size: float, ranks: int, link: Link) -> float:
    """A pipelined reduction up a double binary tree, and a broadcast down: few messages in turn.

    Each rank sends all of `size` both ways (Sanders, Speck, Träff, 2009, as NCCL does it).
    """
    if ranks == 1:
        return 0.0
    return START + 2 * math.ceil(math.log2(ranks)) * link.latency + 2 * size / link.bandwidth


def fastest(size: float, ranks: int, link: Link) -> float:
    """By the faster of both, as NCCL chooses."""
    return min(ring(size, ranks, link), tree(size, ranks, link))


def hierarchical(size: float, nodes: int, per_node: int, inside: Link, between: Link) -> float:
    """Reduce-scatter within each node, all-reduce of each part between nodes, all-gather within.

    Every GPU sums its part with the GPUs of the same place in other nodes, over its own card or
    its share of one.
    """
    within = ring(size, per_node, inside)
    across = fastest(size / per_node, nodes, between)
    return within + across - (START if within and across else 0.0)  # it is one operation


NVLINK_4 = Link("NVLink 4", 450e9, 18 * 20.6e9, 3.4e-6, _TOPOLOGY)
NVLINK_1 = Link("NVLink 1", 80e9, 4 * 18e9, 3.4e-6, _TOPOLOGY)
PCIE_5 = Link("PCIe 5 x16", 63e9, 28e9, 5.7e-6, "https://github.com/NVIDIA/nccl/issues/1639")
PCIE_3 = Link("PCIe 3 x16", 15.75e9, 12e9, 5.7e-6, _TOPOLOGY)
NDR = Link(
    "InfiniBand NDR, 400 Gb/s", 50e9, 48e9, 14e-6, "https://github.com/NVIDIA/nccl-tests/issues/319"
)
ETHERNET = Link("Ethernet, 100 Gb/s", 12.5e9, 12e9, 14e-6, _TOPOLOGY)
LINKS = (NVLINK_4, PCIE_5, NDR, ETHERNET, NVLINK_1, PCIE_3)

DGX_H100 = Cluster("NVLink 4, NDR for each GPU", 8, NVLINK_4, NDR)
NVLINK_ETHERNET = Cluster("NVLink 4, Ethernet for each 8", 8, NVLINK_4, ETHERNET.shared(8))
PCIE_ETHERNET = Cluster("PCIe 5, Ethernet for each 8", 8, PCIE_5, ETHERNET.shared(8))
CLUSTERS = (DGX_H100, NVLINK_ETHERNET, PCIE_ETHERNET)


class Published(NamedTuple):
    """Someone else's measurement of an all-reduce in float32."""

    size: int
    seconds: float


# Two nodes of 8 H20, with NVLink 4 and NDR for each GPU, by NCCL with NVLink SHARP.
TWO_NODES_SOURCE = "https://github.com/NVIDIA/nccl/issues/1244"
TWO_NODES = (
    Published(4 << 20, 127.6e-6),
    Published(16 << 20, 203.0e-6),
    Published(64 << 20, 467.9e-6),
    Published(256 << 20, 2055.4e-6),
    Published(512 << 20, 3218.6e-6),
)
