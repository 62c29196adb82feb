"""The cost of training, in floating-point operations that are counted and not estimated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autograd import Tape, count_flops
from npformer.batch import Batch
from npformer.config import TransformerConfig
from npformer.transformer import Transformer

ATTENTION = "attention"  # the operation's name


def cost_of(config: TransformerConfig, batch: Batch) -> dict[str, Any]:
    """Parameters, and the operations of one training step on a batch, by direction and name.

    The references run, in float32: causal attention computes the products that it hides, too.
    """
    model = Transformer(config, seed=0)
    with count_flops() as flops:
        with Tape() as tape:
            loss = model.loss(batch)
        tape.backward(loss)
    return {
        "parameters": sum(p.size for p in model.parameters().values()),
        "target_tokens": batch.target_tokens,
        "forward": dict(flops.forward),
        "backward": dict(flops.backward),
        "total": flops.total,
    }


def batch_of_lengths(config: TransformerConfig, lengths: Sequence[tuple[int, int]]) -> Batch:
    """Pairs of so many source and target tokens, with begin or end; the ids do not matter."""
    rng = np.random.default_rng(0)

    def sentences(side: int, vocabulary: int) -> list[list[int]]:
        return [rng.integers(0, vocabulary, pair[side] - 1).tolist() for pair in lengths]

    return Batch.of(
        sentences(0, config.source_vocab_size or config.vocab_size),
        sentences(1, config.vocab_size),
        begin_id=0,
        end_id=0,
    )


def six_times_parameters(cost: dict[str, Any]) -> float:
    """The usual estimate: 2 operations a parameter forward and 4 backward, for each target token.

    It is what others compare with. It knows nothing of attention's products, and a target token
    and the source token that comes with it meet each parameter once between them.
    """
    return float(6 * cost["parameters"] * cost["target_tokens"])
