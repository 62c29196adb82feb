"""Translating on a GPU gives NumPy's translations."""

import numpy as np
import pytest

from npformer import Packed, SearchSettings, Transformer, TransformerConfig, search

CONFIG = TransformerConfig(vocab_size=211, layers=2, d_model=64, d_ff=128, heads=4)


def sources() -> Packed:
    rng = np.random.default_rng(0)
    return Packed.of([[*rng.integers(3, 211, n).tolist(), 2] for n in rng.integers(0, 40, 50)])


def model(seed: int) -> Transformer:
    """A model whose logits differ by several units."""
    made = Transformer(CONFIG, seed=seed)
    rng = np.random.default_rng(seed)
    for p in made.parameters().values():
        p.assign(p.numpy() + 0.2 * rng.standard_normal(p.shape))
    return made


@pytest.mark.parametrize("beam", [1, 4])
def test_float32_gives_numpys_translations(beam):
    chosen = SearchSettings(beam=beam, extra_length=20)
    expected = search(model(1), sources(), chosen)
    found = search(model(1).to("cupy"), sources(), chosen)
    same = [a[0].ids == b[0].ids for a, b in zip(found, expected, strict=True)]
    assert np.mean(same) >= 0.96  # rounding decides between nearly equal hypotheses
    for a, b in zip(found, expected, strict=True):
        assert a[0].score == pytest.approx(b[0].score, abs=1e-3)


def test_translations_in_bfloat16_have_similar_scores():
    chosen = SearchSettings(beam=4, extra_length=20)
    expected = search(model(1), sources(), chosen)
    found = search(model(1).to("cupy", "bf16"), sources(), chosen)
    gap = np.array([b[0].score - a[0].score for a, b in zip(found, expected, strict=True)])
    magnitude = np.abs([b[0].score for b in expected]).mean()
    assert np.abs(gap).mean() < 0.05 * magnitude
