"""The initial values of a model's parameters."""

from __future__ import annotations

import numpy as np

from npformer import Transformer, TransformerConfig


def initial_values(config: TransformerConfig, seed: int) -> dict[str, np.ndarray]:
    return {name: p.numpy() for name, p in Transformer(config, seed).parameters().items()}
