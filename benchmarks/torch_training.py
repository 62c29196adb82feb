"""A training step in PyTorch on a GPU, in several ways; comparisons use the fastest.

    run = steps(PEERS["torch-packed-compiled"], config, batches)
    loss, norm = run(k)         # one step on batches[k]; tensors of the device

A step is forward and backward under bfloat16's autocast, the norm of the gradient, and fused Adam.
The batches are on the device beforehand and nothing waits for it, so synchronize before taking the
time. A compiled peer compiles at the first batch, or the first of new sizes: run every batch once
before measuring. Run each peer in its own process, because compilations count against a common
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.shapes import by_tokens
from benchmarks.torch_packed import PackedTransformer, Sizes, fill, packed
from benchmarks.torch_transformer import TorchTransformer, copy_parameters, padded
from npformer import Batch, Packed, Transformer, TransformerConfig


class Peer(NamedTuple):
    """A way to compute a step.

    Attributes:
        form: batches are "padded", "packed", or packed and "filled" up to the same sizes
        compile: the mode of torch.compile, None for eager
        dynamic: compiled once for all sizes, or else for each batch (once for "filled")
        groups: padded sentences are split by length into this many parts, computed one by one
        chunks: parts of the loss; the logits of one exist at a time, and are computed twice
    """

    form: str
    compile: str | None = None
    dynamic: bool = False
    groups: int = 1
    chunks: int = 1


PEERS = {
    "torch-padded": Peer("padded"),
    "torch-padded-grouped": Peer("padded", groups=4),
    "torch-packed": Peer("packed"),
    "torch-packed-chunked": Peer("packed", chunks=8),
    "torch-packed-compiled": Peer("packed", "default"),
    "torch-packed-compiled-autotuned": Peer("packed", "max-autotune-no-cudagraphs"),
    "torch-packed-compiled-dynamic": Peer("packed", "default", dynamic=True),
    "torch-filled-compiled": Peer("filled", "default"),
    "torch-filled-compiled-autotuned": Peer("filled", "max-autotune-no-cudagraphs"),
    "torch-filled-cudagraphs": Peer("filled", "reduce-overhead"),
}

Loss = Callable[..., Tensor]
Part = tuple[tuple[Any, ...], float]
"""What the loss takes, and its share of the batch's target tokens."""


def adam_of(model: torch.nn.Module, rate: float = 1e-4) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def training_step(
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    precision: torch.dtype = torch.bfloat16,
) -> tuple[Tensor, Tensor]:
    """Take a step; returns the loss and the gradient's norm. float32 means no autocast."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=parameters[0].device)
    for inputs, share in parts:
        with torch.autocast(total.device.type, precision, enabled=precision != torch.float32):
            loss = loss_of(*inputs) * share
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    optimizer.step()
    return total, norm


def steps(
    peer: Peer,
    config: TransformerConfig,
    batches: Sequence[Batch],
    device: str = "cuda",
    weights: Transformer | None = None,
    precision: torch.dtype = torch.bfloat16,
    shapes: int = 1,
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """A new model with Adam; the result is a function that takes a step on batch k.

    shapes: to how many sizes batches may be "filled"; see `by_tokens`
    """
    parts = parts_of(peer, batches, device, shapes)
    return steps_on(peer, config, parts, device, weights, precision)


def steps_on(
    peer: Peer,
    config: TransformerConfig,
    parts: Sequence[Sequence[Part]],
    device: str = "cuda",
    weights: Transformer | None = None,
    precision: torch.dtype = torch.bfloat16,
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """As `steps`, on batches that are in the peer's form already."""
    kind = TorchTransformer if peer.form == "padded" else PackedTransformer
    torch.manual_seed(0)
    model = kind(config)
    if weights is not None:
        copy_parameters(weights, model)
    model.to(device)
    optimizer = adam_of(model)
    loss_of = partial(compiled(model.loss, peer, len(parts)), chunks=peer.chunks)
    return lambda k: training_step(loss_of, optimizer, parts[k], precision)


def compiled(loss: Loss, peer: Peer, batches: int) -> Loss:
    """The peer's loss function, compiled if it asks for that."""
    if peer.compile is None:
        return loss
    # Beyond this many sizes PyTorch would no longer compile; fullgraph makes that an error.
    torch._dynamo.config.recompile_limit = batches + 8
    return torch.compile(loss, fullgraph=True, dynamic=peer.dynamic, mode=peer.compile)


def parts_of(
    peer: Peer, batches: Sequence[Batch], device: str, shapes: int = 1
) -> list[list[Part]]:
    """Each batch in the peer's form; shapes: to how many sizes they may be "filled"."""
    if peer.form == "padded":
        return [
            [(padded(group, device), group.target_tokens / batch.target_tokens) for group in groups]
            for batch in batches
            for groups in [grouped(batch, peer.groups)]
        ]
    if peer.form == "filled":
        found: dict[int, list[Part]] = {}
        for group in by_tokens(batches, shapes):
            sizes = Sizes.of([batches[k] for k in group])
            for k in group:
                found[k] = [(packed(fill(batches[k], sizes), device, sizes.longest), 1.0)]
        return [found[k] for k in range(len(batches))]
    return [[(packed(batch, device), 1.0)] for batch in batches]


def grouped(batch: Batch, groups: int) -> list[Batch]:
    """The batch split by length into up to `groups` parts of about equally many tokens."""
    if groups == 1:
        return [batch]
    sizes = np.maximum(batch.source.lengths, batch.target_input.lengths)
    order = np.argsort(sizes, kind="stable")
    bounds = np.searchsorted(sizes[order].cumsum(), np.arange(1, groups) * sizes.sum() / groups)

    def take(packed: Packed, indices: np.ndarray) -> Packed:
        sentences = list(packed)
        return Packed.of([sentences[i] for i in indices])

    return [
        Batch(*(take(p, part) for p in (batch.source, batch.target_input, batch.target_output)))
        for part in np.split(order, bounds)
        if len(part)
    ]
