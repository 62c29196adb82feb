"""Positions: the paper's sinusoids, how they are added, and the limit of learned positions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import Packed, Transformer, TransformerConfig, UserError
from npformer.positions import sinusoids
from tests.npformer.models import TINY, random_batch


@pytest.mark.parametrize("layout", ["interleaved", "concatenated"])
@pytest.mark.parametrize("spacing", ["d/2", "d/2-1"])
@pytest.mark.parametrize("d", [2, 4, 6, 32])
def test_sinusoids_match_the_paper_element_by_element(layout: str, spacing: str, d: int) -> None:
    table = sinusoids(40, d, layout, spacing)
    assert table.shape == (40, d)
    for position in range(40):
        for i in range(d // 2):
            # Section 3.5, or in tensor2tensor: 1 to 10000 in equal steps of the logarithm.
            if spacing == "d/2":
                wavelength = 10000 ** (2 * i / d)
            else:
                wavelength = math.exp(i * math.log(10000) / max(d // 2 - 1, 1))
            sine, cosine = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, d // 2 + i)
            angle = position / wavelength
            assert table[position, sine] == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, cosine] == pytest.approx(math.cos(angle), abs=1e-12)


@given(st.lists(st.integers(0, 5), max_size=5))
def test_positions_count_from_0_in_each_sentence(sizes: list[int]) -> None:
    packed = Packed.of([[3] * n for n in sizes])
    assert packed.position_ids.tolist() == [i for n in sizes for i in range(n)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_embedding_is_scaled_before_its_position_is_added(dtype: Any) -> None:
    config = TransformerConfig(**TINY)
    model = Transformer(config, dtype=dtype)
    ids = np.array([4, 4, 5])
    found = model.source_embedding.at(ids, np.array([0, 7, 300]), 301).numpy()
    waves = sinusoids(301, 8, "interleaved", "d/2")[[0, 7, 300]]
    expected = model.parameters()["embedding"].numpy()[ids] * math.sqrt(8) + waves
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=10 * np.finfo(dtype).eps)


def test_a_sentence_longer_than_learned_positions_is_refused() -> None:
    model = Transformer(TransformerConfig(**TINY, positions="learned"))
    model.logits(random_batch(model.config, [(15, 15)]))
    for size in ((16, 3), (3, 16)):
        with pytest.raises(UserError, match=r"17 tokens is longer than the 16 .*max_length"):
            model.logits(random_batch(model.config, [size]))
