"""An ensemble translates by the mean of its models' probabilities."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import using
from npformer import (
    Batch,
    Ensemble,
    Packed,
    SearchSettings,
    TokenizerPair,
    Translator,
    UserError,
    search,
)
from npformer.attention_maps import attention_maps
from tests.npformer.test_search import (
    BEGIN,
    END,
    TOKENS,
    assert_same,
    ended,
    log_p,
    penalty,
    random_model,
    seeds,
    sentences,
)
from tests.npformer.test_translator import LINES, make_translator, save, tokenizer
from train.evaluation import likelihood


def token_log_p(model: Any, source: list[int], ids: list[int]) -> np.ndarray:
    """The log-probability of each token of a target, by teacher forcing."""
    sums = [0.0, *(log_p(model, source, ids[: n + 1]) for n in range(len(ids)))]
    return np.diff(sums)


def mixed_log_p(models: list[Any], weights: list[float], source: list[int], ids: Any) -> float:
    each = [np.exp(token_log_p(model, source, list(ids))) for model in models]
    mean = sum(w * p for w, p in zip(weights, each, strict=True)) / sum(weights)
    return float(np.log(mean).sum())


def two_models(seed: int) -> list[Any]:
    """Models of different sizes."""
    return [random_model(seed), random_model(seed + 1, d_model=4, layers=2, heads=1)]


@given(st.integers(0, 2), st.sampled_from([[1, 1], [1, 3]]), seeds)
@settings(max_examples=8)
def test_a_beam_wide_enough_for_all_finds_the_best_of_the_mean(
    size: int, weights: list[float], seed: int
) -> None:
    models, source = two_models(seed), [3] * size
    chosen = SearchSettings(beam=len(TOKENS) ** (size + 1), extra_length=1, alternatives=3)
    all_scores = {
        ids: mixed_log_p(models, weights, source, (*ids, END)) / penalty(chosen, n + 1)
        for n in range(size + 1)
        for ids in itertools.product(TOKENS, repeat=n)
    }
    best = sorted(all_scores, key=lambda ids: -all_scores[ids])[:3]
    [found] = search(Ensemble(models, weights), ended([source]), chosen, BEGIN, END)
    assert [tuple(h.ids) for h in found] == best
    assert [h.score for h in found] == pytest.approx([all_scores[ids] for ids in best])


@given(st.lists(sentences, min_size=1, max_size=3), st.integers(1, 3), seeds)
@settings(max_examples=15)
def test_scores_are_those_of_forced_decoding(
    sources: list[list[int]], beam: int, seed: int
) -> None:
    models = two_models(seed)
    chosen = SearchSettings(beam, extra_length=3, alternatives=beam, no_repeat_ngram=3)
    for source, own in zip(
        sources, search(Ensemble(models), ended(sources), chosen, BEGIN, END), strict=True
    ):
        for h in own:
            ids = [*h.ids, END] if len(h.log_p) > len(h.ids) else h.ids
            assert sum(h.log_p) == pytest.approx(mixed_log_p(models, [1, 1], source, ids))


@pytest.mark.parametrize("weights", [[1, 1], [1, 9]])
def test_coverage_is_the_mean_of_that_of_the_models(weights: list[float]) -> None:
    models = [random_model(5), random_model(6, d_model=4)]
    ensemble, source, beta = Ensemble(models, weights), [3, 4, 4], 2.0
    chosen = SearchSettings(3, extra_length=3, alternatives=3, coverage_penalty=beta)
    for h in search(ensemble, ended([source]), chosen, BEGIN, END)[0]:
        ids = [*h.ids, END] if len(h.log_p) > len(h.ids) else h.ids
        batch = Batch(ended([source]), Packed.of([[BEGIN, *ids[:-1]]]), Packed.of([ids]))
        attention = [attention_maps(model, batch)[0].cross[0].mean(axis=0) for model in models]
        of_each = np.average(attention, axis=0, weights=weights)[:, : len(source)].sum(axis=0)
        expected = mixed_log_p(models, weights, source, ids) / penalty(chosen, len(ids))
        expected += beta * np.log(np.minimum(of_each, 1)).sum()
        assert h.score == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_model_with_itself_translates_as_alone(beam: int) -> None:
    model = random_model(3)
    chosen, sources = SearchSettings(beam, extra_length=4), ended([[3, 4], [], [4, 4, 3]])
    alone = search(model, sources, chosen, BEGIN, END)
    found = search(Ensemble([model, model, model]), sources, chosen, BEGIN, END)
    for ours, theirs in zip(found, alone, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("more", [{}, {"sampling": True}, {"min_length": 4}])
def test_another_array_library_gives_the_same(more: dict[str, Any]) -> None:
    chosen, sources = SearchSettings(2, extra_length=4, **more), ended([[3, 4], [], [4, 4, 3]])
    expected = search(Ensemble(two_models(4)), sources, chosen, BEGIN, END)
    with using("strict"):
        models = [model.to("strict") for model in two_models(4)]
        found = search(Ensemble(models), sources, chosen, BEGIN, END)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def test_given_pairs_are_scored_by_the_mean() -> None:
    models = two_models(5)
    pairs = [([3, 4], [4, 4, 1]), ([], [3]), ([4], [])]
    batch = Batch.of([s for s, _ in pairs], [t for _, t in pairs], begin_id=BEGIN, end_id=END)
    found = likelihood(Ensemble(models, [2, 1]), [batch])
    expected = sum(mixed_log_p(models, [2, 1], s, [*t, END]) for s, t in pairs)
    assert -found.nll_sum == pytest.approx(expected)
    assert found.loss_sum == found.nll_sum


def test_a_token_that_no_model_allows_has_the_probability_0() -> None:
    with np.errstate(all="raise"):
        mixed = Ensemble([random_model(1)] * 2)._mean(
            [np.array([-math.inf, 0.0, -math.inf]), np.array([-math.inf, 0.0, 0.0])]
        )
    assert mixed.tolist() == pytest.approx([-math.inf, 0.0, math.log(0.5)])


def test_weights_may_be_of_any_size() -> None:
    models = two_models(3)
    pair = Batch.of([[3, 4]], [[4, 1]], begin_id=BEGIN, end_id=END)
    for weights, same in (
        ([1e308, 1e308], [1, 1]),
        ([5e-324, 1e308], None),
        ([1e-320] * 2, [1, 1]),
    ):
        expected = Ensemble(models, same) if same else models[1]
        found = Ensemble(models, weights).target_log_p(pair)
        np.testing.assert_allclose(found, expected.target_log_p(pair), rtol=1e-6)


def test_positions_are_those_that_all_models_have() -> None:
    models = [random_model(1, positions="learned", max_length=n) for n in (9, 6)]
    mixed = Ensemble([*models, random_model(2, max_length=4)])
    assert (mixed.config.positions, mixed.config.max_length) == ("learned", 6)
    assert mixed.config.longest is None
    known = [random_model(1, longest=n) for n in (30, 20)]
    assert Ensemble([*known, random_model(2)]).config.longest == 20
    chosen = SearchSettings(1, min_length=50)
    [[found]] = search(mixed, ended([[3]]), chosen, BEGIN, END)
    assert len(found.ids) <= 6


def test_models_and_weights_that_do_not_fit_are_refused() -> None:
    model = random_model(1)
    with pytest.raises(ValueError, match=r"got the sizes \[\(None, 5\), \(None, 6\)\]"):
        Ensemble([model, random_model(1, vocab_size=6)])
    with pytest.raises(ValueError, match="2 models need as many weights, got 1"):
        Ensemble([model, model], [1])
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="weights must be positive"):
            Ensemble([model, model], [1, wrong])


# From model directories


def test_directories_of_one_vocabulary_translate_together(tmp_path: Path) -> None:
    made = [make_translator(), make_translator(layers=1)]
    paths = [save(tmp_path / str(i), t.model, t.tokenizers) for i, t in enumerate(made)]
    both = Translator.ensemble(paths, [1, 2])
    found = both.translate(LINES, extra_length=3, attention=False)
    expected = Translator(Ensemble([t.model for t in made], [1, 2]), made[0].tokenizers)
    assert found == expected.translate(LINES, extra_length=3)
    with pytest.raises(UserError, match="different numbers of layers or heads"):
        both.translate(LINES[:1], extra_length=3, attention=True)
    with pytest.raises(UserError, match="2 models need as many weights"):
        Translator.ensemble(paths, [1])
    other = tokenizer(301)
    third = make_translator(vocab_size=301)
    save(tmp_path / "other", third.model, TokenizerPair(other, other))
    with pytest.raises(UserError, match=r"other has another vocabulary than .*0"):
        Translator.ensemble([paths[0], tmp_path / "other"])


def test_the_attention_of_an_ensemble_is_the_mean() -> None:
    one = make_translator()
    maps = [
        Translator(model, one.tokenizers).translate(LINES[:1], attention=True, extra_length=2)
        for model in (one.model, Ensemble([one.model, one.model], [1, 3]))
    ]
    np.testing.assert_allclose(maps[0][0].attention.cross, maps[1][0].attention.cross, atol=1e-6)
