"""A training step on many GPUs, projected from steps measured on one and published bandwidths.

What is measured comes from the files of `benchmarks/results/h100`: a step of base and of big with
25,000 + 25,000 tokens, one of base with 4,096 + 4,096, which the host bounds, and the kernels of
base. Bandwidths come from `benchmarks/interconnects.py`. The rest is the model of this file, whose
assumptions docs/scaling.md names one by one. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from benchmarks.interconnects import Cluster
from benchmarks.report import RESULTS
from npformer import Transformer, TransformerConfig
from train.ranks.exchange import BUCKET_BYTES

VOCABULARY = 37_000
TOKENS = 25_000  # source tokens of the paper's batch, and target tokens
GPUS = (8, 64, 512)
_FLOAT32 = 4
_BASE_WIDTH = 512  # d_model of the config whose kernels were measured


class Bucket(NamedTuple):
    """A part of the gradients that is sent as a whole, once all of it is computed."""

    size: float
    ready: float  # seconds after the backward pass began


class Step(NamedTuple):
    """A training step on one GPU."""

    seconds: float
    forward: float
    backward: float
    buckets: Sequence[Bucket]

    @property
    def size(self) -> float:
        """Of all gradients."""
        return sum(bucket.size for bucket in self.buckets)

    @property
    def rest(self) -> float:
        """What neither pass takes: the gradient norm and Adam's step, which no GPU shares."""
        return self.seconds - self.forward - self.backward


class Projected(NamedTuple):
    """A step on several GPUs: `exposed` is what communication adds to `computing`."""

    gpus: int
    tokens: float  # on each GPU
    computing: float
    communication: float
    exposed: float

    @property
    def seconds(self) -> float:
        return self.computing + self.exposed

    @property
    def hidden(self) -> float:
        """The share of communication that takes place during the backward pass."""
        return 1 - self.exposed / self.communication


def exposed(buckets: Iterable[Bucket], costs: Iterable[float], backward: float) -> float:
    """How long the last bucket arrives after the backward pass, if they are summed in turn."""
    end = 0.0
    for bucket, cost in zip(buckets, costs, strict=True):
        end = max(end, bucket.ready) + cost
    return max(0.0, end - backward)


def buckets_of(
    sizes: Mapping[str, float], ready: Mapping[str, float], bucket_bytes: float = BUCKET_BYTES
) -> list[Bucket]:
    """What is sent of Parameters, in the order of the buffer, as `BucketedExchange` cuts them."""
    buckets: list[Bucket] = []
    size = latest = 0.0  # buckets are sent in turn, so none is ready before the one before it
    for name in reversed(list(sizes)):
        latest, left = max(latest, ready[name]), sizes[name]
        while left:
            part = min(left, bucket_bytes - size)
            size, left = size + part, left - part
            if size == bucket_bytes:
                buckets.append(Bucket(size, latest))
                size = 0.0
    return [*buckets, Bucket(size, latest)] if size else buckets


def kernels_of(name: str, width: int) -> dict[str, float]:
    """The operations behind a Parameter, and how much of base's kernel each takes.

    Base's kernels were measured with `_BASE_WIDTH`. With another d_model the products of a layer
    grow with its square, and all else in proportion.
    """
    ratio = width / _BASE_WIDTH
    if name == "embedding":
        return {"embedding": 2 * ratio}
    if name.endswith("norm.gain"):
        return {"add_dropout_norm": ratio}
    if name.endswith(("inner.weight", "outer.weight")):
        return {"linear with relu": ratio**2}
    if name.endswith("self_attention.qkv.weight"):
        causal = ", causal" if name.startswith("decoder") else ""
        return {"linear": 3 * ratio**2, f"attention to itself{causal}": ratio}
    if name.endswith("cross_attention.kv.weight"):
        return {"linear": 2 * ratio**2, "attention to the source": ratio}
    if name.endswith(("q.weight", "output.weight")):
        return {"linear": ratio**2}
    return {}  # biases have no kernel of their own


