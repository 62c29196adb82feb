"""Embedding: positions that are kept from call to call are those of the table they are added to."""

from typing import Any

import numpy as np
import pytest

from autograd import Parameter
from npformer import TransformerConfig
from npformer.embeddings import Embedding
from npformer.positions import sinusoids

CONFIG = TransformerConfig(vocab_size=7, layers=1, d_model=8, d_ff=8, heads=2)


def of(embedding: Embedding, length: int) -> np.ndarray:
    ids = np.zeros(length, np.int32)
    return np.asarray(embedding(ids, np.arange(length, dtype=np.int32), length).value)


def positions(length: int) -> np.ndarray:
    return sinusoids(length, CONFIG.d_model, CONFIG.positions, CONFIG.position_spacing)


@pytest.mark.parametrize(("before", "after"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_positions_follow_the_tables_dtype(before: Any, after: Any) -> None:
    embedding = Embedding(Parameter(np.zeros((7, 8), before)), None, CONFIG, site=0)
    assert of(embedding, 5).dtype == before
    embedding.table = Parameter(np.zeros((7, 8), after))
    found = of(embedding, 5)
    assert found.dtype == after
    np.testing.assert_array_equal(found, positions(5).astype(after))


def test_positions_grow_with_the_longest_sentence() -> None:
    embedding = Embedding(Parameter(np.zeros((7, 8), np.float64)), None, CONFIG, site=0)
    for length in (1, 256, 257, 1000, 3):
        np.testing.assert_array_equal(of(embedding, length), positions(length))
