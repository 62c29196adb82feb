"""Beam search finds the best translation, and its score is its normalised log-probability."""

import dataclasses
import itertools
import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import ops, using, watching
from npformer import Batch, Packed, SearchSettings, Transformer, TransformerConfig, search
from npformer.attention_maps import attention_maps
from npformer.beam import Beam
from npformer.hypotheses import Hypothesis

VOCABULARY, BEGIN, END = 5, 1, 2
TOKENS = [0, 1, 3, 4]  # all ids except the end: a search may choose any of them

seeds = st.integers(0, 2**32 - 1)
penalties = st.sampled_from(["gnmt", "power", "none"])
alphas = st.sampled_from([0.0, 0.6, 1.0, 2.0])
sentences = st.lists(st.integers(3, VOCABULARY - 1), max_size=3)


def logits_of(model: Transformer, ids: Any, state: Any) -> np.ndarray:
    """The logits of every next token, [rows, vocabulary]."""
    return np.array(model.step(ids, state).value @ model.projection.value.T)


def best_of(logits: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable tokens of rows of logits: their log-probabilities and ids, best first."""
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ids = np.argsort(-log_p, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(log_p, ids, axis=1), ids


class NeverEnding(Transformer):
    """A model that gives the end token a probability of 0."""

    def top_k(self, ids: Any, state: Any, k: int) -> Any:
        logits = logits_of(self, ids, state)
        logits[:, END] = -np.inf
        return best_of(logits, k)


def random_model(
    seed: int, kind: type[Transformer] = Transformer, dtype: Any = np.float64, **changes: Any
) -> Transformer:
    """A model with random parameters, large enough for logits to differ by several units."""
    config = TransformerConfig(
        **{
            "vocab_size": VOCABULARY,
            "layers": 1,
            "d_model": 8,
            "d_ff": 8,
            "heads": 2,
            "share_embeddings": "none",
            **changes,
        }
    )
    model = kind(config, seed=seed % 1000, dtype=dtype)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters().values():
        parameter.assign(parameter.numpy() + 0.5 * rng.standard_normal(parameter.shape))
    return model


def ended(sources: list[list[int]]) -> Packed:
    return Packed.of([[*s, END] for s in sources])


def log_p(model: Transformer, source: list[int], ids: list[int]) -> float:
    """The log-probability of a target, by teacher forcing."""
    batch = Batch(ended([source]), Packed.of([[BEGIN, *ids[:-1]]]), Packed.of([ids]))
    logits = model.logits(batch).numpy().astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    log_probabilities = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return float(log_probabilities[np.arange(len(ids)), ids].sum())


def penalty(chosen: SearchSettings, n: int) -> float:
    """The length penalty of Wu et al. (2016), equation 14, or fairseq's."""
    if chosen.penalty == "none":
        return 1.0
    if chosen.penalty == "gnmt":
        return float((5 + n) ** chosen.length_penalty / 6**chosen.length_penalty)
    return float(n**chosen.length_penalty)


def all_translations(
    model: Transformer, source: list[int], chosen: SearchSettings
) -> list[Hypothesis]:
    """Every translation within the length limit, best first."""
    limit = len(source) + chosen.extra_length
    found = [
        Hypothesis(
            list(ids),
            log_p(model, source, [*ids, END]) / penalty(chosen, len(ids) + 1),
        )
        for length in range(min(chosen.min_length, limit - 1), limit)
        for ids in itertools.product(TOKENS, repeat=length)
    ]
    return sorted(found, key=lambda h: -h.score)


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [h.ids for h in found] == [h.ids for h in expected]
    np.testing.assert_allclose(
        [h.score for h in found], [h.score for h in expected], rtol=1e-9, atol=1e-12
    )


# Results


@given(st.integers(0, 2), st.integers(1, 2), penalties, alphas, seeds)
@settings(max_examples=12)
def test_a_beam_wide_enough_for_all_hypotheses_finds_the_best(
    size: int, extra: int, kind: Any, alpha: float, seed: int
) -> None:
    model = random_model(seed)
    source = np.random.default_rng(seed).integers(3, VOCABULARY, size).tolist()
    chosen = SearchSettings(
        beam=len(TOKENS) ** (size + extra),
        length_penalty=alpha,
        penalty=kind,
        extra_length=extra,
        alternatives=3,
        min_length=seed % 3,
    )
    expected = all_translations(model, source, chosen)[:3]
    found = search(model, ended([source]), chosen, BEGIN, END)[0]
    assert_same(found, expected)


@given(sentences, st.integers(1, 4), penalties, alphas, seeds)
def test_a_score_is_the_log_probability_divided_by_the_penalty(
    source: list[int], beam: int, kind: Any, alpha: float, seed: int
) -> None:
    model = random_model(seed)
    # Tokens that are not allowed give their probability to none.
    chosen = SearchSettings(
        beam, alpha, kind, extra_length=4, alternatives=beam, min_length=seed % 3
    )
    limit = len(source) + 4
    for hypothesis in search(model, ended([source]), chosen, BEGIN, END)[0]:
        unended = log_p(model, source, hypothesis.ids) if hypothesis.ids else math.inf
        whole = log_p(model, source, [*hypothesis.ids, END])
        scores = [whole / penalty(chosen, len(hypothesis.ids) + 1)]
        ids = [*hypothesis.ids, END]
        if len(hypothesis.ids) == limit:  # cut at the limit, without an end
            scores, ids = [unended / penalty(chosen, limit)], hypothesis.ids
        assert [hypothesis.score] == pytest.approx(scores, rel=1e-9)
        sums = [log_p(model, source, ids[: n + 1]) for n in range(len(ids))]
        assert np.cumsum(hypothesis.log_p) == pytest.approx(sums, rel=1e-9)


@given(st.lists(sentences, min_size=1, max_size=3), seeds)
def test_a_beam_of_one_chooses_the_most_probable_token_at_each_step(
    sources: list[list[int]], seed: int
) -> None:
    model = random_model(seed)
    found = search(model, ended(sources), SearchSettings(beam=1, extra_length=5), BEGIN, END)
    for source, (hypothesis,) in zip(sources, found, strict=True):
        ids = [BEGIN]
        while ids[-1] != END and len(ids) <= len(source) + 5:
            batch = Batch(ended([source]), Packed.of([ids]), Packed.of([ids]))
            ids.append(int(model.logits(batch).numpy()[-1].argmax()))
        assert hypothesis.ids == [i for i in ids[1:] if i != END]


@given(st.lists(sentences, min_size=1, max_size=4), st.integers(2, 4), penalties, alphas, seeds)
def test_stopping_early_does_not_change_the_results(
    sources: list[list[int]], beam: int, kind: Any, alpha: float, seed: int
) -> None:
    model, step = random_model(seed), Beam.step

    def to_the_limit(self: Any) -> None:
        self.found = None  # so every hypothesis goes on to its end
        step(self)

    for alternatives in (1, beam):
        chosen = SearchSettings(
            beam,
            alpha,
            kind,
            extra_length=6,
            alternatives=alternatives,
            min_length=seed % 4,
            coverage_penalty=0.5 * (seed % 2),
            groups=beam if seed % 5 == 0 else 1,
        )
        early = search(model, ended(sources), chosen, BEGIN, END)
        with patch.object(Beam, "step", to_the_limit):
            late = search(model, ended(sources), chosen, BEGIN, END)
        for found, expected in zip(early, late, strict=True):
            assert_same(found, expected)


def coverage(model: Transformer, source: list[int], ids: list[int], beta: float) -> float:
    """The coverage penalty of Wu et al. (2016), by the attention of a forced decoding."""
    batch = Batch(ended([source]), Packed.of([[BEGIN, *ids[:-1]]]), Packed.of([ids]))
    [maps] = attention_maps(model, batch)
    cross = maps.cross[maps.alignment_layer].mean(axis=0)[:, : len(source)]
    return float(beta * np.log(np.minimum(cross.sum(axis=0), 1)).sum())


@given(sentences, st.sampled_from([1, 3]), st.sampled_from([0.2, 2.0]), seeds)
@settings(max_examples=20)
def test_the_coverage_penalty_is_that_of_a_forced_decoding(
    source: list[int], beam: int, beta: float, seed: int
) -> None:
    model = random_model(seed, layers=seed % 3 + 1)
    chosen = SearchSettings(
        beam, extra_length=4, alternatives=beam, coverage_penalty=beta, no_repeat_ngram=seed % 3
    )
    other = [4, 3, 3, 4]
    for own in search(model, ended([source, other]), chosen, BEGIN, END)[:1]:
        for h in own:
            ids = [*h.ids, END] if len(h.log_p) > len(h.ids) else h.ids
            expected = log_p(model, source, ids) / penalty(chosen, len(ids))
            expected += coverage(model, source, ids, beta)
            assert h.score == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 2), st.sampled_from([0.3, 3.0]), alphas, seeds)
