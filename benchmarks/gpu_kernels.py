"""How close each kernel of a training step comes to its lower bound on a GPU.

    python -m benchmarks.gpu_kernels --config base

The operations of a base or big step on a batch of 25,000 source and 25,000 target tokens with
lengths like those of WMT, in bfloat16, forward and backward apart, Adam's step and the gradient
norm, and the operations of a step of decoding 8,192 hypotheses. Each is timed by the device's own
events, with the device kept busy until everything is in its queue. A floor is the larger of two
times: that of its bytes, each read or written once, at the speed of the card's memory, and that of
its products; `peak` holds these two speeds.

`products` holds the times of cuBLAS for each class of products, including bias and ReLU, and of the
fastest of cuBLASLt's algorithms; all are measured anew.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from autograd import DropoutStream, Tape, ops
from autograd.backend import Backend, bfloat16
from autograd.cuda.device import device_of
from autograd.operation import Op
from autograd.ops.large.beam import Trace
from benchmarks.gpu_batches import training_batches
from benchmarks.machine import peak_of
from benchmarks.report import gpu, keep, positive, publish, result_file
from benchmarks.spin import spin
from npformer import Transformer, TransformerConfig
from train.machine import machine

VOCABULARY = 37_000
HYPOTHESES = 8192  # of a step of decoding


class Work(NamedTuple):
    """An operation with its arguments, and the least bytes and multiply-adds of each pass.

    Each array counts once per pass.
    """

    op: Op
    arrays: tuple[Any, ...]
    settings: dict[str, Any]
    bytes_: tuple[float, float]
    multiplications: tuple[float, float]
    constants: tuple[int, ...] = ()  # which of the arrays have no gradient


def work_of(config: TransformerConfig, backend: Backend, tokens: int) -> dict[str, Work]:
    """The operations of a step, with the decoder's shapes."""
    batch = training_batches(1, tokens, VOCABULARY)[0]
    rng = np.random.default_rng(0)
    dtype = bfloat16()
    n, d, ff, heads = batch.target_tokens, config.d_model, config.d_ff, config.heads
    assert config.d_k is not None
    lengths, key_lengths = batch.target_input.lengths, batch.source.lengths
    keys, source = int(key_lengths.sum()), batch.source.sentences

    def random(*shape: int, kind: Any = dtype) -> Any:
        return backend.asarray(rng.standard_normal(shape, np.float32).astype(kind))

    site = DropoutStream(0, 1).site(0, 0.1)
    ids = backend.asarray(batch.target_input.tokens)
    order = backend.prepare_embedding(batch.target_input.tokens)
    position_ids = batch.target_input.sentences.position_ids(backend)
    gain = random(d, kind=np.float32)
    x, table = random(n, d), random(VOCABULARY, d)
    head = {"heads": heads, "d_k": config.d_k, "sentences": batch.target_input.sentences}
    own = 2.0 * d * float((lengths.astype(float) * (lengths + 1) / 2).sum())
    cross = 2.0 * d * float((lengths.astype(float) * key_lengths).sum())
    whole = 2.0 * d * float((key_lengths.astype(float) ** 2).sum())
    # Bytes of a matrix of activations, and of the source's.
    row, wide, source_row = 2.0 * n * d, 2.0 * n * ff, 2.0 * keys * d
    logits = 2.0 * n * VOCABULARY
    return {
        "add_dropout_norm": Work(
            ops.add_dropout_norm, (x, random(n, d), gain, gain), {"site": site},
            (3 * row, 5 * row), (0, 0),
        ),
        "dropout": Work(
            ops.dropout, (random(n, ff),), {"site": site}, (2 * wide, 2 * wide), (0, 0),
        ),
        "linear with relu": Work(
            ops.linear, (x, random(d, ff), random(ff)), {"relu": True},
            (row + wide, 3 * row + 2 * wide), (n * d * ff, 2 * n * d * ff),
        ),
        "feed_forward": Work(
            ops.feed_forward, (x, random(d, ff), random(ff), random(ff, d), random(d)), {},
            (2 * row + 2 * wide, 4 * row + 4 * wide), (2 * n * d * ff, 4 * n * d * ff),
        ),
        "linear": Work(
            ops.linear, (x, random(d, d), random(d)), {},
            (2 * row, 4 * row), (n * d * d, 2 * n * d * d),
        ),
        "attention to itself, causal": Work(
            ops.attention, (random(n, 3 * d),), {**head, "causal": True},
            (4 * row, 8 * row), (own, 2.5 * own),
        ),
        "attention to itself": Work(
            ops.attention, (random(keys, 3 * d),), {**head, "sentences": source},
            (4 * source_row, 8 * source_row), (whole, 2.5 * whole),
        ),
        "attention to the source": Work(
            ops.attention, (x, random(keys, 2 * d)), {**head, "key_sentences": source},
            (2 * row + 2 * source_row, 4 * row + 4 * source_row), (cross, 2.5 * cross),
        ),
        "embedding": Work(
            ops.embedding, (table, random(256, d)),
            {
                "ids": ids, "position_ids": position_ids, "order": order,
                "scale": d**0.5, "site": site,
            },
            (2 * row, row + 4.0 * VOCABULARY * d), (0, 0), (1,),
        ),
        "projected_cross_entropy": Work(
            ops.projected_cross_entropy, (x, table),
            {"targets": ids, "smoothing": 0.1},
            (row + 3 * logits, 2 * row + 2 * logits + 4.0 * VOCABULARY * d),
            (n * d * VOCABULARY, 2.0 * n * d * VOCABULARY),
        ),
    }  # fmt: skip


