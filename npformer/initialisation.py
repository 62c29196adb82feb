"""Every parameter of a Transformer: its name, its shape and its first value."""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from npformer.config import TransformerConfig
from npformer.errors import UserError


class _First(NamedTuple):
    """A parameter before there is memory for it."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], np.ndarray]


def initial_values(config: TransformerConfig, seed: int) -> dict[str, np.ndarray]:
    """The parameters of a new model, by name, in float32.

    Projections are Glorot-uniform with zero biases, embeddings N(0, 1/√d_model), norms 1 and 0. A
    value depends on the seed and the parameter's name alone, so that a change to one part of a
    model leaves the others as they were. Raises UserError where there are more than the machine
    has memory for.
    """
    check_memory(config, copies=2, purpose="its parameters alone")  # as drawn, and in the buffer
    return {first.name: first.values() for first in _parameters(config, seed)}


def parameter_shapes(config: TransformerConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and the shape of each parameter, one by one, before there is memory for any."""
    return ((first.name, first.shape) for first in _parameters(config, seed=0))


def check_memory(config: TransformerConfig, copies: int, purpose: str) -> None:
    """Raise UserError where `copies` of the parameters, in float32, exceed the machine's memory.

    Asked for, it might be promised, and the process be killed when it is used. `purpose` says in
    the message what needs them.
    """

    def needed(layers: int) -> int:
        """Bytes."""
        shapes = parameter_shapes(dataclasses.replace(config, layers=layers))
        return sum(4 * copies * math.prod(shape) + _BESIDE for _, shape in shapes)

    one = needed(1)
    total = one + (config.layers - 1) * (needed(2) - one)  # all layers are alike
    if total > (memory := _memory()):
        raise UserError(
            f"a model with model.layers = {config.layers}, model.d_model = {config.d_model} and "
            f"model.d_ff = {config.d_ff} needs {total / 2**30:,.1f} GiB for {purpose}, "
            f"and this machine has {memory / 2**30:,.1f} GiB; make it smaller"
        )


_BESIDE = 1 << 10  # bytes: a parameter's alignment, its name and its objects in Python


def _memory() -> int:
    """The machine's memory in bytes; where the system does not say, more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not POSIX
        return 1 << 47


def _parameters(config: TransformerConfig, seed: int) -> Iterator[_First]:
    assert config.d_k is not None
    assert config.d_v is not None
    d, h, d_k, d_v = config.d_model, config.heads, config.d_k, config.d_v

    def random(name: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    def linear(name: str, d_in: int, *widths: int) -> Iterator[_First]:
        """W [d_in, Σ widths] and b: several projections side by side."""
        gain, drawn = 1.0, widths
        if config.initialisation == "fused" and len(widths) > 1:
            gain, drawn = math.sqrt(0.5), (sum(widths),)

        def weight() -> np.ndarray:
            rng = random(f"{name}.weight")
            blocks = []
            for d_out in drawn:
                bound = gain * math.sqrt(6 / (d_in + d_out))
                blocks.append(rng.uniform(-bound, bound, (d_in, d_out)))
            return np.concatenate(blocks, axis=1).astype(np.float32)

        yield _First(f"{name}.weight", (d_in, sum(widths)), weight)
        yield constant(f"{name}.bias", sum(widths), 0)

    def constant(name: str, width: int, value: float) -> _First:
        return _First(name, (width,), lambda: np.full(width, value, np.float32))

    def norm(name: str) -> Iterator[_First]:
        yield constant(f"{name}.gain", d, 1)
        yield constant(f"{name}.bias", d, 0)

    def normal(name: str, rows: int) -> _First:
        def table() -> np.ndarray:
            values = random(name).standard_normal((rows, d)) / math.sqrt(d)
            return values.astype(np.float32)

        return _First(name, (rows, d), table)

    def self_attention(name: str) -> Iterator[_First]:
        yield from linear(f"{name}.qkv", d, h * d_k, h * d_k, h * d_v)
        yield from linear(f"{name}.output", h * d_v, d)
        yield from norm(f"{name}.norm")

    def cross_attention(name: str) -> Iterator[_First]:
        yield from linear(f"{name}.q", d, h * d_k)
        yield from linear(f"{name}.kv", d, h * d_k, h * d_v)
        yield from linear(f"{name}.output", h * d_v, d)
        yield from norm(f"{name}.norm")

    def feed_forward(name: str) -> Iterator[_First]:
        yield from linear(f"{name}.inner", d, config.d_ff)
        yield from linear(f"{name}.outer", config.d_ff, d)
        yield from norm(f"{name}.norm")

    yield normal("embedding", config.vocab_size)
    if config.share_embeddings != "all":
        yield normal("source_embedding", config.source_vocab_size or config.vocab_size)
    if config.share_embeddings == "none":
        yield normal("projection", config.vocab_size)
    if config.positions == "learned":
        yield normal("source_positions", config.max_length)
        yield normal("target_positions", config.max_length)
    for i in range(config.layers):
        yield from self_attention(f"encoder.{i}.self_attention")
        yield from feed_forward(f"encoder.{i}.feed_forward")
    for i in range(config.layers):
        yield from self_attention(f"decoder.{i}.self_attention")
        yield from cross_attention(f"decoder.{i}.cross_attention")
        yield from feed_forward(f"decoder.{i}.feed_forward")
    if config.norm == "pre":
        yield from norm("encoder.norm")
        yield from norm("decoder.norm")
