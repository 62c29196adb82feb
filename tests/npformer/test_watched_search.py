"""A search can be watched as it goes on, and sentences of it can be given up."""

from __future__ import annotations

import numpy as np
import pytest

from autograd.ops.large.beam import Trace
from npformer import Packed, SearchSettings, search
from npformer.batch import ended
from npformer.hypotheses import likeliest
from tests.npformer.test_translator import LINES, make_translator

translator = make_translator()
SOURCES = translator.tokenizers.source.encode_lines(LINES[:4])
SETTINGS = [
    SearchSettings(beam=1, extra_length=9),
    SearchSettings(beam=3, extra_length=9, alternatives=3),
    SearchSettings(beam=4, groups=2, extra_length=9, alternatives=4),
    SearchSettings(sampling=True, extra_length=9, alternatives=2),
]


def searched(settings: SearchSettings, watch: object = None) -> list[list[object]]:
    tokenizer = translator.tokenizers.target
    return search(
        translator.model,
        ended(Packed.of(SOURCES), tokenizer.end_id),
        settings,
        tokenizer.begin_id,
        tokenizer.end_id,
        watch=watch,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_watching_changes_nothing(settings: SearchSettings) -> None:
    seen: list[tuple[list[int], int]] = []

    def watch(running: np.ndarray, trace: Trace) -> np.ndarray:
        seen.append((running.tolist(), len(trace.ids)))
        return np.zeros(len(running), bool)

    assert searched(settings, watch) == searched(settings)
    assert seen[0] == ([0, 1, 2, 3], 1)
    assert [steps for _, steps in seen] == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_others_find_what_they_find_when_some_are_given_up(settings: SearchSettings) -> None:
    def watch(running: np.ndarray, trace: Trace) -> np.ndarray:
        return np.isin(running, [1, 3]) & (len(trace.ids) >= 2)

    whole, found = searched(settings), searched(settings, watch)
    for i in (0, 2):
        assert [h.ids for h in found[i]] == [h.ids for h in whole[i]]
    for i in (1, 3):  # what had ended by then
        assert all(len(h.log_p) <= 2 for h in found[i])


def test_all_may_be_given_up() -> None:
    """A minimum keeps every translation from ending before."""
    settings = SearchSettings(beam=2, min_length=5, extra_length=4000)
    steps = []

    def watch(running: np.ndarray, trace: Trace) -> np.ndarray:
        steps.append(len(trace.ids))
        return np.full(len(running), len(trace.ids) == 3)

    assert searched(settings, watch) == [[], [], [], []]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_likeliest_so_far_is_a_hypothesis_of_the_search(settings: SearchSettings) -> None:
    """Greedy, it grows into the translation; the log-probability of any is that of its tokens."""
    end_id = translator.tokenizers.target.end_id
    last: dict[int, list[int]] = {}

    def watch(running: np.ndarray, trace: Trace) -> np.ndarray:
        for which in running.tolist():
            ids = likeliest(trace, which, end_id, settings)
            log_p = trace.log_p[-1, which, 0]
            if ids is None:
                assert log_p == -np.inf
                continue
            of_end = len(trace.ids) - len(ids)
            assert of_end in (0, 1)
            [scored] = translator.scored([SOURCES[which]], [ids], SearchSettings())
            expected = sum(scored.token_log_p[: len(trace.ids)])
            assert log_p == pytest.approx(expected, rel=1e-4, abs=1e-4)
            if settings.beam == 1 and not settings.sampling:
                assert ids[: len(last.get(which, []))] == last.get(which, [])
            last[which] = ids
        return np.zeros(len(running), bool)

    found = searched(settings, watch)
    if settings.beam == 1 and not settings.sampling:
        assert [last[i] for i in range(4)] == [h[0].ids for h in found]
