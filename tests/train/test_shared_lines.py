"""Lines that ranks share out: the same batches as one process, and the same output."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import Batch, SearchSettings, Transformer, Translation, Translator, UserError
from npformer.batch import batches_of_similar_length
from tests.npformer.test_translator import LINES, make_translator
from tests.train.runs import settings
from tests.train.thread_ranks import in_threads
from train import validation
from train.cli.pairs import Pairs, likelihood_of, scored
from train.corpora.corpus import Corpus
from train.evaluation import Likelihood, likelihood
from train.ranks.lines import shared_batches, shared_sentences, translated
from train.ranks.ranks import ALONE, Ranks
from train.runs.run import Run
from train.trainer import Trainer

MANY = [*LINES, "", "A dog sings.", "Two girls run.", "  ", "Yes. Yes. Yes.", "A garden."] * 3
lengths = st.lists(st.integers(0, 30), max_size=60)


def all_of(some: Iterable[list[Translation]]) -> list[Translation]:
    return list(chain.from_iterable(some))


@given(lengths, st.integers(1, 100), st.integers(1, 5))
def test_ranks_compute_the_batches_of_one_process(
    sizes: list[int], tokens: int, ranks: int
) -> None:
    sentences = [range(size) for size in sizes]
    alone = list(batches_of_similar_length(sentences, tokens))
    shares = shared_batches(sentences, tokens, ranks)
    assert sorted(batch for share in shares for batch in share) == sorted(alone)
    # Also by way of the lines that each rank translates.
    for share, own in zip(shares, shared_sentences(sentences, tokens, ranks), strict=True):
        again = batches_of_similar_length([sentences[i] for i in own], tokens)
        assert [[own[i] for i in batch] for batch in again] == share


def test_no_rank_has_much_more_to_do_than_another() -> None:
    sizes = np.random.default_rng(0).integers(1, 60, 2000)
    sentences = [range(size) for size in sizes]
    loads = [sum(sizes[own]) for own in shared_sentences(sentences, 300, 7)]
    assert max(loads) < 1.05 * min(loads)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_translate_as_one_process(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = make_translator()
    settings: dict[str, Any] = {"beam": 2, "extra_length": 3}
    expected = translator.translate(MANY, batch_tokens=60, **settings)
    options: dict[str, Any] = {"settings": SearchSettings(**settings), "batch_tokens": 60}
    assert all_of(translated(translator, MANY, ALONE, **options)) == expected
    counts: list[int] = []
    taken = _sentences_of_each_call(monkeypatch)

    def work(ranks: Ranks) -> list[Translation]:
        progress = counts.append if ranks.is_first else None
        return all_of(translated(translator, MANY, ranks, progress=progress, **options))

    assert in_threads(size, work) == [expected] * size
    assert sum(counts) == len(MANY)
    assert sorted(i for own in taken for i in own) == list(range(len(MANY) - MANY.count("") - 3))
    assert len(taken) == size
    assert all(taken)


def _sentences_of_each_call(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    taken: list[list[int]] = []
    found = Translator.found

    def noted(self: Translator, *arguments: Any, **options: Any) -> Any:
        taken.append(list(options["chosen"]))
        return found(self, *arguments, **options)

    monkeypatch.setattr(Translator, "found", noted)
    return taken


def test_more_ranks_than_lines_leave_some_idle() -> None:
    translator = make_translator()

    def work(ranks: Ranks, lines: list[str]) -> list[Translation]:
        return all_of(translated(translator, lines, ranks, settings=SearchSettings()))

    expected = translator.translate(LINES[:1])
    assert in_threads(3, lambda ranks: work(ranks, LINES[:1])) == [expected] * 3
    assert in_threads(2, lambda ranks: work(ranks, ["", " "])) == [[Translation("", 0.0)] * 2] * 2


@pytest.mark.parametrize("size", [1, 2])
def test_a_line_without_a_translation_is_named_by_its_number_in_the_input(size: int) -> None:
    translator = make_translator(share_embeddings="none")
    garden = translator.tokenizers.source.encode_lines(["garden"])[0][-1]
    embedding = translator.model.parameters()["source_embedding"]
    values = embedding.numpy()
    values[garden] = np.nan
    embedding.assign(values)
    lines = ["Yes.", "", "Yes. Yes.", "A garden.", "Yes."]

    def work(ranks: Ranks) -> list[Translation]:
        chosen = SearchSettings(beam=2)
        some = translated(translator, lines, ranks, before=10_000, batch_tokens=8, settings=chosen)
        return all_of(some)

    with pytest.raises(UserError, match="no translation of line 10,004;"):
        in_threads(size, work)


def test_ranks_score_as_one_process() -> None:
    translator = make_translator()
    sources, targets = MANY, MANY[::-1]
    pairs = Pairs(translator, sources, targets)
    alone = likelihood_of(translator, pairs, ALONE)
    lines = scored(translator, pairs, ALONE)
    assert len(lines) == len(MANY)

    def work(ranks: Ranks) -> Any:
        return likelihood_of(translator, pairs, ranks), scored(translator, pairs, ranks)

    assert in_threads(3, work) == [(alone, lines)] * 3


@pytest.mark.parametrize("size", [1, 2])
def test_what_comes_before_a_line_that_is_refused_is_translated(size: int) -> None:
    translator = make_translator(positions="learned", max_length=40)
    expected = translator.translate(["Yes.", "A dog."])

    def work(ranks: Ranks) -> list[Translation]:
        found: list[Translation] = []
        lines, chosen = ["Yes.", "A dog.", "Yes. " * 40, "No."], SearchSettings()
        some = translated(translator, lines, ranks, settings=chosen, long_lines="refuse", before=5)
        with pytest.raises(UserError, match=r"line 8 has \d+ tokens, more than the 39 "):
            found.extend(chain.from_iterable(some))
        return found

    for found in in_threads(size, work):
        assert found == expected


def test_ranks_share_the_batches_of_a_validation(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.start(settings(batch_tokens=60), corpus, Run(tmp_path / "run"))
    taken: list[int] = []

    def noted(model: Transformer, batches: Sequence[Batch]) -> Likelihood:
        taken.append(len(batches))
        return likelihood(model, batches)

    def validated(ranks: Ranks) -> float:
        own = trainer.model, corpus, trainer.valid_batches, trainer.settings, trainer.position
        return validation.validate(*own, False, ranks).valid_loss

    monkeypatch.setattr(validation, "likelihood", noted)
    alone = validated(ALONE)
    assert in_threads(2, validated) == pytest.approx([alone] * 2, rel=1e-6)
    whole, *shares = taken
    assert len(shares) == 2
    assert 0 < min(shares) <= max(shares) < whole == sum(shares)
