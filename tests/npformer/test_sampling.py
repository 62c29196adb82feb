"""Sampling draws translations with the model's probabilities, the same whatever the batch."""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import backend
from npformer import SearchSettings, search
from npformer.long_lines import divide
from npformer.sampling import drawn, uniforms
from tests.npformer.test_search import BEGIN, END, VOCABULARY, ended, log_p, random_model
from tests.npformer.test_translator import LINES, translator

FALSE_ALARM = 1e-6


def assert_frequencies(counts: Counter[Any], p: dict[Any, float]) -> None:
    """Pearson's chi-squared test that counts are drawn from p, with a false alarm of 1e-6.

    What is expected less than ten times is one category. The quantile is that of Wilson and
    Hilferty, within a percent of the true one here.
    """
    n = counts.total()
    assert set(counts) <= {k for k, share in p.items() if share > 0}
    rare = {k for k, share in p.items() if share * n < 10}
    observed = [counts[k] for k in p if k not in rare] + [sum(counts[k] for k in rare)]
    expected = [p[k] * n for k in p if k not in rare] + [sum(p[k] for k in rare) * n]
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    assert sum(expected) == pytest.approx(n)
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    degrees = len(expected) - 1
    z = 4.7534  # the normal quantile of 1 - 1e-6
    bound = degrees * (1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3
    assert statistic < bound, (statistic, bound)


def all_log_p(model: Any, source: list[int], limit: int) -> dict[tuple[int, ...], float]:
    """The log-probability of every translation of at most `limit` tokens, the end included."""
    others = [i for i in range(VOCABULARY) if i != END]
    ended_ones = {
        ids: log_p(model, source, [*ids, END])
        for n in range(limit)
        for ids in itertools.product(others, repeat=n)
    }
    cut = itertools.product(others, repeat=limit)
    return {**ended_ones, **{ids: log_p(model, source, list(ids)) for ids in cut}}


def sampled(model: Any, source: list[int], count: int, **chosen: Any) -> Counter[tuple[int, ...]]:
    found = search(
        model,
        ended([source] * count),
        SearchSettings(sampling=True, alternatives=5, **chosen),
        BEGIN,
        END,
    )
    return Counter(tuple(h.ids) for hypotheses in found for h in hypotheses)


@pytest.mark.parametrize("seed", [1, 2])
def test_frequencies_are_those_of_the_model(seed: int) -> None:
    model, source = random_model(seed), [3, 4]
    p = {ids: math.exp(x) for ids, x in all_log_p(model, source, 3).items()}
    assert sum(p.values()) == pytest.approx(1)
    counts = sampled(model, source, 1000, seed=seed, extra_length=1)
    assert counts.total() == 5000
    assert_frequencies(counts, p)


def test_temperature_top_k_and_top_p_change_them_as_defined() -> None:
    model, source = random_model(3), [4]
    first = np.array([log_p(model, source, [i]) for i in range(VOCABULARY)])
    for chosen in (
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 2},
        {"top_p": 0.7},
        {"temperature": 1.5, "top_k": 4, "top_p": 0.8},
    ):
        p = np.exp(first / chosen.get("temperature", 1))
        order = np.argsort(-p)[: int(chosen.get("top_k", VOCABULARY))]
        share = np.cumsum(p[order]) / p[order].sum()
        order = order[: np.searchsorted(share, chosen.get("top_p", 1) * (1 - 1e-12)) + 1]
        kept = {int(i): float(p[i] / p[order].sum()) for i in order}
        found = search(
            model,
            ended([source] * 1000),
            SearchSettings(sampling=True, alternatives=4, max_length=1, **chosen),
            BEGIN,
            END,
        )
        counts = Counter(h.ids[0] if h.ids else END for own in found for h in own)
        assert_frequencies(counts, kept)


def test_scores_are_those_of_the_model() -> None:
    model = random_model(4)
    chosen = SearchSettings(sampling=True, alternatives=3, temperature=3.0, extra_length=2)
    for hypothesis in search(model, ended([[3]]), chosen, BEGIN, END)[0]:
        whole = len(hypothesis.log_p) > len(hypothesis.ids)
        ids = [*hypothesis.ids, END] if whole else hypothesis.ids
        assert sum(hypothesis.log_p) == pytest.approx(log_p(model, [3], ids))