@settings(max_examples=8)
def test_a_beam_wide_enough_finds_the_best_with_a_coverage_penalty(
    size: int, beta: float, alpha: float, seed: int
) -> None:
    model, source = random_model(seed), [3, 4][:size]
    chosen = SearchSettings(
        len(TOKENS) ** (size + 1),
        alpha,
        extra_length=1,
        alternatives=2,
        coverage_penalty=beta,
    )
    plain = all_translations(model, source, chosen)
    scores = {tuple(h.ids): h.score + coverage(model, source, [*h.ids, END], beta) for h in plain}
    best = sorted(scores, key=lambda ids: -scores[ids])[:2]
    [found] = search(model, ended([source]), chosen, BEGIN, END)
    assert [tuple(h.ids) for h in found] == best
    assert [h.score for h in found] == pytest.approx([scores[ids] for ids in best])


@pytest.mark.parametrize("beam", [1, 3])
def test_another_array_library_gives_the_same_coverage_penalty(beam: int) -> None:
    chosen = SearchSettings(beam, extra_length=5, alternatives=beam, coverage_penalty=1.0)
    sources = ended([[3, 4, 4], [], [4], [3, 3]])
    expected = search(random_model(3), sources, chosen, BEGIN, END)
    with using("strict"):
        found = search(random_model(3).to("strict"), sources, chosen, BEGIN, END)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


