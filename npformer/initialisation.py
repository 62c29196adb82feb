"""Every parameter of a Transformer: its name, its shape and its first value."""

from __future__ import annotations

import math
import zlib

import numpy as np

from npformer.config import TransformerConfig


def initial_values(config: TransformerConfig, seed: int) -> dict[str, np.ndarray]:
    """The parameters of a new model, by name, in float32.

    Projections are Glorot-uniform with zero biases, embeddings N(0, 1/√d_model), norms 1 and 0. A
    value depends on the seed and the parameter's name alone, so that a change to one part of a
    model leaves the others as they were.
    """
    assert config.d_k is not None
    assert config.d_v is not None
    d, h, d_k, d_v = config.d_model, config.heads, config.d_k, config.d_v
    values: dict[str, np.ndarray] = {}

    def random(name: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    def linear(name: str, d_in: int, *widths: int) -> None:
        """W [d_in, Σ widths] and b: several projections side by side."""
        gain = 1.0
        if config.initialisation == "fused" and len(widths) > 1:
            widths, gain = (sum(widths),), math.sqrt(0.5)
        rng = random(f"{name}.weight")
        blocks = []
        for d_out in widths:
            bound = gain * math.sqrt(6 / (d_in + d_out))
            blocks.append(rng.uniform(-bound, bound, (d_in, d_out)))
        values[f"{name}.weight"] = np.concatenate(blocks, axis=1).astype(np.float32)
        values[f"{name}.bias"] = np.zeros(sum(widths), np.float32)

    def norm(name: str) -> None:
        values[f"{name}.gain"] = np.ones(d, np.float32)
        values[f"{name}.bias"] = np.zeros(d, np.float32)

    def normal(name: str, rows: int) -> None:
        table = random(name).standard_normal((rows, d)) / math.sqrt(d)
        values[name] = table.astype(np.float32)

    def self_attention(name: str) -> None:
        linear(f"{name}.qkv", d, h * d_k, h * d_k, h * d_v)
        linear(f"{name}.output", h * d_v, d)
        norm(f"{name}.norm")

    def cross_attention(name: str) -> None:
        linear(f"{name}.q", d, h * d_k)
        linear(f"{name}.kv", d, h * d_k, h * d_v)
        linear(f"{name}.output", h * d_v, d)
        norm(f"{name}.norm")

    def feed_forward(name: str) -> None:
        linear(f"{name}.inner", d, config.d_ff)
        linear(f"{name}.outer", config.d_ff, d)
        norm(f"{name}.norm")

    normal("embedding", config.vocab_size)
    if config.share_embeddings != "all":
        normal("source_embedding", config.source_vocab_size or config.vocab_size)
    if config.share_embeddings == "none":
        normal("projection", config.vocab_size)
    if config.positions == "learned":
        normal("source_positions", config.max_length)
        normal("target_positions", config.max_length)
    for i in range(config.layers):
        self_attention(f"encoder.{i}.self_attention")
        feed_forward(f"encoder.{i}.feed_forward")
    for i in range(config.layers):
        self_attention(f"decoder.{i}.self_attention")
        cross_attention(f"decoder.{i}.cross_attention")
        feed_forward(f"decoder.{i}.feed_forward")
    if config.norm == "pre":
        norm("encoder.norm")
        norm("decoder.norm")
    return values
