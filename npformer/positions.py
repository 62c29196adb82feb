"""Positional encoding (section 3.5): where a token stands, as a vector."""

from __future__ import annotations

import numpy as np


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


def places(lengths: np.ndarray) -> np.ndarray:
    """The position of each token within its sentence: 0, 1, ... for each length. int32 [tokens]."""
    starts = np.cumsum(lengths) - lengths
    return (np.arange(int(lengths.sum())) - np.repeat(starts, lengths)).astype(np.int32)
