"""A search agrees with a naive one, on any backend and for any interval of synchronization."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import backend, ops, using
from npformer import Ensemble, Packed, SearchSettings, Transformer, TransformerConfig, search
from npformer.decoder import DecoderState
from npformer.hypotheses import Hypothesis
from tests.without_gpu import strict_arrays
from tests.without_gpu.strict_arrays import StrictArray

VOCABULARY, BEGIN, END = 6, 1, 2
STEPS = (1, 3, 8)  # steps between two checks of the host

seeds = st.integers(0, 2**32 - 1)
beams = st.integers(1, 4)
choices = beams.flatmap(
    lambda beam: st.builds(
        SearchSettings,
        beam=st.just(beam),
        length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
        penalty=st.sampled_from(["gnmt", "power"]),
        extra_length=st.integers(1, 9),
        alternatives=st.integers(1, beam),
        min_length=st.sampled_from([0, 0, 2, 20]),
        min_ratio=st.sampled_from([0.0, 0.7]),
        max_ratio=st.sampled_from([None, 1.6]),
        no_repeat_ngram=st.sampled_from([0, 0, 1, 2, 3]),
    )
)
# A seed, a grain, and the additional log-probability of the end.
tables = st.tuples(seeds, st.sampled_from([0, 0.25]), st.sampled_from([-math.inf, -1, 0, 1.5]))
batches = st.lists(st.lists(st.integers(3, VOCABULARY - 1), max_size=4), min_size=1, max_size=4)
backends = pytest.mark.parametrize("name", ["numpy", "strict"])


def config(**changes: Any) -> TransformerConfig:
    sizes = {"vocab_size": VOCABULARY, "layers": 1, "d_model": 8, "d_ff": 8, "heads": 2}
    return TransformerConfig(**{**sizes, **changes})


class Table(Transformer):
    """A model that is a table: log P [sentences, steps, previous token, token]."""

    def __init__(self, log_p: np.ndarray, **changes: Any) -> None:
        super().__init__(config(**changes))
        self.log_p: Any = log_p
        self.rows: list[int] = []  # the number of rows of each step

    def to(self, name: str) -> "Table":
        super().to(name)
        self.log_p = backend.backend(name).asarray(self.log_p)
        return self

    def next_log_p(self, ids: Any, state: DecoderState) -> Any:
        """The log-probability of every next token."""
        found = self.log_p[state.sentence_ids.repeat(state.beam), state.lengths, ids]
        ops.count_up(state.lengths)
        self.rows.append(len(ids))
        return found

    def top_k(self, ids: Any, state: DecoderState, k: int) -> Any:
        xp = backend.array_module(self.log_p)
        log_p = self.next_log_p(ids, state)
        next_ids = xp.argsort(-log_p, axis=1, kind="stable")[:, :k]
        return xp.take_along_axis(log_p, next_ids, axis=1), next_ids


def random_table(
    sentences: int, steps: int, seed: int, grain: float = 0, end: float = 0
) -> np.ndarray:
    """The log P of a Table; with a `grain`, many tokens are equal and many impossible."""
    rng = np.random.default_rng(seed)
    log_p = -3 * rng.random((sentences, steps, VOCABULARY, VOCABULARY)) - 0.1
    if grain:
        log_p = np.floor(log_p / grain) * grain
        log_p[rng.random(log_p.shape) < 0.3] = -np.inf
        log_p[..., 3] = -grain  # one token is always possible
    log_p[..., END] = np.minimum(log_p[..., END] + end, -0.1)
    return log_p.astype(np.float32)


def ended(sources: list[list[int]]) -> Packed:
    return Packed.of([[*s, END] for s in sources])


@contextmanager
def checks_every(steps: int, name: str = "numpy") -> Iterator[None]:
    """Inside a `with`, the host checks for finished sentences every `steps` steps."""
    kind = backend.backend(name).kind
    changed = dataclasses.replace(backend.backend(name), steps_between_checks=steps)
    with patch.dict(backend._by_kind, {kind: changed}), using(name):
        yield


def found_after(
    steps: int,
    model: Transformer,
    sources: list[list[int]],
    chosen: SearchSettings,
    name: str,
    prefixes: list[list[int]] | None = None,
) -> list[list[Hypothesis]]:
    with checks_every(steps, name):
        return search(model.to(name), ended(sources), chosen, BEGIN, END, prefixes=prefixes)


Scored = tuple[list[int], float]
"""The ids of a hypothesis, and its log P."""


class Naive:
    """A naive search of one sentence; log_p [steps, previous token, token]."""

    def __init__(
        self,
        log_p: np.ndarray,
        limit: int,
        chosen: SearchSettings,
        fewest: int = 0,
        prefix: Sequence[int] = (),
    ) -> None:
        self.log_p, self.limit, self.chosen = log_p, limit, chosen
        self.fewest, self.prefix = min(fewest, limit - 1), prefix

    def is_allowed(self, ids: list[int], token: int, rules: Collection[str]) -> bool:
        if len(ids) < len(self.prefix):
            return token == self.prefix[len(ids)]
        longer, size = [*ids, token], self.chosen.no_repeat_ngram
        again = size and longer[-size:] in [ids[i : i + size] for i in range(len(ids) - size + 1)]
        if again and "n-grams" in rules:
            return False
        return token != END or len(ids) >= self.fewest or "length" not in rules

    def longer(self, live: list[Scored], t: int) -> list[Scored]:
        """All continuations; a rule that leaves none gives way."""
        found: list[Scored] = []
        rules: tuple[str, ...] = ()
        for more in ((), ("length",), ("n-grams",)):
            some = [
                ([*ids, int(i)], total + float(self.log_p[t, before, i]))
                for ids, total in live
                for before in [ids[-1] if ids else BEGIN]
                for i in np.argsort(-self.log_p[t, before], kind="stable")
                if self.is_allowed(ids, int(i), (*rules, *more))
            ]
            if some := [(ids, total) for ids, total in some if total > -math.inf]:
                found, rules = some, (*rules, *more)
        return found

    def found(self) -> list[Hypothesis]:
        if self.chosen.beam == 1:
            return self.greedy()
        beam = self.chosen.beam
        live: list[tuple[list[int], float]] = [([], 0.0)]
        finished: list[Hypothesis] = []
        for t in range(self.limit):
            best = sorted(self.longer(live, t), key=lambda x: -x[1])[: 2 * beam]
            divisor = self.chosen.divisor(t + 1)
            finished += [
                Hypothesis(ids[:-1], total / divisor) for ids, total in best if ids[-1] == END
            ]
            live = [(ids, total) for ids, total in best if ids[-1] != END][:beam]
        unended = [Hypothesis(ids, total / self.chosen.divisor(self.limit)) for ids, total in live]
        return sorted(finished or unended, key=lambda h: -h.score)[: self.chosen.alternatives]

    def diverse(self) -> list[Hypothesis]:
        """Diverse beam search: a group after the other chooses its continuations of each step."""
        chosen, size = self.chosen, self.chosen.beam // self.chosen.groups
        live: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(chosen.groups)]
        finished: list[Hypothesis] = []
        for t in range(self.limit):
            taken: list[int] = []
            for g, group in enumerate(live):
                longer = self.longer(group, t)
                merits = {
                    tuple(ids): total - chosen.diversity * taken.count(ids[-1])
                    for ids, total in longer
                }
                best = sorted(longer, key=lambda x: -merits[tuple(x[0])])[: 2 * size]
                divisor = chosen.divisor(t + 1)
                finished += [
                    Hypothesis(ids[:-1], total / divisor) for ids, total in best if ids[-1] == END
                ]
                live[g] = [(ids, total) for ids, total in best if ids[-1] != END][:size]
                taken += [ids[-1] for ids, _ in live[g]]
        unended = [
            Hypothesis(ids, total / chosen.divisor(self.limit))
            for own in live
            for ids, total in own
        ]
        return sorted(finished or unended, key=lambda h: -h.score)[: chosen.alternatives]

    def greedy(self) -> list[Hypothesis]:
        ids: list[int] = []
        total = 0.0
        while END not in ids[-1:] and len(ids) < self.limit:
            longer = self.longer([(ids, total)], len(ids))
            if not longer:
                return []
            ids, total = max(longer, key=lambda x: x[1])
        score = total / self.chosen.divisor(len(ids))
        return [Hypothesis([i for i in ids if i != END], score)]


# Results


@backends
@given(batches, choices, st.booleans(), tables, st.data())
@settings(max_examples=80)
def test_a_search_agrees_with_a_naive_one(
    name: str,
    sources: list[list[int]],
    chosen: SearchSettings,
    learned: bool,
    table: tuple[int, float, float],
    data: st.DataObject,
) -> None:
    some = st.lists(st.integers(3, VOCABULARY - 1), max_size=3)
    prefixes = [data.draw(st.one_of(st.just([]), some)) for _ in sources]
    lengths = [len(source) for source in sources]
    limits = [n + chosen.extra_length for n in lengths]
    if chosen.max_ratio is not None:
        limits = [
            max(min(m, int(chosen.max_ratio * n)), 1) for m, n in zip(limits, lengths, strict=True)
        ]
    limits = [max(m, len(prefix) + 1) for m, prefix in zip(limits, prefixes, strict=True)]
    fewest = [max(chosen.min_length, math.ceil(chosen.min_ratio * n)) for n in lengths]
    changes: dict[str, Any] = {}
    if learned:
        changes = {"positions": "learned", "max_length": 5}
        limits = [min(limit, 5) for limit in limits]
    given = prefixes if any(prefixes) else None
    seed, grain, end = table
    if given or max(fewest) or chosen.no_repeat_ngram:
        grain = 0  # which of equal tokens is chosen is not defined
    log_p = random_table(len(sources), max(limits), seed, grain, end)
    expected = [
        Naive(log_p[i], limits[i], chosen, fewest[i], prefixes[i]).found()
        for i in range(len(sources))
    ]
    for steps in STEPS:
        found = found_after(steps, Table(log_p, **changes), sources, chosen, name, given)
        assert found == expected


@backends
@given(
    batches,
    st.sampled_from([(2, 2), (4, 2), (3, 3), (6, 2), (6, 3)]),
    st.sampled_from([0.0, 0.4, 2.0]),
    st.sampled_from([0.0, 1.0]),
    st.integers(1, 6),
    seeds,
    st.sampled_from([-math.inf, -1, 1.5]),
)
@settings(max_examples=25)
def test_a_diverse_search_agrees_with_a_naive_one(
    name: str,
    sources: list[list[int]],
    sizes: tuple[int, int],
    diversity: float,
    alpha: float,
    extra: int,
    seed: int,
    end: float,
) -> None:
    beam, groups = sizes
    chosen = SearchSettings(
        beam, alpha, extra_length=extra, alternatives=beam, groups=groups, diversity=diversity
    )
    limits = [len(source) + extra for source in sources]
    log_p = random_table(len(sources), max(limits), seed, 0, end)
    log_p[..., END] += 1e-3 * np.random.default_rng(seed).random(log_p.shape[:-1])  # no two equal
    expected = [Naive(log_p[i], limits[i], chosen).diverse() for i in range(len(sources))]
    for steps in STEPS:
        found = found_after(steps, Table(log_p), sources, chosen, name)
        for own, naive in zip(found, expected, strict=True):
            # Different groups may come to the same translation.
            assert [h.ids for h in own] == [h.ids for h in naive]
            assert [h.score for h in own] == pytest.approx([h.score for h in naive])


def test_groups_choose_different_tokens() -> None:
    log_p = np.full((1, 9, VOCABULARY, VOCABULARY), -9.0, np.float32)
    log_p[..., 3], log_p[..., 4], log_p[..., 5] = -0.1, -0.3, -0.6
    log_p[:, 2:, :, END] = -0.01
    for diversity, firsts in ((0.0, {3}), (1.0, {3, 4, 5})):
        chosen = SearchSettings(3, extra_length=3, alternatives=3, groups=3, diversity=diversity)
        [found] = found_after(1, Table(log_p), [[]], chosen, "numpy")
        assert {h.ids[0] for h in found} == firsts


@given(batches, beams, st.integers(1, 9), st.sampled_from(["learned", "interleaved"]), seeds)
@settings(max_examples=15)
def test_results_do_not_depend_on_when_the_host_checks(
    sources: list[list[int]], beam: int, extra: int, positions: Any, seed: int
) -> None:
    model = Transformer(
        config(positions=positions, max_length=6, share_embeddings="none"), seed, np.float64
    )
    rng = np.random.default_rng(seed)
    for parameter in model.parameters().values():
        parameter.assign(parameter.numpy() + 0.5 * rng.standard_normal(parameter.shape))
    chosen = SearchSettings(beam, extra_length=extra, alternatives=beam)
    first, *others = [found_after(n, model, sources, chosen, "numpy") for n in STEPS]
    for found in others:
        for ours, theirs in zip(found, first, strict=True):
            assert [h.ids for h in ours] == [h.ids for h in theirs]
            np.testing.assert_allclose(
                [h.score for h in ours], [h.score for h in theirs], rtol=1e-9, atol=1e-12
            )


@backends
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("beam", [1, 4])
def test_no_sentences_give_no_results_on_any_backend(name: str, steps: int, beam: int) -> None:
    model = Transformer(config())
    assert found_after(steps, model, [], SearchSettings(beam), name) == []


@pytest.mark.parametrize("beam", [1, 4])
def test_log_probabilities_are_summed_in_float64(beam: int) -> None:
    # In float32 the small terms after a large one would be lost.
    log_p = np.full((1, 40, VOCABULARY, VOCABULARY), -1e9, np.float32)
    log_p[..., END], log_p[:, 0, :, 3], log_p[:, 1:, :, 3] = -np.inf, -1e6, -1e-3
    chosen = SearchSettings(beam, length_penalty=0, extra_length=40)
    ((found,),) = found_after(1, Table(log_p), [[]], chosen, "numpy")
    assert found.score == pytest.approx(-1e6 - 39e-3, rel=0, abs=1e-8)


@backends
@pytest.mark.parametrize("steps", STEPS)
def test_a_search_with_nan_ends_without_hypotheses(name: str, steps: int) -> None:
    model = Table(np.full((2, 9, VOCABULARY, VOCABULARY), np.nan, np.float32))
    for beam in (1, 4):
        chosen = SearchSettings(beam, extra_length=5)
        assert found_after(steps, model, [[], [3, 4]], chosen, name) == [[], []]


@contextmanager
def recording(steps: int) -> Iterator[None]:
    """Inside a `with`, searches on NumPy keep what they would record, and do not record it."""
    changed = dataclasses.replace(
        backend.backend("numpy"),
        steps_between_checks=steps,
        records=True,
        recorder=backend.NoRecorder,
    )
    with patch.dict(backend._by_kind, {np.ndarray: changed}):
        yield


@given(
    st.lists(batches, min_size=2, max_size=4),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([None, 3]),
    st.sampled_from(["learned", "interleaved"]),
    seeds,
)
@settings(max_examples=15)
def test_a_search_finds_the_same_in_arrays_that_are_larger_and_were_used_before(
    texts: list[list[list[int]]], beam: int, window: int | None, positions: Any, seed: int
) -> None:
    sizes = {"positions": positions, "max_length": 6, "share_embeddings": "none"}
    made = [Transformer(config(attention_window=window, **sizes), seed) for _ in range(2)]
    rng = np.random.default_rng(seed)
    for one, other in zip(*(model.parameters().values() for model in made), strict=True):
        noise = 0.5 * rng.standard_normal(one.shape)
        for parameter in (one, other):
            parameter.assign(parameter.numpy() + noise)
    plain, keeping = made
    for turn, sources in enumerate([*texts, 3 * texts[0]]):
        chosen = SearchSettings(beam, turn / 2, extra_length=1 + turn, alternatives=beam)
        expected = found_after(1, plain, sources, chosen, "numpy")
        for steps in STEPS:
            with recording(steps):
                found = search(keeping, ended(sources), chosen, BEGIN, END)
            for ours, theirs in zip(found, expected, strict=True):
                assert [h.ids for h in ours] == [h.ids for h in theirs]
                np.testing.assert_allclose(
                    [h.score for h in ours], [h.score for h in theirs], rtol=1e-4, atol=1e-5
                )
    assert keeping.searches
    assert not plain.searches or backend.backend("numpy").records


# Transfers between host and device


@contextmanager
def counting(moved: list[int]) -> Iterator[None]:
    """Count in moved[-1] what is copied between device and host or waits for the device.

    Besides copies, these are conversions to Python numbers, and shapes that depend on values.
    """

    def counted(function: Any) -> Any:
        def call(*args: Any, **settings: Any) -> Any:
            moved[-1] += 1
            return function(*args, **settings)

        return call

    def from_host(x: Any) -> Any:
        moved[-1] += isinstance(x, np.ndarray)
        return original_from_host(x)

    def index(i: Any) -> Any:
        parts = i if isinstance(i, tuple) else (i,)
        moved[-1] += any(isinstance(p, StrictArray) and p.dtype == bool for p in parts)
        return original_index(i)

    original_from_host, original_index = strict_arrays._from_host, strict_arrays._index
    names = ["get", "item", "tolist", "nonzero", "__bool__", "__int__", "__float__"]
    waits = {n: counted(getattr(StrictArray, n)) for n in names}
    functions = {n: counted(getattr(strict_arrays.xp, n)) for n in ("nonzero", "flatnonzero")}
    with (
        patch.multiple(StrictArray, **waits),
        patch.multiple(strict_arrays.xp, **functions),
        patch.multiple(strict_arrays, _from_host=from_host, _index=index),
    ):
        yield


class Watched(Table):
    """A table that starts a new count in `moved` at each step."""

    def __init__(self, log_p: np.ndarray) -> None:
        super().__init__(log_p)
        self.moved = [0]

    def top_k(self, ids: Any, state: DecoderState, k: int) -> Any:
        self.moved.append(0)
        return super().top_k(ids, state, k)


@pytest.mark.parametrize("end", [0, -math.inf])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("steps", STEPS)
def test_a_search_moves_data_only_when_the_host_checks(steps: int, beam: int, end: float) -> None:
    sources = [[3] * n for n in range(6)]
    model = Watched(random_table(len(sources), 25, seed=1, end=end))
    chosen = SearchSettings(beam, extra_length=20, alternatives=beam)
    model.to("strict")
    with counting(model.moved):
        found_after(steps, model, sources, chosen, "strict")
    _, *of_steps = model.moved
    *but_last, _ = of_steps
    checks = [i % steps == 0 for i in range(1, len(of_steps))]
    assert [n > 0 for n in but_last] == checks
    assert max(of_steps) <= 7  # a check, the remaining sentences, and perhaps the results


class WatchedTransformer(Transformer):
    """A real model that starts a new count in `moved` at each step."""

    moved: list[int]

    def top_k(self, ids: Any, state: DecoderState, k: int) -> Any:
        self.moved.append(0)
        return super().top_k(ids, state, k)

    def next_log_p(self, ids: Any, state: DecoderState) -> Any:
        self.moved.append(0)
        return super().next_log_p(ids, state)


@pytest.mark.parametrize("start", ["token", "zero"])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"min_length": 3, "no_repeat_ngram": 5},
        {"sampling": True, "alternatives": 3, "top_k": 3, "min_length": 20},
    ],
    ids=["plain", "rules", "sampling"],
)
def test_a_step_of_the_model_moves_nothing(beam: int, start: str, more: dict[str, Any]) -> None:
    model = WatchedTransformer(config(decoder_start=start)).to("strict")
    sources, chosen = [[3], [3, 3, 3]], SearchSettings(beam, extra_length=9, **more)
    for _ in range(2):  # positions are copied only in the first search
        model.moved = [0]
        with counting(model.moved):
            found_after(100, model, sources, chosen, "strict")
    _, *but_last, _ = model.moved
    assert len(but_last) == 11
    assert not any(but_last)


@pytest.mark.parametrize(
    ("more", "prefixes"),
    [
        ({"coverage_penalty": 0.5}, None),
        ({"groups": 2, "no_repeat_ngram": 5}, None),
        ({}, [[3, 4], []]),
        ({"coverage_penalty": 0.5, "min_ratio": 1.0, "no_repeat_ngram": 5}, [[], [3]]),
    ],
    ids=["coverage", "groups", "prefixes", "together"],
)
@pytest.mark.parametrize("models", [1, 2])
def test_no_option_moves_anything_in_a_step(
    models: int, more: dict[str, Any], prefixes: list[list[int]] | None
) -> None:
    first = WatchedTransformer(config()).to("strict")
    others = [Transformer(config(), seed=i).to("strict") for i in range(1, models)]
    model: Any = Ensemble([first, *others], [3, 1]) if others else first
    chosen = SearchSettings(4, extra_length=9, **more)
    for _ in range(2):  # positions are copied only in the first search
        first.moved = [0]
        with counting(first.moved), checks_every(100, "strict"):
            search(model, ended([[3], [3, 3, 3]]), chosen, BEGIN, END, prefixes=prefixes)
    _, *but_last, _ = first.moved
    assert len(but_last) == 11
    assert not any(but_last)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("beam", [1, 4])
def test_ended_sentences_are_dropped_when_the_host_checks(beam: int, steps: int) -> None:
    sources = [[3] * n for n in range(10)]
    log_p = random_table(len(sources), 13, seed=0, end=-math.inf)
    chosen = SearchSettings(beam, extra_length=4)
    model = Table(log_p)
    found_after(steps, model, sources, chosen, "numpy")
    # Sentence i ends after i + 4 steps, and is dropped at the next check.
    at_checks = [t // steps * steps for t in range(13)]
    expected = [sum(i + 4 > check for i in range(10)) * beam for check in at_checks]
    assert model.rows == expected


def test_on_numpy_the_host_checks_for_finished_sentences_at_every_step() -> None:
    assert backend.backend("numpy").steps_between_checks == 1