class Scripted(Transformer):
    """Ends at once with probability 0.6; otherwise continues with 3, 3, 3 and the end."""

    def top_k(self, ids: Any, state: Any, k: int) -> Any:
        length = int(state.lengths[0])
        logits = np.full_like(logits_of(self, ids, state), -30.0)
        logits[:, END] = math.log(0.6) if length == 0 else 0.0 if length == 3 else -30.0
        logits[:, 3] = math.log(0.4) if length == 0 else -30.0 if length == 3 else 0.0
        return best_of(logits, k)


@pytest.mark.parametrize(
    ("alpha", "ids"), [(0.0, []), (0.4, []), (0.5, [3, 3, 3]), (1.0, [3, 3, 3])]
)
def test_a_longer_translation_may_win(alpha: float, ids: list[int]) -> None:
    # log 0.6 = -0.51 divided by 1 competes with log 0.4 = -0.92 divided by 4^alpha. So the search
    # may stop only when no unfinished hypothesis can win, even with the largest divisor.
    chosen = SearchSettings(2, alpha, "power", extra_length=4)
    ((found,),) = search(random_model(0, Scripted), ended([[3]]), chosen, BEGIN, END)
    assert found.ids == ids
    expected = math.log(0.6) if not ids else math.log(0.4) / 4**alpha
    assert found.score == pytest.approx(expected, rel=1e-6)


def stopped_by_the_beam(
    model: Transformer, source: list[int], chosen: SearchSettings
) -> list[Hypothesis]:
    """The search of fairseq, of one sentence, written down as it is described: best first."""
    limit, beam = len(source) + chosen.extra_length, chosen.beam
    alive, found = [((), 0.0)], []
    for length in range(1, limit + 1):
        if len(found) >= beam:
            break
        continued = [
            ((*ids, token), log_p(model, source, [*ids, token]))
            for ids, _ in alive
            for token in range(VOCABULARY)
        ]
        best = sorted(continued, key=lambda x: -x[1])[: 2 * beam]
        for rank, (ids, sum_) in enumerate(best):
            if ids[-1] == END and rank < beam:
                found.append(Hypothesis(list(ids[:-1]), sum_ / penalty(chosen, length)))
        alive = [x for x in best if x[0][-1] != END][:beam]
    if not found:
        found = [Hypothesis(list(ids), sum_ / penalty(chosen, limit)) for ids, sum_ in alive]
    return sorted(found, key=lambda h: -h.score)[: chosen.alternatives]


