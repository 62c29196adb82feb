"""Losses of the paper's base model on real text, beside PyTorch's from the same weights.

    python -m benchmarks.gpu_losses --corpus CORPUS

Both train on the same batches, at the rates of train/configs/base.yaml and without dropout, in
bfloat16 with float32 parameters; CORPUS is that of gpu_base.py. Rounding differs, so the losses
cannot be the same for long. How far they may be apart is measured: our model is trained once more
from the weights of another seed. `apart` has the differences from the first, in means over a tenth
of the steps each, and `largest` the largest of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from autograd.backend import to_host
from benchmarks.gpu_base import vocabulary_of
from benchmarks.gpu_recipe import CONFIGS, needs_gpu
from benchmarks.report import keep, positive, publish, result_file
from npformer import Batch, Transformer, TransformerConfig
from train.adam import Adam
from train.corpora.batches import Batches
from train.corpora.corpus import Corpus
from train.settings import TrainSettings, settings_from_dict
from train.step import train_step

_AT_A_TIME = 50  # losses are read from the device together
_TENTHS = 10

Losses = Iterator[float]
"""Of each step, in nats per target token."""


def ours(
    config: TransformerConfig,
    batches: Iterable[Batch],
    rate: Callable[[int], float],
    seed: int,
    backend: str,
    precision: str,
) -> Losses:
    model = Transformer(config, seed=seed).to(backend, precision)
    optimizer, unread = Adam(model.buffer), []
    for step, batch in enumerate(optimizer.owner.ahead(model.prepared, batches), start=1):
        unread.append(train_step(model, optimizer, [batch], rate(step)))
        if len(unread) == _AT_A_TIME:
            yield from _read(unread)
            unread.clear()
    yield from _read(unread)


def _read(results: Sequence[Any]) -> Losses:
    for result in results:
        yield float(to_host(result.numbers)[0]) / result.target_tokens


def theirs(
    config: TransformerConfig,
    batches: Iterable[Batch],
    rate: Callable[[int], float],
    seed: int,
    device: str,
    precision: str,
) -> Losses:
    import torch

    from benchmarks.torch_packed import PackedTransformer, packed
    from benchmarks.torch_training import adam_of, training_step
    from benchmarks.torch_transformer import copy_parameters

    model = PackedTransformer(config)
    copy_parameters(Transformer(config, seed=seed), model)
    model.to(device)
    optimizer = adam_of(model)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    unread = []
    for step, batch in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss, _ = training_step(model.loss, optimizer, [(packed(batch, device), 1.0)], dtype)
        unread.append(loss)
        if len(unread) == _AT_A_TIME:
            yield from torch.stack(unread).tolist()
            unread.clear()
    yield from torch.stack(unread).tolist() if unread else ()


def compared(losses: dict[str, list[float]]) -> dict[str, Any]:
    """The means over tenths of the steps, and how far they are from those of the first."""
    steps = min(map(len, losses.values()))
    each = max(1, steps // _TENTHS)
    means = {
        name: [fmean(of[i : i + each]) for i in range(0, steps - each + 1, each)]
        for name, of in losses.items()
    }
    first, *others = means
    apart = {
        name: [round(x - y, 4) for x, y in zip(means[name], means[first], strict=True)]
        for name in others
    }
    return {
        "steps": steps,
        "losses": {name: [round(x, 4) for x in of] for name, of in means.items()},
        "apart": apart,
        "largest": {name: max(map(abs, of), default=0.0) for name, of in apart.items()},
    }


def settings_of(config: Path) -> TrainSettings:
    settings: TrainSettings = settings_from_dict(yaml.safe_load(config.read_text("utf-8")))
    return settings


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="prepared by gpu_base")
    parser.add_argument("--steps", type=positive, default=1500)
    parser.add_argument("--config", type=Path, default=CONFIGS / "base.yaml")
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args(arguments)
    needs_gpu(options)
    if vocabulary_of(options.corpus) is None:
        parser.error(f"{options.corpus} holds no prepared corpus: make it by gpu_base")
    settings = settings_of(options.config)
    corpus = Corpus.open(options.corpus / "corpus")
    tokens = Batches(
        corpus.train,
        tokens=settings.batch_tokens,
        seed=settings.seed,
        **corpus.tokenizers.control_ids,
    )
    # Masks of dropout could not be the same.
    config = replace(settings.transformer_config(corpus.tokenizers.target.vocab_size), dropout=0.0)
    rate = settings.learning_rate(config.d_model)
    losses: dict[str, list[float]] = {}
    about = {
        "benchmark": "gpu_losses",
        "config": options.config.stem,
        "backend": options.backend,
        "precision": options.precision,
    }

    def batches() -> Iterator[Batch]:
        every = chain.from_iterable(tokens.epoch(epoch) for epoch in count())
        return islice(every, options.steps)

    on, seed, precision = options.backend, settings.seed, options.precision
    device = "cuda" if on == "cupy" else "cpu"
    ways: dict[str, Callable[[], Losses]] = {
        "ours": lambda: ours(config, batches(), rate, seed, on, precision),
        "another seed": lambda: ours(config, batches(), rate, seed + 1, on, precision),
        "torch": lambda: theirs(config, batches(), rate, seed, device, precision),
    }
    for name, train in ways.items():
        losses[name] = []
        for loss in train():
            losses[name].append(loss)
            if len(losses[name]) % _AT_A_TIME == 0:
                print(f"{name:14} step {len(losses[name]):6,}  loss {loss:.3f}", flush=True)
        keep({**about, **compared(losses)}, options.out)
    publish({**about, **compared(losses)}, options.out)


if __name__ == "__main__":
    main()
