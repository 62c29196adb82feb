"""Embedding: cached positions match the dtype and backend of the table."""

from typing import Any

import numpy as np
import pytest

from autograd import Parameter, Sentences
from npformer import TransformerConfig
from npformer.embeddings import Embedding
from npformer.parameters import Dropout, Scope
from npformer.positions import Sinusoids, sinusoids

CONFIG = TransformerConfig(vocab_size=7, layers=1, d_model=8, d_ff=8, heads=2)


def embedding_of(dtype: Any) -> Embedding:
    table = Parameter(np.zeros((7, 8), dtype))
    return Embedding(table, Sinusoids(Scope(), CONFIG), Dropout("", 0.0))


def of(embedding: Embedding, length: int) -> np.ndarray:
    ids = np.zeros(length, np.int32)
    return np.asarray(embedding(ids, Sentences([length])).value)


def positions(length: int) -> np.ndarray:
    return sinusoids(length, CONFIG.d_model, CONFIG.positions, CONFIG.position_spacing)


@pytest.mark.parametrize(("before", "after"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_positions_follow_the_tables_dtype(before: Any, after: Any) -> None:
    embedding = embedding_of(before)
    assert of(embedding, 5).dtype == before
    embedding.table = Parameter(np.zeros((7, 8), after))
    found = of(embedding, 5)
    assert found.dtype == after
    np.testing.assert_array_equal(found, positions(5).astype(after))


def test_positions_grow_with_the_longest_sentence() -> None:
    embedding = embedding_of(np.float64)
    for length in (1, 256, 257, 1000, 3):
        np.testing.assert_array_equal(of(embedding, length), positions(length))
