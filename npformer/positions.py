"""Positional encodings, which tell the model the order of tokens (section 3.5)."""

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
    """The positional encoding that is added to embeddings."""

    def table(self, length: int, like: Parameter) -> Parameter | Array | None:
        """The vectors of the first positions, [length or more, d_model]; None to add nothing.

        They have the backend and dtype of `like`. Raises UserError if there are fewer than
        `length`.
        """


def positions_of(scope: Scope, config: TransformerConfig) -> Positions:
    """The positional encoding that the configuration names."""
    if config.positions == "learned":
        return LearnedPositions(scope, config)
    return Sinusoids(scope, config)


class NoPositions:
    """Adds nothing: for an attention that handles positions itself."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None: ...

    def table(self, length: int, like: Parameter) -> None:
        return None


class Sinusoids:
    """The paper's sines and cosines: a constant table, which grows with the longest sentence."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        self.config = config
        self._waves: Array = np.empty((0, config.d_model), np.float32)

    def table(self, length: int, like: Parameter) -> Array:
        backend, dtype = backend_of(like.value), like.value.dtype
        waves = self._waves
        if len(waves) < length or backend_of(waves) is not backend or waves.dtype != dtype:
            config = self.config
            longer = max(256, 1 << (length - 1).bit_length())
            waves = sinusoids(
                longer,
                config.d_model,
                config.positions,
                config.position_spacing,
                config.first_position,
            )
            # The local name is returned: another thread may store a shorter table meanwhile.
            waves = self._waves = backend.asarray(waves.astype(dtype))
        return waves


class LearnedPositions:
    """Learned positional embeddings, a parameter [max_length, d_model] (Table 3, row E)."""

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


def sinusoids(length: int, d_model: int, layout: str, spacing: str, first: int = 0) -> np.ndarray:
    """The sinusoidal positional encoding, [length, d_model] in float64.

    layout: "interleaved" as in the paper, PE(pos, 2i) = sin(pos / 10000^(2i/d)) and PE(pos, 2i+1)
    the cosine of the same; or "concatenated", all sines before all cosines.
    spacing: the n of the frequencies 10000^(-i/n), "d/2" as in the paper or "d/2-1", with which
    the lowest frequency is exactly 1/10000.
    first: the position of the first row.
    """
    pairs = d_model // 2
    divisor = pairs if spacing == "d/2" else max(pairs - 1, 1)
    frequencies = 10000.0 ** (-np.arange(pairs) / divisor)
    angles = np.arange(first, first + length)[:, None] * frequencies  # [length, pairs]
    waves = [np.sin(angles), np.cos(angles)]
    if layout == "interleaved":
        return np.stack(waves, axis=-1).reshape(length, d_model)
    return np.concatenate(waves, axis=-1)
