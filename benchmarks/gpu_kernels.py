"""What each kernel of a training step reaches of its own floor, on a GPU.

    python -m benchmarks.gpu_kernels --config base

The operations of a base or big step on a batch of 25,000 source and 25,000 target tokens with
lengths like those of WMT, in bfloat16, forward and backward apart, each timed by the device's own
events, with the device kept busy until everything is in its queue. A floor is the larger of two
times: that of its bytes, each read or written once, at 4.3 TB/s, and that of its products at 790
TFLOP/s, both as measured on an H200.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autograd import DropoutStream, Tape, ops
from autograd.backend import Backend, bfloat16
from autograd.op import Op
from benchmarks.gpu_batches import training_batches
from benchmarks.report import gpu, keep, publish
from benchmarks.spin import spin
from npformer import TransformerConfig

BYTES_PER_S, FLOPS_PER_S = 4.3e12, 790e12
VOCABULARY = 37_000


class Work(NamedTuple):
    """One operation with its arguments, and what its forward and backward pass have to move.

    Bytes and multiply-adds, forward and backward; each array counts once a pass.
    """

    op: Op
    arrays: tuple[Any, ...]
    settings: dict[str, Any]
    bytes_: tuple[float, float]
    multiplications: tuple[float, float]
    constants: tuple[int, ...] = ()  # which of the arrays have no gradient


def work_of(config: TransformerConfig, owner: Backend, tokens: int) -> dict[str, Work]:
    """The operations of a step; shapes as the decoder has them."""
    batch = training_batches(1, tokens, VOCABULARY)[0]
    rng = np.random.default_rng(0)
    dtype = bfloat16()
    n, d, ff, heads = batch.target_tokens, config.d_model, config.d_ff, config.heads
    assert config.d_k is not None
    lengths, key_lengths = batch.target_input.lengths, batch.source.lengths
    keys = int(key_lengths.sum())

    def random(*shape: int, kind: Any = dtype) -> Any:
        return owner.asarray(rng.standard_normal(shape, np.float32).astype(kind))

    site = DropoutStream(0, 1).site(0, 0.1)
    ids = owner.asarray(batch.target_input.tokens)
    places = owner.asarray(batch.target_input.places)
    gain = random(d, kind=np.float32)
    x, table = random(n, d), random(VOCABULARY, d)
    head = {"heads": heads, "d_k": config.d_k, "lengths": lengths}
    own = 2.0 * d * float((lengths.astype(float) * (lengths + 1) / 2).sum())
    cross = 2.0 * d * float((lengths.astype(float) * key_lengths).sum())
    row, wide = 2.0 * n * d, 2.0 * n * ff  # bytes of a matrix of activations
    logits = 2.0 * n * VOCABULARY
    return {
        "add_dropout_norm": Work(
            ops.add_dropout_norm, (x, random(n, d), gain, gain), {"site": site},
            (3 * row, 5 * row), (0, 0),
        ),
        "linear with relu": Work(
            ops.linear, (x, random(d, ff), random(ff, kind=np.float32)), {"relu": True},
            (row + wide, 2 * row + 2 * wide), (n * d * ff, 2 * n * d * ff),
        ),
        "linear": Work(
            ops.linear, (x, random(d, d), gain), {},
            (2 * row, 3 * row), (n * d * d, 2 * n * d * d),
        ),
        "attention to itself, causal": Work(
            ops.attention, (random(n, 3 * d),), {**head, "causal": True},
            (4 * row, 8 * row), (own, 2.5 * own),
        ),
        "attention to the source": Work(
            ops.attention, (x, random(keys, 2 * d)), {**head, "key_lengths": key_lengths},
            (2 * row + 4.0 * keys * d, 4 * row + 8.0 * keys * d), (cross, 2.5 * cross),
        ),
        "embedding": Work(
            ops.embedding, (table, random(256, d)),
            {"ids": ids, "places": places, "scale": d**0.5, "site": site},
            (2 * row, row + 4.0 * VOCABULARY * d), (0, 0), (1,),
        ),
        "projected_cross_entropy": Work(
            ops.projected_cross_entropy, (x, table),
            {"targets": ids, "smoothing": 0.1},
            (row + 3 * logits, 2 * row + 2 * logits + 4.0 * VOCABULARY * d),
            (n * d * VOCABULARY, 2.0 * n * d * VOCABULARY),
        ),
    }  # fmt: skip


_SPIN_CYCLES = 100_000_000  # some 50 ms: until all that is to be timed has been asked for


def seconds_of(owner: Backend, runs: list[Callable[[], Any]]) -> list[float]:
    """How long the device took for each of `runs`, all of which wait for it in its queue."""
    cuda = owner.module.cuda
    marks = [(cuda.Event(), cuda.Event()) for _ in runs]
    owner.synchronize()
    spin(owner, _SPIN_CYCLES)
    for (begin, end), run in zip(marks, runs, strict=True):
        begin.record()
        run()
        end.record()
    if marks[0][0].done:
        raise RuntimeError("the device was through before all was asked for: raise _SPIN_CYCLES")
    owner.synchronize()
    return [cuda.get_elapsed_time(begin, end) / 1000 for begin, end in marks]


def passes(owner: Backend, work: Work, repeats: int) -> tuple[list[float], list[float]]:
    """The seconds of the forward and of the backward pass of an operation, `repeats` times."""
    module = owner.module

    def forward() -> tuple[Any, Any]:
        with Tape():  # the loss keeps its gradient only while one runs
            return work.op._run(work.arrays, work.settings)

    value, _ = forward()
    several = isinstance(value, tuple)
    shape = (1,) if several else value.shape
    dy = owner.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))
    dy = dy if several else dy.astype(value.dtype)
    outs = [None if i in work.constants else module.zeros(a.shape, np.float32)
            for i, a in enumerate(work.arrays)]  # fmt: skip

    def backward() -> Callable[[], None]:
        """The pass, with all that it takes ready: what it may overwrite is its own."""
        _, vjp = forward()
        given = (dy[0], 0.0) if several else dy.copy()

        def run() -> None:
            results = vjp(given)
            results = results if isinstance(results, tuple) else (results,)
            for g, out in zip(results, outs, strict=True):
                if callable(g) and out is not None:
                    g(out, False)

        return run

    backward()()  # builds the kernels
    there = seconds_of(owner, [forward] * repeats)
    # One after another: each holds the activations of its own.
    back = [seconds_of(owner, [backward()])[0] for _ in range(repeats)]
    return there, back


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], default="base")
    parser.add_argument("--tokens", type=int, default=25_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, help="a file for the result")
    options = parser.parse_args()

    owner = gpu()
    config = TransformerConfig.preset(options.config, vocab_size=VOCABULARY)
    kernels: dict[str, Any] = {}
    result = {
        "benchmark": "gpu_kernels",
        "config": options.config,
        "tokens": options.tokens,
        "backend": "cupy",
        "kernels": kernels,
    }
    for name, work in work_of(config, owner, options.tokens).items():
        both = passes(owner, work, options.repeats)
        for i, direction in enumerate(("forward", "backward")):
            took = statistics.median(both[i])
            moved, multiplied = work.bytes_[i] / BYTES_PER_S, work.multiplications[i]
            floor = max(moved, 2 * multiplied / FLOPS_PER_S)
            kernels[f"{name}, {direction}"] = {
                "us": round(took * 1e6, 1),
                "floor_us": round(floor * 1e6, 1),
                "fraction": round(floor / took, 3),
            }
            print(name, direction, kernels[f"{name}, {direction}"], flush=True)
        keep(result, options.out)
    publish(result, options.out)


if __name__ == "__main__":
    main()
