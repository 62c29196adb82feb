"""Positional encoding (section 3.5): where a token stands, as a vector."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from autograd import Parameter
from autograd.backend import Array, backend_of
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.parameters import Scope, normal


class Positions(Protocol):
    """What is added to embeddings to say where a token stands."""

    def table(self, length: int, like: Parameter) -> Parameter | Array | None:
        """The vectors of at least `length` positions, [length or more, d_model]; None adds nothing.

        They lie where `like` does, in its dtype. Raises UserError where there are not so many.
        """


def positions_of(scope: Scope, config: TransformerConfig) -> Positions:
    """The positions that a configuration asks for."""
    if config.positions == "learned":
        return LearnedPositions(scope, config)
    return Sinusoids(scope, config)


class NoPositions:
    """Nothing is added: for an attention that knows by itself where tokens stand."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None: ...

    def table(self, length: int, like: Parameter) -> None:
        return None


class Sinusoids:
    """Sines and cosines: a constant, as long as need be."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        self.config = config
        self._waves: Array = np.empty((0, config.d_model), np.float32)

    def table(self, length: int, like: Parameter) -> Array:
        owner, dtype = backend_of(like.value), like.value.dtype
        waves = self._waves
        if len(waves) < length or backend_of(waves) is not owner or waves.dtype != dtype:
            config = self.config
            longer = max(256, 1 << (length - 1).bit_length())
            waves = sinusoids(longer, config.d_model, config.positions, config.position_spacing)
            # Returned as it is, for another thread may put a shorter one in its place.
            waves = self._waves = owner.asarray(waves.astype(dtype))
        return waves


class LearnedPositions:
    """A parameter [max_length, d_model] (row E of Table 3)."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        shape = (config.max_length, config.d_model)
        self.learned = scope.parameter("", shape, normal(1 / math.sqrt(config.d_model)))

    def table(self, length: int, like: Parameter) -> Parameter:
        if length > len(self.learned):
            raise UserError(
                f"a sentence of {length} tokens is longer than the {len(self.learned)} positions "
                "that the model has learned (model.max_length); shorten it, or use positions: "
                "interleaved"
            )
        return self.learned


def sinusoids(length: int, d_model: int, layout: str, spacing: str) -> np.ndarray:
    """Sines and cosines of each position, float64 [length, d_model].

    PE(pos, 2i) = sin(pos / 10000^(2i/d)) and PE(pos, 2i+1) the cosine, "interleaved" as in the
    paper, or all sines before all cosines, "concatenated". `spacing` is what i is divided by in
    10000^(-i/n): "d/2", or "d/2-1", with which the slowest wave is exactly 10000.
    """
    pairs = d_model // 2
    divisor = pairs if spacing == "d/2" else max(pairs - 1, 1)
    frequencies = 10000.0 ** (-np.arange(pairs) / divisor)
    angles = np.arange(length)[:, None] * frequencies  # [length, pairs]
    waves = [np.sin(angles), np.cos(angles)]
    if layout == "interleaved":
        return np.stack(waves, axis=-1).reshape(length, d_model)
    return np.concatenate(waves, axis=-1)
