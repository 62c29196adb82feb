"""Answers of a service that are known to the last digit: two layers, three heads."""

from __future__ import annotations

from typing import Any

import numpy as np

SOURCE = ["▁The", "▁old", "▁ca", "t", ".", "</s>"]
TARGET = ["<s>", "▁Die", "▁alte", "▁Kat", "ze", "."]
PREDICTED = [*TARGET[1:], "</s>"]

TRANSLATIONS: dict[str, Any] = {
    "translations": [
        {
            "text": "Die alte Katze.",
            "score": -0.25,
            "alternatives": [
                {"text": "Eine alte Katze.", "score": -1.5},
                {"text": "Die alte Katze schläft.", "score": -2.75},
            ],
        }
    ]
}


def _weights(rows: int, columns: int, shift: int, causal: bool = False) -> np.ndarray:
    """70 % for the word beside, the rest for all."""
    weights = np.full((rows, columns), 0.3 / columns)
    if causal:
        weights = np.tril(np.ones((rows, columns)))
        weights *= 0.3 / weights.sum(axis=1, keepdims=True)
    for row in range(rows):
        favourite = max(row - shift, 0) if causal else (row + shift) % columns
        weights[row, favourite] += 0.7
    return weights


def _kind(rows: int, columns: int, causal: bool = False) -> list[Any]:
    return [
        [_weights(rows, columns, layer + head, causal).round(4).tolist() for head in range(3)]
        for layer in range(2)
    ]


ATTENTION: dict[str, Any] = {
    "text": "Die alte Katze.",
    "source": SOURCE,
    "target": TARGET,
    "predicted": PREDICTED,
    "encoder": _kind(6, 6),
    "decoder": _kind(6, 6, causal=True),
    "cross": _kind(6, 6),
}
