"""A training step shared by several ranks: bytes, communication, and how much of it is hidden.

    OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 mpiexec -n 2 python -m benchmarks.scaling \\
        --config tiny --json

In one run, taking turns, the same batches are trained on
- by the first rank alone, while the others wait ("one_rank");
- by all ranks, which share each batch ("strong"), or have one each ("weak");
- by all ranks without any communication ("strong_apart", "weak_apart"): what cores that compute
  at the same time take from each other;
and the gradients are summed with nothing computed meanwhile ("communication").

Of a step with communication, `ms` is that of the slowest rank. `exposed_ms` is how long the rank
that finishes its backward pass last waits for the sums that are not complete by then, `held_ms` how
long its backward pass was held up by sending, and `imbalance_ms` how much longer other ranks wait
for it. What is left of the time of communication alone is hidden (`hidden`, a share).
`load` is how many processes wanted a core in the last minute: more than the ranks are others.
`buckets` has when each part of the gradients was sent, and `backward_ms` when the backward pass
ended, both since the beginning of a strong step. Times are medians; `spread` is the distance
between the quartiles as a share of the median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from autograd import DropoutStream, Parameter, ParameterBuffer
from autograd.backend import Array
from benchmarks.gpu_batches import BEGIN, END, pairs_of_wmt
from benchmarks.interconnects import recursive_doubling_bytes, ring_bytes
from benchmarks.report import positive, publish, result_file
from benchmarks.training_step import SETTINGS
from npformer import Transformer, TransformerConfig
from train.adam import Adam
from train.corpora.batches import Batches, Place
from train.ranks.exchange import BucketedExchange, Request, Transport
from train.ranks.ranks import Ranks
from train.ranks.shares import Step, steps
from train.ranks.world import world
from train.step import train_step

BATCHES = 2  # of a turn
PAIRS = 4000
_THREADS = ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Counted:
    """A transport that notes what is summed, and when."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.sums: list[tuple[int, float]] = []  # bytes, and the time

    def start_sum(self, array: Array) -> Request:
        self.sums.append((int(array.nbytes), time.perf_counter()))
        return self._transport.start_sum(array)

    def poll(self) -> None:
        self._transport.poll()


class Timed:
    """An exchange that notes how long it takes: within the backward pass, and after it."""

    def __init__(self, buffer: ParameterBuffer, transport: Transport) -> None:
        self.counted = Counted(transport)
        self._exchange = BucketedExchange(buffer, self.counted)
        self.held = self.waited = self.backward_ended = 0.0

    def begin(self, numbers: Array) -> None:
        self.held, self.counted.sums = 0.0, []
        self._timed(lambda: self._exchange.begin(numbers))

    def completed(self, parameter: Parameter) -> None:
        self._timed(lambda: self._exchange.completed(parameter))

    def finish(self) -> None:
        self.backward_ended = time.perf_counter()
        self._exchange.finish()
        self.waited = time.perf_counter() - self.backward_ended

    def _timed(self, call: Callable[[], None]) -> None:
        started = time.perf_counter()
        call()
        self.held += time.perf_counter() - started


class Times(NamedTuple):
    """Of a step on one rank, in seconds; the rest is 0 where nothing was communicated."""

    step: float
    held: float = 0.0
    waited: float = 0.0
    backward: float = 0.0
    sent: tuple[float, ...] = ()  # when each bucket was, after the losses, since the step began


class Bench:
    """A model on each rank, and its part of the same steps.

    transport: what sums over the ranks; None for a rank alone
    """

    def __init__(
        self,
        ranks: Ranks,
        transport: Transport | None,
        config: TransformerConfig,
        tokens: int,
        batches: int = BATCHES,
    ) -> None:
        self.ranks = ranks
        self.model = Transformer(config, seed=0)
        self.optimizer = Adam(self.model.buffer)
        self.exchange = Timed(self.model.buffer, transport) if transport else None
        pairs = pairs_of_wmt(max(PAIRS, 2 * ranks.size), config.vocab_size)
        corpus = Batches(pairs, tokens=tokens, begin_id=BEGIN, end_id=END)

        def part(accumulate: int, rank: int, size: int) -> list[Step]:
            return list(islice(steps(corpus, Place(), accumulate, rank, size), batches))

        self.alone = part(1, 0, 1)
        self.strong = part(1, ranks.rank, ranks.size)
        self.weak = part(ranks.size, ranks.rank, ranks.size)
        self._steps = 0

    def take(self, step: Step, exchange: Timed | None) -> Times:
        self._steps += 1
        started = time.perf_counter()
        train_step(
            self.model,
            self.optimizer,
            step.batches,
            1e-4,
            DropoutStream(0, self._steps),
            part=step.part,
            exchange=exchange,
        )
        took = time.perf_counter() - started
        if exchange is None:
            return Times(took)
        sent = tuple(at - started for _, at in exchange.counted.sums[1:])
        backward = exchange.backward_ended - started
        return Times(took, exchange.held, exchange.waited, backward, sent)

    def sum_alone(self) -> Times:
        """All gradients are summed, with nothing else to do."""
        if self.exchange is None:
            return Times(0.0)
        started = time.perf_counter()
        self.exchange.begin(np.zeros(2, np.float32))
        self.exchange.finish()
        return Times(time.perf_counter() - started)

    def turns(self) -> dict[str, Callable[[], list[Times]]]:
        """What takes turns: each gives its steps on this rank."""

        def all_of(parts: Sequence[Step], exchange: Timed | None) -> list[Times]:
            return [self._together(partial(self.take, step, exchange)) for step in parts]

        first = self.alone if self.ranks.is_first else []
        return {
            "one_rank": lambda: [self.take(step, None) for step in first],
            "strong": lambda: all_of(self.strong, self.exchange),
            "strong_apart": lambda: all_of(self.strong, None),
            "weak": lambda: all_of(self.weak, self.exchange),
            "weak_apart": lambda: all_of(self.weak, None),
            "communication": lambda: [self._together(self.sum_alone) for _ in self.strong],
        }

    def _together(self, take: Callable[[], Times]) -> Times:
        self.ranks.all(None)
        return take()


