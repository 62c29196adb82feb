"""A training step on a GPU against PyTorch's, in the same run.

    python -m benchmarks.gpu_training --config base --tokens 25000

Batches of 25,000 source and 25,000 target tokens, with lengths like those of WMT, one after
another. A step is forward, backward, gradient norm and Adam, in bfloat16 with float32 parameters;
ours also copies the batch, the peers have theirs on the device before. Sides take turns of several
steps, each in a separate process: one uncounted step, then the others, from an idle device to an
idle device. Memory is the most that a side's allocator reserved after it was warmed up, including
the workspace of cuBLAS or cuBLASLt.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Makers, hold, hold_again, last_lines, ratio
from benchmarks.gpu_batches import training_batches
from benchmarks.machine import peak_of
from benchmarks.report import gpu, keep, positive, publish, result_file, summary
from benchmarks.training_step import products_of
from npformer import Batch, TransformerConfig
from train.machine import machine

VOCABULARY, BATCHES = 37_000, 8
PEERS = ("torch-packed", "torch-filled-compiled", "torch-packed-compiled-dynamic")
# Where launching a step takes longer than computing it, a CUDA graph may be replayed.
SMALL, PEERS_OF_SMALL = 8192, (*PEERS, "torch-filled-cudagraphs")


class Steps:
    """A turn: steps on successive batches. `peak` gives the peak of reserved bytes."""

    def __init__(
        self,
        steps: int,
        take: Callable[[int], Any],
        synchronize: Callable[[], None],
        peak: Callable[[], int],
    ) -> None:
        self._steps, self._take = steps, take
        self._synchronize, self._peak = synchronize, peak

    def __call__(self) -> float:
        """Take `steps` steps; returns their seconds."""
        self._take(0)
        self._synchronize()
        started = time.perf_counter()
        for k in range(self._steps):
            self._take(k % BATCHES)
        self._synchronize()
        return time.perf_counter() - started

    def used(self) -> dict[str, int]:
        return {"peak_bytes": int(self._peak())}


def our_side(
    imported: Callable[[], None], name: str, tokens: int, steps: int, precision: str
) -> Steps:
    from autograd import DropoutStream
    from autograd.backend import backend
    from autograd.cuda.memory import arena
    from npformer import Transformer
    from train.adam import Adam
    from train.step import train_step

    imported()
    gpu = backend("cupy")
    batches = training_batches(BATCHES, tokens)
    config = TransformerConfig.preset(name, vocab_size=VOCABULARY)
    model = Transformer(config, seed=0).to("cupy", precision)
    optimizer = Adam(model.buffer)
    coming = gpu.ahead(model.prepared, itertools.cycle(batches))

    peak = 0

    def take(k: int) -> None:
        # The iterator gives the batches in order, so k is not needed.
        train_step(model, optimizer, [next(coming)], 1e-4, DropoutStream(0, optimizer.steps))
        nonlocal peak
        peak = max(peak, arena().held_bytes())

    for k in range(2 * BATCHES):  # compiles the kernels, and fills the memory pool
        take(k)
    gpu.synchronize()
    peak = 0
    return Steps(steps, take, gpu.synchronize, lambda: peak)


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
    torch.cuda.empty_cache()  # memory that compiling took
    torch.cuda.reset_peak_memory_stats()
    return Steps(steps, take, torch.cuda.synchronize, torch.cuda.max_memory_reserved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], required=True)
    parser.add_argument(
        "--tokens",
        type=positive,
        default=25_000,
        help="source tokens of a batch, and target tokens",
    )
    parser.add_argument(
        "--precision", choices=["bf16", "float32"], default="bf16", help="precision of our side"
    )
    parser.add_argument("--peers", nargs="*", help="names of torch_training.PEERS")
    parser.add_argument(
        "--cycles", type=positive, default=2, help="passes over all batches in a turn"
    )
    parser.add_argument("--rounds", type=positive, default=10, help="turns of each side")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    gpu()
    if options.peers is None:
        options.peers = PEERS_OF_SMALL if options.tokens <= SMALL else PEERS

    steps = options.cycles * BATCHES
    task = options.config, options.tokens, steps
    makers = {
        "ours": (our_side, *task, options.precision),
        **{peer: (torch_side, *task, peer) for peer in options.peers},
    }
    batches = training_batches(BATCHES, options.tokens)
    about = {
        "benchmark": "gpu_training",
        "config": options.config,
        "tokens": options.tokens,
        "precision": options.precision,
        "backend": "cupy",
        "products_ms": round(products_ms(options.config, batches), 2),
    }
    target = options.cycles * sum(b.target_tokens for b in batches)
    publish(contested(makers, options.rounds, about, steps, target, options.out), options.out)


def contested(
    makers: Makers,
    rounds: int,
    about: dict[str, Any],
    steps: int,
    target: int,
    out: Path | None = None,
) -> dict[str, Any]:
    """The result of all sides together, and then of each that failed, with ours alone.

    `apart` has ours of the contests of those. The result so far is kept in `out`.
    """

    def result(contest: Contest) -> dict[str, Any]:
        found = compared(contest.seconds, steps, target)
        for name, used in contest.used.items():
            of_side = found["ours"] if name == "ours" else found["peers"][name]
            of_side["peak_bytes"] = used["peak_bytes"]
        return {**about, "failed": last_lines(contest.failed), **found}

    contest = hold(makers, rounds, after_round=lambda contest: keep(result(contest), out))
    together, failed = result(contest), contest.failed
    keep(together, out)
    for name, contest_apart in hold_again(makers, failed, rounds).items():
        apart = result(contest_apart)
        for key in ("peers", "speedup", "speedup_quartiles"):
            together[key] = {**together.get(key, {}), **apart.get(key, {})}
        together["apart"] = {**together.get("apart", {}), name: apart["ours"]}
    for error in failed.values():
        print(error, file=sys.stderr)
    return {**together, "failed": last_lines(failed)}


def products_ms(name: str, batches: list[Batch]) -> float:
    """The time of a step's matrix products, without attention's, at the card's best rate."""
    config = TransformerConfig.preset(name, vocab_size=VOCABULARY)
    shapes = [products_of(config, batch) for batch in batches]
    flops = [sum(2 * n * k * m * count for (n, k, m), count in s.items()) for s in shapes]
    return statistics.mean(flops) / peak_of(machine()).flops_per_s * 1000


def compared(seconds: dict[str, list[float]], steps: int, target: int) -> dict[str, Any]:
    """Each side's step, and the peers' times divided by ours; `target`: target tokens of a turn."""
    rounds = len(seconds["ours"])
    per_step = {name: [s / steps for s in of_side] for name, of_side in seconds.items()}
    results = {name: summary(s, [round(target / steps)] * rounds) for name, s in per_step.items()}
    found: dict[str, Any] = {"ours": results.pop("ours"), "peers": results}
    if rounds > 1:
        ratios = {peer: ratio(per_step["ours"], per_step[peer]) for peer in results}
        found["speedup"] = {peer: r["median"] for peer, r in ratios.items()}
        found["speedup_quartiles"] = {peer: [r["low"], r["high"]] for peer, r in ratios.items()}
    return found


if __name__ == "__main__":
    main()