@given(st.integers(0, 2**64 - 1), st.permutations(range(6)), st.integers(1, 6))
@settings(max_examples=8)
def test_what_is_drawn_does_not_depend_on_the_batch(
    seed: int, order: list[int], count: int
) -> None:
    lines = [*LINES, "A dog.", "Two girls run."]
    chosen: dict[str, Any] = {"sampling": True, "seed": seed, "extra_length": 3, "top_k": 20}
    expected = translator.translate(lines, alternatives=2, **chosen)
    sources = translator.tokenizers.source.encode_lines(lines)
    some = order[:count]
    target = translator.tokenizers.target
    found = search(
        translator.model,
        ended([sources[i] for i in some]),
        SearchSettings(alternatives=2, **chosen),
        target.begin_id,
        target.end_id,
        streams=[(i + 1) << 24 for i in some],
    )
    for i, hypotheses in zip(some, found, strict=True):
        texts = [target.decode(h.ids) for h in hypotheses]
        assert texts == [t.text for t in expected[i].ranked]


def test_what_is_drawn_does_not_depend_on_how_many_are_drawn() -> None:
    model, source = random_model(4), ended([[3, 4]])
    drawn = {}
    for count in (1, 4, 9):
        asked = SearchSettings(sampling=True, alternatives=count, extra_length=4, seed=3)
        found = search(model, source, asked, BEGIN, END)[0]
        drawn[count] = Counter(tuple(h.ids) for h in found)
    assert len(drawn[9]) > 4
    assert drawn[1] <= drawn[4] <= drawn[9]


def test_each_part_of_a_line_draws_anew() -> None:
    lines = ["A dog. " * 100, "A dog.", "A dog. " * 100]
    divided = divide(lines, range(1, 4), translator.tokenizers.source, 12, "split")
    assert len(divided.streams) > 2 * len(lines)
    assert len(set(divided.streams)) == len(divided.streams)


def test_another_seed_or_line_draws_anew() -> None:
    chosen: dict[str, Any] = {"sampling": True, "extra_length": 5}
    same = translator.translate(["A dog."] * 4, **chosen)
    assert len({t.text for t in same}) > 1
    assert [t.text for t in translator.translate(["A dog."] * 4, **chosen)] == [
        t.text for t in same
    ]
    other = translator.translate(["A dog."] * 4, seed=1, **chosen)
    assert [t.text for t in other] != [t.text for t in same]


@pytest.mark.parametrize("chosen", [{}, {"top_k": 3}, {"top_p": 0.8, "no_repeat_ngram": 2}])
def test_another_array_library_draws_the_same(chosen: dict[str, Any]) -> None:
    model, sources = random_model(5), ended([[3, 4], [], [4]])
    asked = SearchSettings(sampling=True, alternatives=3, seed=7, **chosen)
    expected = search(model, sources, asked, BEGIN, END)
    with backend.using("strict"):
        found = search(model.to("strict"), sources, asked, BEGIN, END)
    assert [[h.ids for h in own] for own in found] == [[h.ids for h in own] for own in expected]


def test_random_numbers_are_uniform_and_differ() -> None:
    streams = np.arange(200, dtype=np.uint64)[:, None]
    numbers = uniforms(np, 3, streams, np.arange(100), 5)
    assert numbers.shape == (200, 100)
    assert len(np.unique(numbers)) == numbers.size
    counts = Counter((numbers * 50).astype(int).reshape(-1).tolist())
    assert_frequencies(counts, dict.fromkeys(range(50), 1 / 50))
    for other in ((4, streams, 5), (3, streams + 200, 5), (3, streams, 6)):
        seed, others, step = other
        assert not np.isin(uniforms(np, seed, others, np.arange(100), step), numbers).any()
    large = uniforms(np, 3, streams + np.uint64(1 << 32), np.arange(100), 5)
    assert not np.isin(large, numbers).any()


def test_the_largest_random_number_draws_a_token_that_counts() -> None:
    p = np.array([[0.5, 0.3, 0.2, 0.0]] * 3 + [[1.0, 0.0, 0.0, 0.0]] + [[0.0] * 4])
    log_p = np.where(p > 0, np.log(np.maximum(p, 1e-300)), -np.inf)
    last = np.full(5, 1 - 2.0**-53)
    assert drawn(log_p, last)[:4].tolist() == [2, 2, 2, 0]
    assert drawn(log_p, last, top_p=0.5)[:4].tolist() == [0, 0, 0, 0]
    assert drawn(log_p, last, top_p=0.51)[:4].tolist() == [1, 1, 1, 0]
    assert drawn(log_p, np.zeros(5)).tolist()[:4] == [0, 0, 0, 0]
