"""Training end to end: npformer and a plain PyTorch loop, on the same batches in the same run.

    python -m benchmarks.end_to_end --config train/configs/multi30k-small.yaml --data CORPUS

Each side takes the same few batches in turn, block after block (A B A B), with everything that a
step needs: making the batch, forward, backward, gradient norm, Adam. Target tokens a second.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import yaml

from autograd import DropoutStream
from benchmarks.report import publish, summary
from npformer import Transformer
from train.adam import Adam
from train.batches import Batches
from train.corpus import Corpus
from train.run import settings_from_dict
from train.trainer import train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="steps in a block")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the clock runs")
    parser.add_argument("--out", type=Path, help="a file for the result")
    options = parser.parse_args()

    corpus = Corpus.open(options.data)
    settings = settings_from_dict(yaml.safe_load(options.config.read_text()))
    config = settings.transformer_config(corpus.tokenizers.target.vocab_size)
    batches = Batches(
        corpus.train,
        tokens=settings.batch_tokens,
        begin_id=corpus.tokenizers.target.begin_id,
        end_id=corpus.tokenizers.target.end_id,
    )
    plan = batches.plan(0)
    rate = settings.learning_rate(config.d_model)

    model = Transformer(config, seed=0)
    optimizer = Adam(model.buffer)

    def ours(step: int) -> int:
        batch = batches.batch(plan[step % len(plan)])
        train_step(model, optimizer, [batch], rate(step + 1), DropoutStream(0, step))
        return batch.target_tokens

    sides: dict[str, Any] = {"ours": ours, "torch-float32": torch_side(config, batches, plan, rate)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tokens: dict[str, list[int]] = {name: [] for name in sides}
    for step in sides.values():
        for i in range(options.warmup):
            step(i)
    for block in range(options.blocks):
        first = options.warmup + block * options.steps
        for name, step in sides.items():
            started = time.perf_counter()
            done = sum(step(first + i) for i in range(options.steps))
            seconds[name].append((time.perf_counter() - started) / options.steps)
            tokens[name].append(done // options.steps)
    results = {name: summary(seconds[name], tokens[name]) for name in sides}
    speedups = sorted(
        theirs / mine
        for mine, theirs in zip(seconds["ours"], seconds["torch-float32"], strict=True)
    )
    publish(
        {
            "benchmark": "end_to_end",
            "config": options.config.stem,
            "backend": "numpy",
            "ours": results["ours"],
            "peers": {"torch-float32": results["torch-float32"]},
            "speedup": {"torch-float32": round(speedups[len(speedups) // 2], 3)},
            "speedup_range": [round(speedups[0], 3), round(speedups[-1], 3)],
        },
        options.out,
    )


def torch_side(config: Any, batches: Batches, plan: list[Any], rate: Any) -> Any:
    """The same step in PyTorch: float32, eager, fused Adam."""
    import torch

    from benchmarks.torch_transformer import TorchTransformer, padded

    torch.manual_seed(0)
    model = TorchTransformer(config)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True)

    def step(i: int) -> int:
        batch = batches.batch(plan[i % len(plan)])
        for group in adam.param_groups:
            group["lr"] = rate(i + 1)
        adam.zero_grad(set_to_none=True)
        loss = model.loss(*padded(batch))
        loss.backward()
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
        adam.step()
        return batch.target_tokens

    return step


if __name__ == "__main__":
    main()
