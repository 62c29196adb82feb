"""Where post-norm training does not begin: the same weights, batches and rates here and in PyTorch.

python -m benchmarks.post_norm --data corpus --out post-norm.json

A deep post-norm model may stay at the loss of guessing tokens by their frequency if the learning
rate is too high. If PyTorch's model, from the same weights, does so at the same rates, it is the
recipe that fails, and not an operation. Pre-norm stands beside them, in as many steps. There is no
smoothing, so that losses can be compared with that of guessing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from statistics import fmean

import torch

from autograd import DropoutStream
from benchmarks.torch_training import adam_of, training_step
from benchmarks.torch_transformer import TorchTransformer, copy_parameters, padded
from npformer import Batch, Transformer, TransformerConfig
from train.adam import Adam
from train.corpora.batches import Batches
from train.corpora.corpus import Corpus
from train.guessing import guessing_loss
from train.machine import machine, versions
from train.schedule import Schedule
from train.step import train_step

Losses = Iterator[tuple[float, float]]
"""Of each step: nats per target token, and the norm of the gradient."""


def ours(model: Transformer, batches: Iterator[Batch], rate: Callable[[int], float]) -> Losses:
    """Train our model."""
    optimizer = Adam(model.buffer)
    for step, batch in enumerate(batches, start=1):
        result = train_step(model, optimizer, [batch], rate(step), DropoutStream(0, step))
        loss, _, norm = result.numbers.tolist()
        yield loss / result.target_tokens, norm


def theirs(
    model: TorchTransformer, batches: Iterator[Batch], rate: Callable[[int], float]
) -> Losses:
    """Train PyTorch's model."""
    optimizer = adam_of(model)
    for step, batch in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss, norm = training_step(model.loss, optimizer, [(padded(batch), 1.0)], torch.float32)
        yield float(loss), float(norm)


def main() -> None:
    """Train all of them, and print the loss of each as it goes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a corpus with one vocabulary")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3], help="highest"
    )
    options = parser.parse_args()

    corpus = Corpus.open(options.data)
    tokens = Batches(
        corpus.train, tokens=options.batch_tokens, seed=0, **corpus.tokenizers.control_ids
    )
    post = TransformerConfig(
        vocab_size=corpus.tokenizers.target.vocab_size,
        layers=options.layers,
        d_model=options.d_model,
        d_ff=4 * options.d_model,
        heads=options.heads,
        dropout=options.dropout,
        smoothing=0.0,
    )
    guessing = guessing_loss(corpus.train.targets)
    print(f"guessing tokens by their frequency costs {guessing:.3f}")
    found = []
    for peak in options.rates:
        rate = Schedule("inverse_sqrt", warmup=options.warmup, peak=peak)
        peer = TorchTransformer(post)
        copy_parameters(Transformer(post, seed=0), peer)
        ways = {
            "post-norm": lambda batches, rate=rate: ours(Transformer(post, seed=0), batches, rate),
            "post-norm, PyTorch": lambda batches, rate=rate, peer=peer: theirs(peer, batches, rate),
            "pre-norm": lambda batches, rate=rate: ours(
                Transformer(replace(post, norm="pre"), seed=0), batches, rate
            ),
        }
        for name, train in ways.items():
            batches = chain.from_iterable(tokens.epoch(epoch) for epoch in count())
            losses, norms = [], []
            for _, (loss, norm) in zip(range(options.steps), train(batches), strict=False):
                losses.append(loss)
                norms.append(norm)
            tenth = max(1, options.steps // 10)
            curve = [fmean(losses[i : i + tenth]) for i in range(0, options.steps, tenth)]
            print(f"{peak:g}  {name:20}", " ".join(f"{x:.2f}" for x in curve), flush=True)
            found.append(
                {
                    "highest rate": peak,
                    "model": name,
                    "losses": curve,
                    "first losses": losses[:20],
                    "largest norms": [
                        max(norms[i : i + tenth]) for i in range(0, len(norms), tenth)
                    ],
                }
            )
    result = {
        "benchmark": "post_norm",
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
        "guessing": guessing,
        "runs": found,
        "machine": machine(),
        "versions": versions(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
