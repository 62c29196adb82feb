"""Training end to end: npformer and a plain PyTorch loop, on the same batches in the same run.

    python -m benchmarks.end_to_end --config train/configs/multi30k-small.yaml --data CORPUS

Sides take turns of a few steps, each in its own process. A step includes everything: building the
batch, forward, backward, gradient norm and Adam. Measured in target tokens per second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.contest import Side, Turn, load_compiled_loops, ratio, take_turns
from benchmarks.report import positive, publish, result_file, summary
from benchmarks.without_avx512 import WithoutAVX512
from npformer import TransformerConfig
from train.corpora.batches import Batches, Indices
from train.corpora.corpus import Corpus
from train.schedule import Schedule
from train.settings import settings_from_dict


def task_of(config: Path, data: Path) -> tuple[TransformerConfig, Batches, list[Indices], Schedule]:
    """The model, the batches of an epoch and the learning rate of a configuration."""
    corpus = Corpus.open(data)
    settings = settings_from_dict(yaml.safe_load(config.read_text()))
    shape = settings.transformer_config(corpus.tokenizers.target.vocab_size)
    batches = Batches(
        corpus.train,
        tokens=settings.batch_tokens,
        begin_id=corpus.tokenizers.target.begin_id,
        end_id=corpus.tokenizers.target.end_id,
    )
    return shape, batches, batches.plan(0), settings.learning_rate(shape.d_model)


def our_side(imported: Callable[[], None], config: Path, data: Path, steps: int) -> Turn:
    from autograd import DropoutStream
    from npformer import Transformer
    from train.adam import Adam
    from train.step import train_step

    shape, batches, plan, rate = task_of(config, data)
    load_compiled_loops()
    imported()
    model = Transformer(shape, seed=0)
    optimizer = Adam(model.buffer)
    step = 0

    def turn() -> None:
        nonlocal step
        for _ in range(steps):
            batch = batches.batch(plan[step % len(plan)])
            train_step(model, optimizer, [batch], rate(step + 1), DropoutStream(0, step))
            step += 1

    return turn


def torch_side(imported: Callable[[], None], config: Path, data: Path, steps: int) -> Turn:
    """The same steps in PyTorch: float32, eager, fused Adam."""
    import torch

    from benchmarks.torch_transformer import TorchTransformer, padded

    shape, batches, plan, rate = task_of(config, data)
    imported()
    torch.manual_seed(0)
    model = TorchTransformer(shape)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True)
    step = 0

    def turn() -> None:
        nonlocal step
        for _ in range(steps):
            batch = batches.batch(plan[step % len(plan)])
            step += 1
            for group in adam.param_groups:
                group["lr"] = rate(step)
            adam.zero_grad(set_to_none=True)
            model.loss(*padded(batch)).backward()
            torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
            adam.step()

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=positive, default=12, help="turns of each side")
    parser.add_argument("--steps", type=positive, default=5, help="steps in a turn")
    parser.add_argument("--warmup", type=int, default=2, help="turns before those, not measured")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    parser.add_argument("--without-avx512", action=WithoutAVX512)
    options = parser.parse_args()

    task = options.config, options.data, options.steps
    sides = {"ours": Side(our_side, *task), "torch-float32": Side(torch_side, *task)}
    seconds = take_turns(sides, options.rounds, options.warmup)
    _, batches, plan, _ = task_of(options.config, options.data)
    tokens = [
        sum(
            batches.batch(plan[(turn * options.steps + i) % len(plan)]).target_tokens
            for i in range(options.steps)
        )
        for turn in range(options.warmup, options.warmup + options.rounds)
    ]
    results: dict[str, Any] = {
        name: {**summary(seconds[name], tokens), **side.close()} for name, side in sides.items()
    }
    speedup = ratio(seconds["ours"], seconds["torch-float32"])
    publish(
        {
            "benchmark": "end_to_end",
            "config": options.config.stem,
            "backend": "numpy",
            "ours": results["ours"],
            "peers": {"torch-float32": results["torch-float32"]},
            "speedup": {"torch-float32": speedup["median"]},
            "speedup_quartiles": {"torch-float32": [speedup["low"], speedup["high"]]},
        },
        options.out,
    )


if __name__ == "__main__":
    main()