def optimizer_of(config: TransformerConfig, backend: Backend) -> dict[str, Any]:
    """What a step does with all gradients: functions, with their bytes and multiplications."""
    count = Transformer(config, seed=0).buffer.values.size
    values, grads, first, second = (backend.xp.zeros(count, np.float32) for _ in range(4))
    rounded = backend.xp.zeros(count, bfloat16())
    numbers = {"rate": 1e-4, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 1}

    def step() -> None:
        ops.adam_step(values, grads, first, second, rounded=rounded, **numbers)

    return {
        "Adam's step": (step, 30.0 * count, 0.0),
        "the norm of the gradient": (lambda: ops.squared_norm(grads), 4.0 * count, 0.0),
    }


def decoding_of(config: TransformerConfig, backend: Backend) -> dict[str, Any]:
    """The other operations of a decoding step: functions, with bytes and multiplications."""
    rng = np.random.default_rng(0)
    dtype = bfloat16()
    rows, beam, length, capacity, d = HYPOTHESES, 4, 32, 80, config.d_model
    head = {"heads": config.heads, "d_k": config.d_k}

    def random(*shape: int) -> Any:
        return backend.asarray(rng.standard_normal(shape, np.float32).astype(dtype))

    x, table, own = random(rows, d), random(VOCABULARY, d), random(rows, capacity, 2 * d)
    memory, queries = random(rows // beam, length, 2 * d), random(rows // beam, beam, d)
    slots = np.sort(rng.integers(0, rows, (rows, capacity)), axis=0).astype(np.int32)
    slots, sentences = backend.asarray(slots), backend.xp.arange(rows // beam, dtype=np.int32)
    row, logits = 2.0 * rows * d, 2.0 * rows * VOCABULARY
    new, each = random(rows, 3 * d), backend.xp.arange(rows, dtype=np.int32)
    log_p = backend.asarray(np.sort(-rng.random((rows // beam, beam)))[:, ::-1].copy())
    next_log_p = backend.asarray(-rng.random((rows, 2 * beam), np.float32))
    next_ids = backend.asarray(rng.integers(0, VOCABULARY, (rows, 2 * beam)))
    xp, best = backend.xp, (capacity, rows // beam, 2 * beam)
    lengths = xp.full(rows, length, np.int32)
    of_beam = {
        "ids": xp.zeros((rows // beam, beam), np.int32),
        "found": xp.full((rows // beam, 1), -np.inf),
        "limits": xp.full(rows // beam, capacity),
        "divisors": xp.arange(capacity + 1) / 10.0,
        "lengths": lengths, "end_id": 2, "tokens": [slots], "sentence_ids": sentences,
        "trace": Trace(xp.zeros(best), *(xp.zeros(best, np.int32) for _ in range(2))),
    }  # fmt: skip

    def attend(q: Any, kv: Any, slots: Any) -> Any:
        of_q = lengths[: len(q)]
        return lambda: ops.cached_attention(q, kv, slots=slots, lengths=of_q, **head)

    return {
        "decoding: append to the cache": (
            lambda: ops.append_to_cache(new, own, slots=each, lengths=lengths), 4 * row, 0.0,
        ),
        "decoding: self-attention": (
            attend(x[:, None], own, slots), 2 * row * (1 + length), 2.0 * rows * length * d,
        ),
        "decoding: attention to the source": (
            attend(queries, memory, sentences[:, None]),
            2 * row * (1 + length / beam), 2.0 * rows * length * d,
        ),
        "decoding: top 8 tokens": (
            lambda: ops.top_k(x, table, k=2 * beam),
            row + 2 * logits, 1.0 * rows * d * VOCABULARY,
        ),
        "decoding: a step of the beam": (
            lambda: ops.beam_step(log_p, next_log_p, next_ids, **of_beam),
            rows * (12.0 * 2 * beam + 8 * length + 24 * 2 + 40), 0.0,
        ),
    }  # fmt: skip


_SPIN_CYCLES = 100_000_000  # about 50 ms, until all timed work is queued


def seconds_of(backend: Backend, runs: list[Callable[[], Any]]) -> list[float]:
    """The device's time for each of `runs`, all of which are queued before the first starts."""
    cuda = backend.xp.cuda
    marks = [(cuda.Event(), cuda.Event()) for _ in runs]
    backend.synchronize()
    spin(backend, _SPIN_CYCLES)
    for (begin, end), run in zip(marks, runs, strict=True):
        begin.record()
        run()
        end.record()
    if marks[0][0].done:
        raise RuntimeError("the device was idle before all work was queued: raise _SPIN_CYCLES")
    backend.synchronize()
    return [cuda.get_elapsed_time(begin, end) / 1000 for begin, end in marks]


def products_of(backend: Backend) -> dict[str, list[float]]:
    """The seconds that each class of products took: in cuBLAS, then by cuBLASLt's algorithms."""
    return device_of(backend.xp.zeros((), np.float32)).products.measured


def passes(backend: Backend, work: Work, repeats: int) -> tuple[list[float], list[float]]:
    """The seconds of the forward and of the backward pass of an operation, `repeats` times."""
    xp = backend.xp

    def forward() -> tuple[Any, Any]:
        with Tape():  # only under a tape the loss prepares its gradient
            return work.op._run(work.arrays, work.settings)

    value, _ = forward()
    several = isinstance(value, tuple)
    shape = (1,) if several else value.shape
    dy = backend.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))
    dy = dy if several else dy.astype(value.dtype)
    # As in a layer: the gradient of the input is accumulated, others are those of Parameters.
    maps = ops.linear, ops.feed_forward
    outs = [None if i in work.constants
            else xp.zeros(a.shape, a.dtype if work.op in maps and i == 0 else np.float32)
            for i, a in enumerate(work.arrays)]  # fmt: skip

    def backward() -> Callable[[], None]:
        """A backward pass, with copies of everything that it may overwrite."""
        _, vjp = forward()
        given = dy[0] if several else dy.copy()  # of a loss with its likelihood: the loss's

        def run() -> None:
            results = vjp(given)
            results = results if isinstance(results, tuple) else (results,)
            for g, out in zip(results, outs, strict=True):
                if callable(g) and out is not None:
                    g(out, out.dtype != np.float32)

        return run

    backward()()  # compiles the kernels
    forward_seconds = seconds_of(backend, [forward] * repeats)
    # One after another, because each holds its activations.
    backward_seconds = [seconds_of(backend, [backward()])[0] for _ in range(repeats)]
    return forward_seconds, backward_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], default="base")
    parser.add_argument("--tokens", type=positive, default=25_000)
    parser.add_argument("--repeats", type=positive, default=30)
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    backend = gpu()
    with tempfile.TemporaryDirectory(prefix="npformer-choices-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # so that no choice exists before
        measure(backend, options)


def measure(backend: Backend, options: argparse.Namespace) -> None:
    """Time everything; save each result as soon as it is known."""
    config = TransformerConfig.preset(options.config, vocab_size=VOCABULARY)
    kernels: dict[str, Any] = {}
    peak = peak_of(machine())
    result = {
        "benchmark": "gpu_kernels",
        "config": options.config,
        "tokens": options.tokens,
        "backend": "cupy",
        "peak": peak._asdict(),
        "kernels": kernels,
    }

    def note(name: str, seconds: list[float], bytes_: float, multiplications: float) -> None:
        took = statistics.median(seconds)
        floor = max(bytes_ / peak.bytes_per_s, 2 * multiplications / peak.flops_per_s)
        kernels[name] = {
            "us": round(took * 1e6, 1),
            "floor_us": round(floor * 1e6, 1),
            "fraction": round(floor / took, 3),
        }
        print(name, kernels[name], flush=True)
        keep(result, options.out)

    for name, work in work_of(config, backend, options.tokens).items():
        both = passes(backend, work, options.repeats)
        for i, direction in enumerate(("forward", "backward")):
            note(f"{name}, {direction}", both[i], work.bytes_[i], work.multiplications[i])
    for runs in (optimizer_of, decoding_of):
        for name, (run, bytes_, multiplications) in runs(config, backend).items():
            run()  # builds the kernel
            note(name, seconds_of(backend, [run] * options.repeats), bytes_, multiplications)
    result["products"] = {
        name: {"cublas_us": round(cublas * 1e6, 1), "cublaslt_us": round(min(lt) * 1e6, 1)}
        for name, (cublas, *lt) in products_of(backend).items()
        if lt
    }
    publish(result, options.out)


if __name__ == "__main__":
    main()