@cache
def step_of(config: str) -> Step:
    """A step of base or big on one H100, as measured, with its parts in proportion to kernels."""
    results = _result("gpu-kernels-base")["kernels"]
    kernels = {name: result["us"] * 1e-6 for name, result in results.items()}
    sizes, width = _sizes(config), TransformerConfig.preset(config, vocab_size=1).d_model
    ratio = width / _BASE_WIDTH

    def seconds(name: str, direction: str) -> float:
        shares = kernels_of(name, width).items()
        return sum(share * kernels[f"{kernel}, {direction}"] for kernel, share in shares)

    loss = {d: ratio * kernels[f"projected_cross_entropy, {d}"] for d in ("forward", "backward")}
    forward = loss["forward"] + sum(seconds(name, "forward") for name in sizes)
    # From the loss through the buffer, from its end to its beginning.
    ready: dict[str, float] = {}
    backward = loss["backward"]
    for name in reversed(sizes):
        backward += seconds(name, "backward")
        ready[name] = backward
    over_all = kernels["Adam's step"] + kernels["the norm of the gradient"]
    rest = over_all * sum(sizes.values()) / sum(_sizes("base").values())
    measured = _result(f"gpu-training-{config}-{TOKENS}")["ours"]["ms"] / 1000
    # Kernels timed one by one take longer than in a step, so they give proportions alone.
    factor = (measured - rest) / (forward + backward)
    buckets = buckets_of(sizes, {name: factor * t for name, t in ready.items()})
    return Step(measured, factor * forward, factor * backward, buckets)


def _sizes(config: str) -> dict[str, float]:
    """The bytes of each Parameter's gradient, in the order of the buffer."""
    shape = TransformerConfig.preset(config, vocab_size=VOCABULARY)
    parameters = Transformer(shape, allocate=False).parameters()
    return {name: float(p.size * _FLOAT32) for name, p in parameters.items()}


@cache
def host_seconds() -> float:
    """What the host needs for a step, however few its tokens: that of base with 4,096."""
    return _result("gpu-training-base-4096")["ours"]["ms"] / 1000


def on_one(config: str, tokens: float, host: float | None = None) -> Step:
    """A step with so many source and target tokens on one GPU, which waits for its host.

    host: what the host needs for a step; 0 if it is never waited for.
    """
    step = step_of(config)
    host = host_seconds() if host is None else host
    passes = step.forward + step.backward
    # A host that is late delays both passes alike.
    share = max(tokens / TOKENS, (host - step.rest) / passes)
    return Step(
        step.rest + share * passes,
        share * step.forward,
        share * step.backward,
        [Bucket(size, share * ready) for size, ready in step.buckets],
    )


def project(
    config: str, cluster: Cluster, gpus: int, tokens: float, host: float | None = None
) -> Projected:
    """A step on several GPUs, with so many source and target tokens on each."""
    step = on_one(config, tokens, host)
    costs = [cluster.all_reduce(bucket.size, gpus) for bucket in step.buckets]
    late = exposed(step.buckets, costs, step.backward)
    return Projected(gpus, tokens, step.seconds, sum(costs), late)


def weak(config: str, cluster: Cluster, gpus: int) -> Projected:
    """Every GPU has a batch of the paper's size: larger steps, of which there are fewer."""
    return project(config, cluster, gpus, TOKENS)


def strong(config: str, cluster: Cluster, gpus: int, host: float | None = None) -> Projected:
    """All GPUs together have a batch of the paper's size: the same steps, in less time each."""
    return project(config, cluster, gpus, TOKENS / gpus, host)


def efficiency(config: str, projected: Projected) -> float:
    """Tokens a second for each GPU, as a share of those of one GPU with the paper's batch."""
    return projected.tokens / projected.seconds / (TOKENS / step_of(config).seconds)


class Paper(NamedTuple):
    """A training run of the paper on 8 P100 (section 5.2)."""

    steps: int
    seconds: float  # of a step
    took: str


PAPER = {"base": Paper(100_000, 0.4, "12 hours"), "big": Paper(300_000, 1.0, "3.5 days")}


def _result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / "h100" / f"{name}.json").read_text(encoding="utf-8"))