@given(st.lists(sentences, min_size=1, max_size=3), st.integers(2, 4), penalties, alphas, seeds)
@settings(max_examples=60)
def test_a_search_may_stop_once_as_many_have_ended_as_the_beam_has(
    sources: list[list[int]], beam: int, kind: Any, alpha: float, seed: int
) -> None:
    model = random_model(seed)
    chosen = SearchSettings(
        beam, alpha, kind, extra_length=5, alternatives=1 + seed % beam, stop="beam"
    )
    for name in ("numpy", "strict"):
        with using(name):
            found = search(random_model(seed).to(name), ended(sources), chosen, BEGIN, END)
        for source, ours in zip(sources, found, strict=True):
            assert_same(ours, stopped_by_the_beam(model, source, chosen))


def test_stopping_early_saves_steps() -> None:
    steps = []

    class Counting(Transformer):
        def top_k(self, ids: Any, state: Any, k: int) -> Any:
            steps.append(len(ids))
            logits = logits_of(self, ids, state)
            logits[:, END] += 20  # the end is almost certain
            return best_of(logits, k)

    search(random_model(0, Counting), ended([[3, 4]] * 2), SearchSettings(), BEGIN, END)
    assert len(steps) < 5


@given(
    st.lists(sentences, min_size=1, max_size=5),
    st.integers(1, 4),
    seeds,
    st.data(),
)
def test_a_translation_does_not_depend_on_its_batch(
    sources: list[list[int]], beam: int, seed: int, data: st.DataObject
) -> None:
    model = random_model(seed)
    more: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {},
                {"min_length": 2, "no_repeat_ngram": 2},
                {"groups": beam, "diversity": 0.7},
                {"coverage_penalty": 0.5, "max_ratio": 1.5},
            ]
        )
    )
    chosen = SearchSettings(beam, extra_length=4, alternatives=beam, **more)
    together = search(model, ended(sources), chosen, BEGIN, END)
    order = data.draw(st.permutations(range(len(sources))))
    some = order[: data.draw(st.integers(1, len(sources)))]
    again = search(model, ended([sources[i] for i in some]), chosen, BEGIN, END)
    for i, found in zip(some, again, strict=True):
        assert_same(found, together[i])


@given(st.lists(sentences, max_size=4), st.integers(1, 5), penalties, seeds, st.data())
def test_alternatives_are_distinct_sorted_and_at_most_as_many_as_requested(
    sources: list[list[int]], beam: int, kind: Any, seed: int, data: st.DataObject
) -> None:
    model = random_model(seed)
    wanted = data.draw(st.integers(1, beam))
    extra = data.draw(st.integers(1, 4))
    several = SearchSettings(beam, penalty=kind, extra_length=extra, alternatives=wanted)
    found = search(model, ended(sources), several, BEGIN, END)
    best = search(model, ended(sources), dataclasses.replace(several, alternatives=1), BEGIN, END)
    assert len(found) == len(sources)
    for source, hypotheses, (first,) in zip(sources, found, best, strict=True):
        assert 1 <= len(hypotheses) <= wanted
        assert_same(hypotheses[:1], [first])
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(h.ids) for h in hypotheses}) == len(hypotheses)
        assert all(END not in h.ids for h in hypotheses)
        assert all(len(h.ids) <= len(source) + extra for h in hypotheses)


# Hypotheses without an end


@given(st.lists(sentences, min_size=1, max_size=3), st.integers(1, 3), penalties, seeds)
def test_a_hypothesis_without_an_end_is_cut_at_the_limit_of_its_sentence(
    sources: list[list[int]], extra: int, kind: Any, seed: int
) -> None:
    model = random_model(seed, NeverEnding)
    for beam in (1, 3):
        chosen = SearchSettings(beam, penalty=kind, extra_length=extra, alternatives=beam)
        found = search(model, ended(sources), chosen, BEGIN, END)
        for source, hypotheses in zip(sources, found, strict=True):
            assert len(hypotheses) == beam
            assert all(len(h.ids) == len(source) + extra for h in hypotheses)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("positions", ["interleaved", "concatenated", "learned"])
