"""Other segmentations of the text in each epoch, as a function of seed, epoch and line."""

import multiprocessing
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train.corpora.batches
import train.corpora.sampling
from npformer.errors import UserError
from tests.train.runs import assert_same_run, settings, start, stopped_at
from tests.train.small_corpus import PAIRS, write
from tests.train.test_batches import as_lists, batches_from
from train.corpora.batches import Batches, Indices
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.corpora.sampling import Sampler
from train.corpora.sentences import ParallelTokens
from train.runs.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer

BLOCK = 8  # lines


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.corpora.sampling, "BLOCK", BLOCK)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus that holds its text."""
    folder = tmp_path_factory.mktemp("kept")
    pairs = [*PAIRS, ("", "dropped"), *PAIRS[::2]]
    texts = [
        write(folder / name, [pair[side] for pair in pairs])
        for side, name in enumerate(("train.en", "train.de"))
    ]
    return prepare(
        *texts, *texts, folder / "corpus", vocab_size=310, algorithm=request.param, keep_text=True
    )


def sampled_batches(corpus: Corpus, seed: int = 0, strength: float = 0.3, **more: Any) -> Batches:
    tokenizer = corpus.tokenizers.target
    sampler = Sampler(corpus.train, corpus.train_text(), corpus.tokenizers, strength, seed)
    ids = {"begin_id": tokenizer.begin_id, "end_id": tokenizer.end_id}
    return Batches(corpus.train, seed=seed, sample=sampler.sample, **ids, **more)


def sentences(
    corpus: Corpus, epoch: int, pairs: Indices | None = None, **more: Any
) -> list[tuple[list[int], list[int]]]:
    """Pairs of an epoch as they were sampled; by default all, in the order of the corpus."""
    sampler = Sampler(
        corpus.train, corpus.train_text(), corpus.tokenizers, **{"strength": 0.3, "seed": 0, **more}
    )
    blocks = sampler.sample(epoch, np.arange(len(corpus.train)) if pairs is None else pairs)
    found = ParallelTokens.joined(blocks)
    return [(found.source(i).tolist(), found.target(i).tolist()) for i in range(len(found))]


def test_the_text_is_that_of_the_pairs(kept: Corpus) -> None:
    sources, targets = kept.train_text()
    pairs = [*PAIRS, *PAIRS[::2]]
    assert len(kept.train) == len(pairs)
    assert sources.lines(0, len(pairs)) == [s for s, _ in pairs]
    assert targets.lines(3, 7) == [t for _, t in pairs[3:7]]
    assert sources.lines(5, 5) == []


@pytest.mark.usefixtures("small_blocks")
def test_what_is_sampled_is_the_same_text(kept: Corpus) -> None:
    usual = [
        (kept.train.source(i).tolist(), kept.train.target(i).tolist())
        for i in range(len(kept.train))
    ]
    found = sentences(kept, 0)
    decode = kept.tokenizers.target.decode
    assert [(decode(s), decode(t)) for s, t in found] == [(decode(s), decode(t)) for s, t in usual]
    differing = sum(ours != theirs for ours, theirs in zip(found, usual, strict=True))
    assert differing > len(usual) / 4


@pytest.mark.usefixtures("small_blocks")
def test_no_sentence_is_longer_than_the_longest_of_the_corpus(kept: Corpus) -> None:
    longest = [length for length, _ in kept.train.longest.values()]
    found = sentences(kept, 0, strength=0.9)
    assert max(len(s) for s, _ in found) <= longest[0]
    assert max(len(t) for _, t in found) <= longest[1]


@pytest.mark.usefixtures("small_blocks")
def test_seed_epoch_and_line_decide(kept: Corpus) -> None:
    first = sentences(kept, 4)
    sentences(kept, 5)
    assert sentences(kept, 4) == first
    assert sentences(kept, 5) != first
    assert sentences(kept, 4, seed=1) != first
    # The same pairs come twice in the text, and are sampled each time.
    repeated = first[len(PAIRS) :]
    assert repeated != first[: len(PAIRS) : 2]


def test_blocks_and_their_order_do_not_matter(
    kept: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sentences(kept, 2)
    for size in (1, 7, BLOCK):
        monkeypatch.setattr(train.corpora.sampling, "BLOCK", size)
        pairs = np.arange(len(kept.train))
        blocks = np.array_split(pairs, range(size, len(pairs), size))
        backwards = np.concatenate(blocks[::-1])
        assert sentences(kept, 2) == whole
        assert sentences(kept, 2, pairs=backwards) == [whole[pair] for pair in backwards]


def test_the_number_of_processes_does_not_matter(
    kept: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sentences(kept, 3)
    monkeypatch.setattr(train.corpora.sampling, "BLOCK", BLOCK)
    assert sentences(kept, 3, jobs=2) == expected
    assert not multiprocessing.active_children()  # they end with the sampler


@pytest.mark.usefixtures("small_blocks")
def test_the_next_window_is_sampled_while_this_one_trains(kept: Corpus) -> None:
    """Some blocks of it after each batch, and all of them before its first one."""
    taken: list[int] = []
    made = sampled_batches(kept, block=BLOCK, window=4 * BLOCK, tokens=40)
    sample = made._sample
    assert sample is not None

    def counted(epoch: int, pairs: Indices) -> Iterator[ParallelTokens]:
        for block in sample(epoch, pairs):
            taken.append(len(block))
            yield block

    made._sample = counted
    this, following = (len(made._pairs_in(0, window)) for window in (0, 1))
    sampled = [sum(taken) for _, place in islice(batches_from(made, 0), 20) if not place.window]
    assert sampled[0] == this
    assert this < sampled[1] < this + following
    assert sampled[-1] == this + following


def test_a_stop_does_not_wait_for_a_window(
    kept: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.start(settings(sampling=0.2), kept, Run(tmp_path / "run"))
    sampled = []
    sample = train.corpora.sampling.Sampler.sample

    def stopping(self: Sampler, epoch: int, pairs: Indices) -> Iterator[ParallelTokens]:
        for block in sample(self, epoch, pairs):
            trainer.stop_requested = True
            sampled.append(block)
            yield block

    monkeypatch.setattr(train.corpora.sampling, "BLOCK", BLOCK)
    monkeypatch.setattr(train.corpora.sampling.Sampler, "sample", stopping)
    assert trainer.train().step == 0
    assert len(sampled) == 1


@pytest.mark.usefixtures("small_blocks")
def test_sampled_batches_begin_at_any_place(kept: Corpus) -> None:
    sizes: dict[str, Any] = {"block": BLOCK, "window": 2 * BLOCK, "tokens": 80}
    every = list(islice(batches_from(sampled_batches(kept, **sizes), 1), 40))
    assert {place.epoch for _, place in every} >= {1, 2}
    for k in (0, 7, 20, 31):
        _, place = every[k]
        later = batches_from(sampled_batches(kept, **sizes), place.epoch, place.window, place.batch)
        for (batch, at), (expected, expected_at) in zip(
            islice(later, 8), every[k + 1 :], strict=False
        ):
            assert at == expected_at
            assert as_lists(batch) == as_lists(expected)
            assert max(len(batch.source.tokens), len(batch.target_output.tokens)) <= 80


def test_interrupted_and_repeated_runs_sample_the_same(kept: Corpus, tmp_path: Path) -> None:
    chosen = settings(sampling=0.2)
    start(chosen, kept, tmp_path / "whole")
    stopped_at(4, chosen, kept, tmp_path / "parts")
    Trainer.resume(chosen, kept, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    start(chosen, kept, tmp_path / "again")
    assert_same_run(tmp_path / "again", tmp_path / "whole")
    with pytest.raises(UserError, match=r"sampling is 0\.2 in this run, and cannot become 0\.3"):
        Trainer.resume(settings(sampling=0.3), kept, Run(tmp_path / "parts"))


def test_sampling_needs_the_text(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no text .* --keep-text"):
        Trainer.start(settings(sampling=0.1), corpus, Run(tmp_path / "run"))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_the_strength_is_a_probability(value: float) -> None:
    with pytest.raises(UserError, match="sampling must be 0 to 1"):
        TrainSettings(sampling=value)


def test_a_corpus_with_another_text_is_refused(kept: Corpus) -> None:
    path = kept.directory / "train.target.txt"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Hund", b"Hand"))
    try:
        with pytest.raises(UserError, match=r"train\.target\.txt has been altered"):
            Corpus.open(kept.directory)
    finally:
        path.write_bytes(content)
