"""Translating on a GPU gives NumPy's translations."""

import numpy as np
import pytest

from npformer import Ensemble, Packed, SearchSettings, Transformer, TransformerConfig, search

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


@pytest.mark.parametrize(
    "more",
    [
        {"min_length": 10, "no_repeat_ngram": 2},
        {"groups": 2, "alternatives": 4},
        {"coverage_penalty": 0.3},
        {"sampling": True, "seed": 1, "top_k": 40, "top_p": 0.9},
    ],
    ids=["rules", "groups", "coverage", "sampling"],
)
def test_what_is_allowed_and_drawn_is_that_of_numpy(more):
    chosen = SearchSettings(extra_length=20, **more)
    prefixes = [[7, 9] if i % 3 == 0 else [] for i in range(50)]
    expected = search(model(1), sources(), chosen, prefixes=prefixes)
    found = search(model(1).to("cupy"), sources(), chosen, prefixes=prefixes)
    same = [a[0].ids == b[0].ids for a, b in zip(found, expected, strict=True)]
    assert np.mean(same) >= 0.9  # rounding decides between nearly equal hypotheses


def test_an_ensemble_gives_numpys_translations():
    chosen = SearchSettings(extra_length=20)
    expected = search(Ensemble([model(1), model(2)]), sources(), chosen)
    found = search(Ensemble([model(1).to("cupy"), model(2).to("cupy")]), sources(), chosen)
    same = [a[0].ids == b[0].ids for a, b in zip(found, expected, strict=True)]
    assert np.mean(same) >= 0.9


def test_translations_in_bfloat16_have_similar_scores():
    chosen = SearchSettings(beam=4, extra_length=20)
    expected = search(model(1), sources(), chosen)
    found = search(model(1).to("cupy", "bf16"), sources(), chosen)
    gap = np.array([b[0].score - a[0].score for a, b in zip(found, expected, strict=True)])
    magnitude = np.abs([b[0].score for b in expected]).mean()
    assert np.abs(gap).mean() < 0.05 * magnitude
