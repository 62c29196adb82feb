"""A training step compared with PyTorch's and JAX's, with the same shapes in the same run.

    python -m benchmarks.training_step --config tiny|small|base|big --peer torch --json

JAX is a peer where it is installed. A step is forward, backward, gradient norm and Adam on one
batch. Sides take turns, each in its own process. The roofline is the time of the step's matrix
products, without attention's, each shape timed alone with a preallocated output. Peak memory is a
side's peak minus its memory after imports.

With --without-avx512 PyTorch's bfloat16 takes no part: its products then give 1.7 GFLOP/s a thread,
so that a step of base would take minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contest import Side, Turn, load_compiled_loops, ratio, take_turns
from benchmarks.report import positive, publish, result_file, summary
from benchmarks.without_avx512 import WithoutAVX512
from npformer import Batch, TransformerConfig


class Setting(NamedTuple):
    """A model and a batch: `tokens` source and target tokens, in sentences of `lengths`."""

    vocab_size: int
    tokens: int
    lengths: str
    steps: int  # in one turn


SETTINGS = {
    "tiny": Setting(10_000, 2_000, "multi30k", 4),
    "small": Setting(8_000, 2_048, "equal", 2),
    "base": Setting(37_000, 1_024, "equal", 1),
    "big": Setting(37_000, 1_024, "equal", 1),
}
PEERS = ("torch-float32", "torch-float32-compiled", "torch-bfloat16", "torch-bfloat16-compiled")
JAX_PEERS = ("jax-float32", "jax-bfloat16")


def config_of(name: str) -> TransformerConfig:
    config = TransformerConfig.preset(name, vocab_size=SETTINGS[name].vocab_size)
    return replace(config, dropout=0.1)


def batch_of(name: str) -> Batch:
    """The batch of all sides: random token ids, in sentences of real lengths or of 32 tokens."""
    setting = SETTINGS[name]
    rng = np.random.default_rng(0)
    if setting.lengths == "multi30k":
        # Lengths of Multi30k in 10,000 subwords, including the end: log-normal, and correlated
        # between the sides. The sentences are not sorted by length.
        related = np.array([[1, 0.856], [0.856, 1]])
        logs = rng.multivariate_normal([0, 0], related, 1000) * [0.291, 0.321] + 2.66
        lengths = np.maximum(np.rint(np.exp(logs)), 2).astype(np.int64)
        lengths = lengths[: np.searchsorted(lengths.cumsum(axis=0).max(axis=1), setting.tokens)]
    else:
        lengths = np.full((setting.tokens // 32, 2), 32)
    sources, targets = (
        [rng.integers(4, setting.vocab_size, n - 1).tolist() for n in lengths[:, side]]
        for side in (0, 1)
    )
    return Batch.of(sources, targets, begin_id=1, end_id=2)


def our_side(imported: Any, name: str) -> Turn:
    from autograd import DropoutStream
    from npformer import Transformer
    from train.adam import Adam
    from train.step import train_step

    batch, config = batch_of(name), config_of(name)
    load_compiled_loops()
    imported()
    model = Transformer(config, seed=0)
    optimizer = Adam(model.buffer)
    step = 0

    def turn() -> None:
        nonlocal step
        for _ in range(SETTINGS[name].steps):
            step += 1
            train_step(model, optimizer, [batch], 1e-4, DropoutStream(0, step))

    return turn


def torch_side(imported: Any, name: str, peer: str) -> Turn:
    import torch

    from benchmarks.torch_transformer import TorchTransformer, padded

    batch = padded(batch_of(name))
    imported()
    torch.manual_seed(0)
    model = TorchTransformer(config_of(name))
    adam = torch.optim.Adam(model.parameters(), 1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    parameters = list(model.parameters())
    loss_of = torch.compile(model.loss) if "compiled" in peer else model.loss

    def turn() -> None:
        for _ in range(SETTINGS[name].steps):
            adam.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in peer):
                loss = loss_of(*batch)
            loss.backward()
            torch.nn.utils.get_total_norm([p.grad for p in parameters]).item()
            adam.step()

    return turn


def jax_side(imported: Any, name: str, peer: str) -> Turn:
    import jax

    from benchmarks.jax_transformer import longest_of, rows_of, steps
    from npformer import Transformer

    batches = [batch_of(name)]
    rows = rows_of(batches, longest_of(batches))
    imported()
    model = Transformer(config_of(name), seed=0)
    run = steps(model.config, rows, model, precision=peer.removeprefix("jax-"))

    def turn() -> None:
        for _ in range(SETTINGS[name].steps):
            jax.block_until_ready(run(0))

    return turn


def products_of(config: TransformerConfig, batch: Batch) -> Counter[tuple[int, int, int]]:
    """The shapes (m, k, n) of a step's matrix products, without attention's."""
    source, target = int(batch.source.lengths.sum()), batch.target_tokens
    d, keys, values = config.d_model, config.heads * config.d_k, config.heads * config.d_v
    self_attention = [(d, 2 * keys + values), (values, d)]
    feed_forward = [(d, config.d_ff), (config.d_ff, d)]
    forward: list[tuple[int, int, int]] = []
    for _ in range(config.layers):
        forward += [(source, *w) for w in self_attention + feed_forward]
        forward += [(target, *w) for w in [*self_attention, *feed_forward, (d, keys), (values, d)]]
        forward.append((source, d, keys + values))
    forward.append((target, d, config.vocab_size))
    return Counter(shape for n, k, m in forward for shape in ((n, k, m), (n, m, k), (k, n, m)))


def roofline_side(imported: Any, name: str) -> Turn:
    """NumPy's products of all these shapes, each as often as in a step."""
    imported()
    work = []
    for (n, k, m), count in products_of(config_of(name), batch_of(name)).items():
        a, b = np.ones((n, k), np.float32), np.ones((k, m), np.float32)
        work.append((a, b, np.empty((n, m), np.float32), count))

    def turn() -> None:
        for a, b, out, count in work:
            for _ in range(count * SETTINGS[name].steps):
                np.matmul(a, b, out=out)

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=SETTINGS, required=True)
    parser.add_argument(
        "--peer", choices=["torch", "jax", "none"], help="by default PyTorch, and JAX if installed"
    )
    parser.add_argument("--rounds", type=positive, default=15, help="turns of each side")
    parser.add_argument("--warmup", type=int, default=3, help="turns before those, not measured")
    parser.add_argument("--json", action="store_true", help="for scripts: the result is one line")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    parser.add_argument("--without-avx512", action=WithoutAVX512)
    options = parser.parse_args()

    name = options.config
    sides = {"ours": Side(our_side, name), "roofline": Side(roofline_side, name)}
    if options.peer in ("torch", None):
        of_torch = [p for p in PEERS if not (options.without_avx512 and "bfloat16" in p)]
        sides |= {peer: Side(torch_side, name, peer) for peer in of_torch}
    if options.peer == "jax" or (options.peer is None and importlib.util.find_spec("jax")):
        sides |= {peer: Side(jax_side, name, peer) for peer in JAX_PEERS}
    seconds = take_turns(sides, options.rounds, options.warmup)
    used = {side: sides[side].close() for side in sides}

    steps, batch = SETTINGS[name].steps, batch_of(name)
    per_step = {side: [s / steps for s in seconds[side]] for side in seconds}
    results = {
        side: {
            **summary(per_step[side], [batch.target_tokens] * options.rounds),
            **used[side],
        }
        for side in sides
        if side != "roofline"
    }
    ratios = {peer: ratio(per_step["ours"], per_step[peer]) for peer in results if peer != "ours"}
    products = ratio(per_step["ours"], per_step["roofline"])
    publish(
        {
            "benchmark": "training_step",
            "config": name,
            "backend": "numpy",
            "tokens": {"source": int(batch.source.lengths.sum()), "target": batch.target_tokens},
            "ours": results.pop("ours"),
            "peers": results,
            "speedup": {peer: r["median"] for peer, r in ratios.items()},
            "speedup_quartiles": {peer: [r["low"], r["high"]] for peer, r in ratios.items()},
            "roofline": {
                "ms": round(statistics.median(per_step["roofline"]) * 1000, 2),
                "fraction": products["median"],
            },
        },
        options.out,
    )


if __name__ == "__main__":
    main()