def measure(bench: Bench, rounds: int, warmup: int) -> dict[str, list[list[Times]]]:
    """The steps of all rounds, each with the times of every rank."""
    turns = bench.turns()
    found: dict[str, list[list[Times]]] = {name: [] for name in turns}
    for k in range(warmup + rounds):
        for name, turn in turns.items():
            bench.ranks.all(None)
            of_ranks = bench.ranks.all(turn())
            if k >= warmup:
                # Of the first rank alone, the others have nothing.
                present = [of_rank for of_rank in of_ranks if of_rank]
                found[name] += [list(step) for step in zip(*present, strict=True)]
    return found


def result_of(bench: Bench, found: dict[str, list[list[Times]]]) -> dict[str, Any]:
    """What was measured, in milliseconds and bytes."""
    ranks, buffer = bench.ranks, bench.model.buffer
    sums = [size for size, _ in bench.exchange.counted.sums] if bench.exchange else []
    tokens = {
        "one_rank": [step.part.target_tokens for step in bench.alone],
        "strong": [step.part.target_tokens for step in bench.strong],
        "weak": [step.part.target_tokens for step in bench.weak],
    }
    result: dict[str, Any] = {
        "ranks": ranks.size,
        "load": round(os.getloadavg()[0], 1),
        "threads": {name: os.environ.get(name, "") for name in _THREADS},
        "parameters": sum(p.size for p in bench.model.parameters().values()),
        "bytes": {
            "gradients": int(buffer.allocate_gradients().nbytes),
            "summed": sum(sums),
            "sent_by_ring": round(ring_bytes(sum(sums), ranks.size)),
            "sent_by_recursive_doubling": round(recursive_doubling_bytes(sum(sums), ranks.size)),
        },
    }
    for name, of_steps in found.items():
        seconds = [max(rank.step for rank in step) for step in of_steps]
        result[name] = _summary(seconds)
        if name in tokens:
            rates = _rates(seconds, tokens[name])
            result[name]["target_tokens"] = round(statistics.mean(tokens[name]))
            result[name]["tokens_per_s"] = round(statistics.median(rates), 1)
    alone, communication = result["one_rank"], result["communication"]["ms"]
    for name in ("strong", "weak"):
        of = result[name]
        ratio = of["tokens_per_s"] / alone["tokens_per_s"]
        of |= {"faster": round(ratio, 3), "efficiency": round(ratio / ranks.size, 3)}
        if bench.exchange:
            of |= _of_exchange(found[name], communication)
    if bench.exchange:
        strong = found["strong"]
        sent = zip(*(step[0].sent for step in strong), strict=True)  # by the first rank
        result["backward_ms"] = _ms(statistics.median(step[0].backward for step in strong))
        result["buckets"] = [
            {"bytes": size, "sent_ms": _ms(statistics.median(at))}
            for size, at in zip(sums[1:], sent, strict=True)
        ]
    return result


def _of_exchange(of_steps: list[list[Times]], communication: float) -> dict[str, float]:
    """What communication adds to a step, and what share of it is hidden."""
    exposed = [min(rank.waited for rank in step) for step in of_steps]
    held = [min(step, key=lambda rank: rank.waited).held for step in of_steps]
    waited = [max(rank.waited for rank in step) for step in of_steps]
    added = _ms(statistics.median(exposed)), _ms(statistics.median(held))
    return {
        "exposed_ms": added[0],
        "held_ms": added[1],
        "imbalance_ms": round(_ms(statistics.median(waited)) - added[0], 2),
        "hidden": round(1 - sum(added) / communication, 3),
    }


def _rates(seconds: list[float], tokens: list[int]) -> list[float]:
    """Tokens a second, by turns: its steps have batches of different sizes."""
    turns = range(0, len(seconds), len(tokens))
    return [sum(tokens) / sum(seconds[k : k + len(tokens)]) for k in turns]


def _summary(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    spread = round((high - low) / middle, 4) if middle else 0.0
    return {"ms": _ms(statistics.median(seconds)), "spread": spread}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=SETTINGS, required=True)
    parser.add_argument("--rounds", type=positive, default=10, help="turns of each kind")
    parser.add_argument("--warmup", type=int, default=2, help="turns before those, not measured")
    parser.add_argument("--network", help="what connects the ranks, for the result")
    parser.add_argument("--json", action="store_true", help="for scripts: the result is one line")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    run(world(), options.config, options.rounds, options.warmup, options.network, options.out)


def run(
    ranks: Ranks, name: str, rounds: int, warmup: int, network: str | None, out: Path | None
) -> None:
    """Measure on all ranks; the first one publishes."""
    setting = SETTINGS[name]
    config = TransformerConfig.preset(name, vocab_size=setting.vocab_size)
    # Ranks that MPI connects are their own transport.
    transport = cast(Transport, ranks) if ranks.size > 1 else None
    bench = Bench(ranks, transport, config, setting.tokens)
    result = result_of(bench, measure(bench, rounds, warmup))
    if ranks.is_first:
        about = {"benchmark": "scaling", "config": name, "backend": "numpy", "network": network}
        publish({**about, **result}, out)


if __name__ == "__main__":
    main()
