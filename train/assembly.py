"""Puts together what a run trains with: the model, its optimizer, its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.parts import Parts
from npformer.transformer import Transformer
from train.corpora.batches import Batches, Indices
from train.corpora.corpus import Corpus
from train.corpora.sampling import Sampler
from train.corpora.sentences import ParallelTokens
from train.optimizer import MakeOptimizer, Optimizer
from train.placing import check_training_memory, placed
from train.settings import TrainSettings
from train.step import Interrupted


class Assembly(NamedTuple):
    """A model on its backend with its optimizer, and the batches of both splits of a corpus."""

    model: Transformer
    optimizer: Optimizer
    batches: Batches
    valid_batches: Batches


def assemble(
    settings: TrainSettings,
    corpus: Corpus,
    parts: Parts,
    optimizer: MakeOptimizer,
    jobs: int,
    gives_up: Callable[[], bool],
) -> Assembly:
    """An untrained model, and what trains it.

    jobs, gives_up: of `training_batches`

    Raises UserError if the sentences are too long for the model or for a batch, or the model too
    large for the machine.
    """
    config = configuration(settings, corpus)
    longest = 1 + max(
        length for part in (corpus.train, corpus.valid) for length, _ in part.longest.values()
    )
    if config.positions == "learned" and longest > config.max_length:
        raise UserError(
            f"{corpus.directory} has sentences of up to {longest} tokens, and the model learns "
            f"{config.max_length} positions; raise model.max_length"
        )
    check_training_memory(Transformer(config, parts=parts, allocate=False), settings)
    model = Transformer(config, seed=settings.seed, parts=parts)
    made = placed(model, settings, optimizer)
    batches = training_batches(settings, corpus, jobs, gives_up)
    if settings.bleu_every or settings.samples:
        corpus.valid_text()  # now, while the corpus is surely the one that was opened
    valid_batches = Batches(
        corpus.valid,
        tokens=settings.batch_tokens,
        split="validation",
        **corpus.tokenizers.control_ids,
    )
    return Assembly(model, made, batches, valid_batches)


def configuration(settings: TrainSettings, corpus: Corpus) -> TransformerConfig:
    """The model's configuration, for these settings and the vocabularies of this corpus."""
    tokenizers = corpus.tokenizers
    return settings.transformer_config(
        tokenizers.target.vocab_size,
        None if tokenizers.shared else tokenizers.source.vocab_size,
        corpus.longest_source,
    )


def training_batches(
    settings: TrainSettings,
    corpus: Corpus,
    jobs: int = 1,
    gives_up: Callable[[], bool] = lambda: False,
) -> Batches:
    """The batches of the training pairs, in segmentations of their own if that is set.

    jobs: processes that segment text. gives_up: is asked meanwhile, and ends it by Interrupted.
    """

    def sample(epoch: int, pairs: Indices) -> Iterator[ParallelTokens]:
        for block in sampler.sample(epoch, pairs):
            if gives_up():
                raise Interrupted
            yield block

    if settings.sampling:
        texts, strength = corpus.train_text(), settings.sampling
        sampler = Sampler(corpus.train, texts, corpus.tokenizers, strength, settings.seed, jobs)
    return Batches(
        corpus.train,
        tokens=settings.batch_tokens,
        seed=settings.seed,
        sample=sample if settings.sampling else None,
        **corpus.tokenizers.control_ids,
    )
