"""The host's time for a step of training or decoding on a GPU, measured without a GPU.

    python -m benchmarks.host_time --config base --tokens 4096
    python -m benchmarks.host_time --config base --beam 4

CuPy runs on the tests' stand-in for a GPU, and kernels and products do nothing. Only the host's
part of a step is left: Python, CuPy, and their calls of CUDA. A step on a real GPU takes at least
as long on such a host. Every step has a new batch, as in training, which is copied ahead of it.

`asked_for` is the mean number of calls of CUDA in a step. `memory` holds the device memory that is
allocated at the end, and the most that arrays used at any time in the last steps. With `--pool
cupy` fresh arrays come from CuPy's pool, for a comparison with autograd/cuda/memory.py. With
`--launched` every step is launched anew, and not recorded and replayed (train/recordings.py);
`recorded` is how many of the measured steps were replayed as a whole.

With `--beam` the steps are those of a search for one sentence, from the last tokens of the
hypotheses to the next ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.gpu_batches import BEGIN, END, training_batches
from benchmarks.report import positive, publish, result_file, summary
from npformer import Batch, TransformerConfig
from tests.without_gpu.cupy import Counts, install

VOCABULARY = 37_000
PROCESSORS = 132  # of an H100 and an H200
# Steps before the measurement, which cover most sizes of products, and steps after it in which
# memory is observed.
_WARMUP, _WATCHED = 200, 20
_FEW = 50  # launches, at most, of a step that is replayed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], required=True)
    parser.add_argument(
        "--tokens",
        type=positive,
        default=25_000,
        help="source tokens of a batch, and target tokens",
    )
    parser.add_argument("--steps", type=positive, default=100, help="measured steps")
    parser.add_argument(
        "--pool", choices=["arena", "cupy"], default="arena", help="the pool of fresh arrays"
    )
    parser.add_argument("--beam", type=positive, help="measure decoding, with as many hypotheses")
    parser.add_argument("--launched", action="store_true", help="record nothing")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    stand_in = install(execute=False, processors=PROCESSORS)

    if options.beam:
        publish(of_decoding(options, stand_in.counts), options.out)
        return

    import cupy

    from autograd import DropoutStream
    from autograd.backend import backend
    from autograd.cuda.memory import arena
    from npformer import Transformer
    from train.adam import Adam
    from train.recordings import Recordings, sized
    from train.step import train_step

    gpu = backend("cupy")
    if options.pool == "cupy":
        object.__setattr__(gpu, "empty", cupy.empty)
    config = TransformerConfig.preset(options.config, vocab_size=VOCABULARY)
    batches = training_batches(_WARMUP + options.steps + _WATCHED, options.tokens)
    model = Transformer(config, seed=0).to("cupy", "bf16")
    optimizer = Adam(model.buffer)
    longest = max(
        max(b.source.sentences.longest, b.target_input.sentences.longest) for b in batches
    )
    recordings = None if options.launched else Recordings(model, optimizer, longest)
    target = [b.target_tokens for b in batches[_WARMUP:-_WATCHED]]

    def given_up() -> Iterator[Batch]:
        """The batches one by one, whose arrays on the device are gone after their steps."""
        while batches:
            yield batches.pop(0)

    def prepared(batch: Batch) -> Batch:
        return model.prepared(batch if options.launched else sized(batch, options.tokens))

    coming, replayed = gpu.ahead(prepared, given_up()), 0

    def take(steps: int) -> list[float]:
        """The seconds of each of `steps` steps."""
        nonlocal replayed
        seconds = []
        for _ in range(steps):
            launches, started = stand_in.counts().launches, time.perf_counter()
            train_step(
                *(model, optimizer, [next(coming)], 1e-4, DropoutStream(0, optimizer.steps)),
                recordings=recordings,
            )
            seconds.append(time.perf_counter() - started)
            replayed += stand_in.counts().launches - launches < _FEW
        return seconds

    class Watched(cupy.cuda.MemoryHook):
        """Records the peak of the bytes that arrays use."""

        peak = 0

        def malloc_postprocess(self, **_: Any) -> None:
            self.peak = max(self.peak, arena().used_bytes())

    take(_WARMUP)
    before, replayed = stand_in.counts(), 0
    seconds = take(options.steps)
    of_measured = replayed
    asked_for = [after - b for b, after in zip(before, stand_in.counts(), strict=True)]
    with Watched() as watched:
        take(_WATCHED)
    result = {
        "benchmark": "host_time",
        "config": options.config,
        "tokens": options.tokens,
        "precision": "bf16",
        "pool": options.pool,
        "recorded": of_measured,
        "backend": "cupy, on a stand-in whose kernels do nothing",
        "ours": {**summary(seconds, target), "least_ms": round(min(seconds) * 1000, 2)},
        "asked_for": {
            name: round(count / options.steps, 1)
            for name, count in zip(Counts._fields, asked_for, strict=True)
        },
        "memory": {"held_bytes": arena().held_bytes(), "used_bytes": watched.peak},
    }
    publish(result, options.out)


def of_decoding(options: argparse.Namespace, counts: Callable[[], Counts]) -> dict[str, Any]:
    """The result for steps of decoding: what `npformer.search` does for one sentence."""
    from npformer import Packed, SearchSettings, Transformer
    from npformer.beam import Beam
    from npformer.decoder import Room

    config = TransformerConfig.preset(options.config, vocab_size=VOCABULARY)
    model = Transformer(config, seed=0).to("cupy", "bf16")
    settings, source = SearchSettings(options.beam), Packed.of([[*range(3, 30), END]])
    room = Room(1, options.beam, 96, 32)
    live = Beam(model, room, settings, END, is_recorded=not options.launched)
    live.begin(model, source, np.array([96]), settings, BEGIN)
    for _ in range(_FEW):
        live.step()
    before, seconds, replayed = counts(), [], 0
    for _ in range(options.steps):
        launches, started = counts().launches, time.perf_counter()
        live.step()
        seconds.append(time.perf_counter() - started)
        replayed += counts().launches - launches < _FEW
    return {
        "benchmark": "host_time",
        "config": options.config,
        "beam": options.beam,
        "precision": "bf16",
        "recorded": replayed,
        "backend": "cupy, on a stand-in whose kernels do nothing",
        "ours": {
            **summary(seconds, [options.beam] * options.steps),
            "least_ms": round(min(seconds) * 1000, 3),
        },
        "asked_for": {
            name: round((after - b) / options.steps, 1)
            for name, b, after in zip(Counts._fields, before, counts(), strict=True)
        },
    }


if __name__ == "__main__":
    main()