def test_only_learned_positions_limit_a_translation(beam: int, positions: Any) -> None:
    model = random_model(2, NeverEnding, positions=positions, max_length=4)
    chosen = SearchSettings(beam, extra_length=7)
    [[found, *_]] = search(model, ended([[3, 4]]), chosen, BEGIN, END)
    assert len(found.ids) == (4 if positions == "learned" else 2 + 7)


@given(st.integers(0, 2), seeds)
@settings(max_examples=10)
def test_without_an_end_the_best_hypothesis_is_returned(size: int, seed: int) -> None:
    model = random_model(seed, NeverEnding)
    source = [3] * size
    limit = size + 1
    beam = len(TOKENS) ** limit
    found = search(model, ended([source]), SearchSettings(beam, extra_length=1), BEGIN, END)[0][0]

    def log_p_of(ids: tuple[int, ...]) -> float:
        state = model.start(ended([source]), 1, limit)
        total = 0.0
        for before, token in itertools.pairwise((BEGIN, *ids)):
            logits = logits_of(model, np.array([before]), state)[0]
            logits[END] = -np.inf
            total += logits[token] - np.log(np.exp(logits).sum())
        return total

    best = max(itertools.product(TOKENS, repeat=limit), key=log_p_of)
    assert found.ids == list(best)
    assert found.score == pytest.approx(log_p_of(best) / ((5 + limit) / 6) ** 0.6)


# Other arrays and dtypes


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("start", ["token", "zero"])
@pytest.mark.parametrize("positions", ["interleaved", "learned"])
def test_another_array_library_gives_the_same_results(
    beam: int, start: Any, positions: Any
) -> None:
    model = random_model(3, decoder_start=start, positions=positions)
    chosen = SearchSettings(beam, extra_length=5, alternatives=beam)
    sources = ended([[3, 4, 4], [], [4], [3, 3]])
    expected = search(model, sources, chosen, BEGIN, END)
    with using("strict"):
        found = search(model.to("strict"), sources, chosen, BEGIN, END)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


@given(st.lists(sentences, min_size=1, max_size=4), st.sampled_from([1, 3]), seeds)
@settings(max_examples=10)
def test_float32_gives_the_same_results_as_float64(
    sources: list[list[int]], beam: int, seed: int
) -> None:
    chosen = SearchSettings(beam, extra_length=4)
    single, double = (
        search(random_model(seed, dtype=dtype), ended(sources), chosen, BEGIN, END)
        for dtype in (np.float32, np.float64)
    )
    for (ours,), (theirs,) in zip(single, double, strict=True):
        assert ours.ids == theirs.ids
        assert ours.score == pytest.approx(theirs.score, rel=1e-4)


def test_no_sentences_give_no_translations() -> None:
    for beam in (1, 4):
        assert search(random_model(0), Packed.of([]), SearchSettings(beam), BEGIN, END) == []


@pytest.mark.parametrize("beam", [3, VOCABULARY, 2 * VOCABULARY, 500])
def test_a_beam_may_be_wider_than_the_vocabulary(beam: int) -> None:
    chosen = SearchSettings(beam, extra_length=2)
    [found] = search(random_model(1), ended([[3, 4]]), chosen, BEGIN, END)
    assert len(found) == 1
    assert math.isfinite(found[0].score)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_search_runs_only_fast_implementations_of_large_operations(beam: int) -> None:
    pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    model = random_model(0, dtype=np.float32)
    kinds = (
        ops.linear,
        ops.feed_forward,
        ops.add_dropout_norm,
        ops.append_to_cache,
        ops.cached_attention,
        ops.top_k,
    )
    with watching(*kinds) as calls:
        search(model, ended([[3, 4], [4]]), SearchSettings(beam, extra_length=3), BEGIN, END)
    for kernel in kinds:
        assert {chosen for *_, chosen in calls[kernel]} == {"fast"}, kernel
