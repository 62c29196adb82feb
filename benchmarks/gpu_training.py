"""A training step on a GPU against PyTorch's and JAX's, in the same run.

    python -m benchmarks.gpu_training --config base --tokens 25000 --fresh

Batches of 25,000 source and 25,000 target tokens, with lengths like those of WMT, one after
another. A step is forward, backward, gradient norm and Adam, in bfloat16 with float32 parameters;
ours also copies the batch, the peers have theirs on the device before. Ours is filled up, recorded
and replayed as in training (train/recordings.py). Sides take turns of several steps, each in a
separate process: one uncounted step, then the others, from an idle device to an idle device. Memory
is the most that a side's allocator reserved after it was warmed up, including the workspace of
cuBLAS or cuBLASLt, without the batches that wait on the device.

With `--fresh` no batch comes again, as in training: the figure that counts. What ours has to set
up for sizes that it has not met counts too. Peers that are compiled for fixed sizes get batches
that are filled up to at most `--shapes` of them, all compiled before the clock runs. In each turn
the same 8 batches follow, over and over; of a peer the better figure counts, of ours that of the
fresh ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contest import Contest, Makers, hold, hold_again, last_lines, ratio
from benchmarks.gpu_batches import training_batches
from benchmarks.machine import peak_of
from benchmarks.report import gpu, keep, positive, publish, result_file, summary
from benchmarks.shapes import MOST, by_tokens
from benchmarks.training_step import products_of
from npformer import Batch, TransformerConfig
from train.machine import machine

VOCABULARY, BATCHES = 37_000, 8
PEERS = ("torch-packed", "torch-filled-compiled", "torch-packed-compiled-dynamic")
JAX_PEERS = ("jax-xla", "jax-cudnn")  # by the implementation of attention
# Where launching a step takes longer than computing it, a CUDA graph may be replayed.
SMALL, PEERS_OF_SMALL = 8192, (*PEERS, "torch-filled-cudagraphs")


class Task(NamedTuple):
    """What all sides do.

    Attributes:
        config: a preset
        tokens: source tokens of a batch, and target tokens, at most
        steps: of a turn, with the same batches over and over, and with fresh ones
        turns: with fresh batches, warm-ups included; 0 for the same ones alone
        shapes: of filled batches, at most
    """

    config: str
    tokens: int
    steps: int
    turns: int = 0
    shapes: int = 1

    @property
    def model(self) -> TransformerConfig:
        return TransformerConfig.preset(self.config, vocab_size=VOCABULARY)

    def batches(self) -> list[Batch]:
        """First those that come again, and then the fresh ones of each turn."""
        return training_batches(BATCHES + self.turns * self.steps, self.tokens)

    def fresh(self, turn: int) -> range:
        """The fresh batches of a turn."""
        first = BATCHES + turn * self.steps
        return range(first, first + self.steps)

    def order(self) -> Iterator[int]:
        """The batches of the warm-up and of all turns, as `Turns` asks for them."""
        again = [k % BATCHES for k in range(self.steps)]
        yield from (k % BATCHES for k in range(2 * BATCHES))
        for turn in itertools.count():
            if turn < self.turns:
                yield from (0, *self.fresh(turn))
            yield from (0, *again)


class Turns:
    """Turns of a side: steps on fresh batches, if there are any, and then on the same ones.

    `take` takes a step on batch k, and `peak` gives the peak of reserved bytes.
    """

    def __init__(
        self,
        task: Task,
        take: Callable[[int], Any],
        synchronize: Callable[[], None],
        peak: Callable[[], int],
    ) -> None:
        self._task, self._take = task, take
        self._synchronize, self._peak = synchronize, peak
        self._turn = 0
        self._again_s: list[float] = []

    def __call__(self) -> float:
        """The seconds of the steps on fresh batches, or if there are none, on the same ones."""
        task, fresh = self._task, None
        if self._turn < task.turns:
            fresh = self._seconds([*task.fresh(self._turn)])
        self._again_s.append(self._seconds([k % BATCHES for k in range(task.steps)]))
        self._turn += 1
        return self._again_s[-1] if fresh is None else fresh

    def _seconds(self, batches: list[int]) -> float:
        self._take(0)
        self._synchronize()
        started = time.perf_counter()
        for k in batches:
            self._take(k)
        self._synchronize()
        return time.perf_counter() - started

    def used(self) -> dict[str, Any]:
        return {"peak_bytes": int(self._peak()), "again_s": self._again_s}


def our_side(imported: Callable[[], None], task: Task, precision: str) -> Turns:
    from autograd import DropoutStream
    from autograd.backend import backend
    from autograd.cuda.memory import arena
    from npformer import Transformer
    from train.adam import Adam
    from train.recordings import Recordings, sized
    from train.step import train_step

    imported()
    gpu = backend("cupy")
    batches = task.batches()
    model = Transformer(task.model, seed=0).to("cupy", precision)
    optimizer = Adam(model.buffer)
    longest = max(
        max(b.source.sentences.longest, b.target_input.sentences.longest) for b in batches
    )
    recordings = Recordings(model, optimizer, longest)  # as in training

    def prepared(k: int) -> tuple[int, Batch]:
        return k, model.prepared(sized(batches[k], task.tokens))

    coming = gpu.ahead(prepared, task.order())

    peak = 0

    def take(k: int) -> None:
        following, batch = next(coming)
        assert following == k
        dropout = DropoutStream(0, optimizer.steps)
        train_step(model, optimizer, [batch], 1e-4, dropout, recordings=recordings)
        nonlocal peak
        peak = max(peak, arena().held_bytes())

    for k in range(2 * BATCHES):  # compiles the kernels, and fills the memory pool
        take(k % BATCHES)
    gpu.synchronize()
    peak = 0
    return Turns(task, take, gpu.synchronize, lambda: peak)


def torch_side(imported: Callable[[], None], task: Task, name: str) -> Turns:
    import torch

    from benchmarks.torch_training import PEERS as ALL_PEERS
    from benchmarks.torch_training import parts_of, steps_on

    imported()
    peer, batches = ALL_PEERS[name], task.batches()
    parts = parts_of(peer, batches, "cuda", task.shapes)
    of_batches = torch.cuda.memory_allocated()
    take = steps_on(peer, task.model, parts)
    # Compiles, and fills the memory pool: each of the shapes that batches are filled up to.
    shapes = [group[0] for group in by_tokens(batches, task.shapes)]
    for k in (*shapes, *range(BATCHES)) * 2:
        take(k)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # memory that compiling took
    torch.cuda.reset_peak_memory_stats()

    def peak() -> int:
        return int(torch.cuda.max_memory_reserved()) - of_batches

    return Turns(task, take, torch.cuda.synchronize, peak)


def jax_side(imported: Callable[[], None], task: Task, attention: str) -> Turns:
    # Other sides need memory too.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    from benchmarks.jax_transformer import rows_of, steps
    from npformer import Transformer

    if jax.default_backend() != "gpu":
        raise RuntimeError(f"JAX computes on {jax.default_backend()}: its GPU build is missing")
    imported()
    batches = rows_of(task.batches(), shapes=task.shapes)
    of_batches = sum(x.nbytes for x in jax.tree.leaves(batches))
    run = steps(task.model, batches, Transformer(task.model, seed=0), attention=attention)
    last: Any = None

    def take(k: int) -> None:
        nonlocal last
        last = run(k)

    def synchronize() -> None:
        jax.block_until_ready(last)

    def peak() -> int:
        statistics = jax.devices()[0].memory_stats() or {}
        return int(statistics.get("peak_bytes_in_use", 0)) - of_batches

    for k in range(BATCHES):
        take(k)
    synchronize()
    return Turns(task, take, synchronize, peak)


def peers_of(task: Task) -> list[str]:
    """The peers that are compared by default: JAX where it is installed."""
    peers = [*(PEERS_OF_SMALL if task.tokens <= SMALL else PEERS)]
    return peers + [*JAX_PEERS] * (importlib.util.find_spec("jax") is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], required=True)
    parser.add_argument(
        "--tokens",
        type=positive,
        default=25_000,
        help="source tokens of a batch, and target tokens",
    )
    parser.add_argument("--fresh", action="store_true", help="batches that do not come again")
    parser.add_argument(
        "--shapes",
        type=positive,
        default=MOST,
        help=f"sizes that fresh batches are filled up to, {MOST} at most",
    )
    parser.add_argument(
        "--precision", choices=["bf16", "float32"], default="bf16", help="precision of our side"
    )
    parser.add_argument(
        "--peers", nargs="*", help="names of torch_training.PEERS, jax-xla, jax-cudnn"
    )
    parser.add_argument(
        "--cycles", type=positive, default=2, help="passes over the same batches in a turn"
    )
    parser.add_argument("--rounds", type=positive, default=10, help="turns of each side")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    if options.shapes > MOST:
        parser.error(f"--shapes is at most {MOST}")
    gpu()
    steps = options.cycles * BATCHES
    turns = 1 + options.rounds if options.fresh else 0
    shapes = options.shapes if options.fresh else 1
    task = Task(options.config, options.tokens, steps, turns, shapes)
    peers = peers_of(task) if options.peers is None else options.peers
    makers: dict[str, tuple[Any, ...]] = {"ours": (our_side, task, options.precision)}
    for peer in peers:
        kind, _, attention = peer.partition("-")
        makers[peer] = (jax_side, task, attention) if kind == "jax" else (torch_side, task, peer)
    batches = task.batches()
    timed = batches[BATCHES + steps :] if options.fresh else batches
    about = {
        "benchmark": "gpu_training",
        "config": options.config,
        "tokens": options.tokens,
        "fresh": options.fresh,
        "precision": options.precision,
        "backend": "cupy",
        "products_ms": round(products_ms(options.config, timed), 2),
        **({"shapes": shapes, "filled": round(filled(batches, shapes), 4)} if turns else {}),
    }
    publish(contested(makers, options.rounds, about, Work.of(task), options.out), options.out)


def filled(batches: list[Batch], shapes: int) -> float:
    """Tokens of fillers, as a share of the real ones, in batches filled up to so many sizes."""
    found = real = 0
    for group in by_tokens(batches, shapes):
        sizes = [(len(batches[k].source.tokens), batches[k].target_tokens) for k in group]
        real += sum(map(sum, sizes))
        found += len(sizes) * sum(map(max, zip(*sizes, strict=True)))
    return found / real - 1


class Work(NamedTuple):
    """The tokens of turns, to compare turns with other batches.

    Attributes:
        steps: of a turn
        target: target tokens of a turn with the same batches
        both: source and target tokens of it
        fresh_target, fresh_both: of each counted turn with fresh batches; empty if there is none
    """

    steps: int
    target: int
    both: int
    fresh_target: tuple[int, ...] = ()
    fresh_both: tuple[int, ...] = ()

    @classmethod
    def of(cls, task: Task) -> Work:
        batches = task.batches()
        target = [b.target_tokens for b in batches]
        both = [len(b.source.tokens) + n for b, n in zip(batches, target, strict=True)]
        again = task.steps // BATCHES
        turns = [task.fresh(turn) for turn in range(1, task.turns)]  # after the warm-up
        return cls(
            task.steps,
            again * sum(target[:BATCHES]),
            again * sum(both[:BATCHES]),
            tuple(sum(target[k] for k in turn) for turn in turns),
            tuple(sum(both[k] for k in turn) for turn in turns),
        )


def contested(
    makers: Makers,
    rounds: int,
    about: dict[str, Any],
    work: Work,
    out: Path | None = None,
) -> dict[str, Any]:
    """The result of all sides together, and then of each that failed, with ours alone.

    `apart` has ours of the contests of those. The result so far is kept in `out`.
    """

    def result(contest: Contest) -> dict[str, Any]:
        again = {
            name: used["again_s"][-rounds:]
            for name, used in contest.used.items()
            if used.get("again_s") and work.fresh_target
        }
        found = compared(contest.seconds, work, again)
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


def compared(
    seconds: dict[str, list[float]], work: Work, again: dict[str, list[float]] | None = None
) -> dict[str, Any]:
    """Each side's step, and the peers' times divided by ours.

    seconds: of turns, with fresh batches if there are any. again: of those with the same batches
    then; a peer's figure is the better of its two, and its `fresh` says which. Times are those of a
    mean fresh batch: in proportion to the tokens, source and target.
    """
    again = again or {}
    rounds = len(seconds["ours"])
    fresh = bool(work.fresh_target)
    target = work.fresh_target[:rounds] if fresh else (work.target,) * rounds
    both = work.fresh_both[:rounds] if fresh else (work.both,) * rounds
    mean_target, mean_both = statistics.mean(target), statistics.mean(both)

    def figure(turns: list[float], of: list[int] | tuple[int, ...]) -> list[float]:
        """Seconds of a step with a mean batch, in each turn; of: the tokens of the turns."""
        return [s / n * mean_both / work.steps for s, n in zip(turns, of, strict=True)]

    figures: dict[str, list[float]] = {}
    results: dict[str, dict[str, Any]] = {}
    for name, of_side in seconds.items():
        found = {fresh: figure(of_side, both)}
        if name in again:
            found[False] = figure(again[name][:rounds], [work.both] * rounds)
        counts = fresh
        if name != "ours":
            counts = min(found, key=lambda which: statistics.median(found[which]))
        figures[name] = found[counts]
        results[name] = summary(found[counts], [round(mean_target / work.steps)] * rounds)
        if fresh:
            results[name]["fresh"] = counts
            for which, of_which in found.items():
                key = "fresh_ms" if which else "again_ms"
                results[name][key] = round(statistics.median(of_which) * 1000, 2)
    found_all: dict[str, Any] = {"ours": results.pop("ours"), "peers": results}
    if rounds > 1:
        ratios = {peer: ratio(figures["ours"], figures[peer]) for peer in results}
        found_all["speedup"] = {peer: r["median"] for peer, r in ratios.items()}
        found_all["speedup_quartiles"] = {peer: [r["low"], r["high"]] for peer, r in ratios.items()}
    return found_all


if __name__ == "__main__":
    main()
