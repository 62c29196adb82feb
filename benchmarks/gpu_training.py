"""A training step on a GPU against PyTorch's, in the same run.

    python -m benchmarks.gpu_training --config base --tokens 25000

Batches of 25,000 source and 25,000 target tokens, with lengths like those of WMT, one after
another. A step is forward, backward, gradient norm and Adam, in bfloat16 with float32 parameters;
ours also copies the batch, the peers have theirs on the device before. Sides take turns of some
steps, each in a process of its own: one step that does not count, then the others, from an idle
device to an idle device. Memory is what a side's allocator had reserved at the end.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.contest import Side, ratio, take_turns
from benchmarks.gpu_batches import training_batches
from benchmarks.report import gpu, publish, summary
from benchmarks.training_step import products_of
from npformer import TransformerConfig

VOCABULARY, BATCHES = 37_000, 8
PEERS = ("torch-packed", "torch-filled-compiled", "torch-packed-compiled-dynamic")
OUR_PRECISIONS = {"ours": "bf16", "ours-float32": "float32"}
_FLOPS = 790e12  # bfloat16 products a second on an H200, as PyTorch's were measured on one


class Steps:
    """A turn: steps on one batch after another."""

    def __init__(
        self,
        steps: int,
        take: Callable[[int], Any],
        synchronize: Callable[[], None],
        reserved: Callable[[], int],
    ) -> None:
        self._steps, self._take = steps, take
        self._synchronize, self._reserved = synchronize, reserved

    def __call__(self) -> float:
        """Seconds of `steps` steps."""
        self._take(0)
        self._synchronize()
        started = time.perf_counter()
        for k in range(self._steps):
            self._take(k % BATCHES)
        self._synchronize()
        return time.perf_counter() - started

    def used(self) -> dict[str, int]:
        return {"peak_bytes": int(self._reserved())}


def our_side(
    imported: Callable[[], None], name: str, tokens: int, steps: int, precision: str
) -> Steps:
    from autograd import DropoutStream
    from autograd.backend import backend
    from npformer import Transformer
    from train.adam import Adam
    from train.trainer import train_step

    imported()
    owner = backend("cupy")
    batches = training_batches(BATCHES, tokens)
    config = TransformerConfig.preset(name, vocab_size=VOCABULARY)
    model = Transformer(config, seed=0).to("cupy", precision)
    optimizer = Adam(model.buffer)
    coming = owner.ahead(model.prepared, itertools.cycle(batches))

    def take(k: int) -> None:
        # In the order of the cycle: which batch it is says the iterator, and not k.
        train_step(model, optimizer, [next(coming)], 1e-4, DropoutStream(0, optimizer.steps))

    for k in range(2 * BATCHES):  # builds the kernels, and fills the memory pool
        take(k)
    owner.synchronize()
    return Steps(steps, take, owner.synchronize, owner.module.get_default_memory_pool().total_bytes)


def torch_side(
    imported: Callable[[], None], name: str, tokens: int, steps: int, peer: str
) -> Steps:
    import torch

    from benchmarks.torch_training import PEERS as ALL_PEERS
    from benchmarks.torch_training import steps as peer_steps

    imported()
    config = TransformerConfig.preset(name, vocab_size=VOCABULARY)
    take = peer_steps(ALL_PEERS[peer], config, training_batches(BATCHES, tokens))
    for k in range(2 * BATCHES):  # compiles, and fills the memory pool
        take(k % BATCHES)
    torch.cuda.synchronize()
    return Steps(steps, take, torch.cuda.synchronize, torch.cuda.max_memory_reserved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], required=True)
    parser.add_argument("--tokens", type=int, default=25_000, help="source, and target, in a batch")
    parser.add_argument("--peers", nargs="*", default=PEERS, help="names of torch_training.PEERS")
    parser.add_argument("--steps", type=int, default=16, help="of a turn that count")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    parser.add_argument("--out", type=Path, help="a file for the result")
    options = parser.parse_args()
    gpu()

    task = options.config, options.tokens, options.steps
    makers = {
        **{name: (our_side, *task, precision) for name, precision in OUR_PRECISIONS.items()},
        **{peer: (torch_side, *task, peer) for peer in options.peers},
    }
    # All at once, for compilers take long and use one core or some each.
    with ThreadPoolExecutor(len(makers)) as pool:
        sides = dict(zip(makers, pool.map(lambda made: Side(*made), makers.values()), strict=True))
    seconds = take_turns(sides, options.rounds, warmup=1)
    used = {name: side.close() for name, side in sides.items()}

    batches = training_batches(BATCHES, options.tokens)
    counts = [b.target_tokens for b in batches]
    target = sum(counts[k % BATCHES] for k in range(options.steps))
    per_step = {name: [s / options.steps for s in seconds[name]] for name in sides}
    results = {
        name: {
            **summary(per_step[name], [round(target / options.steps)] * options.rounds),
            "peak_bytes": used[name]["peak_bytes"],
        }
        for name in sides
    }
    ratios = {peer: ratio(per_step["ours"], per_step[peer]) for peer in sides if peer != "ours"}
    config = TransformerConfig.preset(options.config, vocab_size=VOCABULARY)
    shapes = [products_of(config, batch) for batch in batches]
    flops = [sum(2 * n * k * m * count for (n, k, m), count in s.items()) for s in shapes]
    products = statistics.mean(flops) / _FLOPS * 1000
    publish(
        {
            "benchmark": "gpu_training",
            "config": options.config,
            "tokens": options.tokens,
            "backend": "cupy",
            "ours": results.pop("ours"),
            "peers": results,
            "speedup": {peer: r["median"] for peer, r in ratios.items()},
            "speedup_quartiles": {peer: [r["low"], r["high"]] for peer, r in ratios.items()},
            "roofline": {
                "ms": round(products, 2),
                "fraction": round(products / 1000 / statistics.median(per_step["ours"]), 3),
            },
        },
        options.out,
    )


if __name__ == "__main__":
    main()
