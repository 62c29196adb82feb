"""Figures 3 to 5: what heads attend to, drawn as in the paper, counted, and taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from npformer.batch import Batch
from npformer.errors import UserError
from npformer.transformer import Transformer
from npformer.translator import Translator
from train.corpora.text import read_both
from train.evaluation import bleu, likelihood
from train.experiments.experiment import Experiment
from train.experiments.figures_page import page
from train.experiments.grammar_model import batches_of, grammar_model, scaled_down
from train.experiments.head_examples import far_example, reference_example
from train.experiments.heads import KINDS, Head, statistics, without
from train.experiments.measurements import Measurements
from train.experiments.page import Page
from train.grammar import Pair, Splits

_POINTS = 6  # numbers of heads that are left, at which the model translates


@dataclass(frozen=True)
class Settings:
    """What the heads of a model do: of a model of the user's, or of one trained here."""

    model: Annotated[Path | None, "directory of a model; without it one of the grammar is trained"]
    source: Annotated[Path | None, "with --model: sentences to look at, one a line"]
    target: Annotated[Path | None, "with --model: their translations, for the cost of pruning"]
    sentences: Annotated[int, "how many sentences are looked at"]
    longest: Annotated[int, "tokens of a sentence that is drawn, at most"]
    pairs: Annotated[int, "of the generated grammar, to train on"]
    steps: Annotated[int, "of training"]
    seed: Annotated[int, "of training"]


@dataclass(frozen=True)
class Subject:
    """The model that is looked at, with sentences and their translations."""

    name: str
    translator: Translator
    sources: list[str]
    targets: list[str]
    splits: Splits | None  # of the grammar, whose sentences have known relations

    @property
    def model(self) -> Transformer:
        assert isinstance(self.translator.model, Transformer)
        return self.translator.model

    def batches(self) -> list[Batch]:
        """The sentences with their translations, in batches."""
        pairs = [Pair(*both) for both in zip(self.sources, self.targets, strict=True)]
        return batches_of(self.translator.tokenizers, pairs)


def measure(settings: Settings, found: Measurements) -> Page:
    """Measure what the heads do, and what the model loses without them."""
    for name in ("sentences", "longest"):
        if (value := getattr(settings, name)) < 1:
            raise UserError(f"--{name} must be at least 1; it is {value}")
    subject = _subject(settings, found)
    translations = subject.translator.translate(subject.sources, attention=True, beam=1)
    for text, translation in zip(subject.sources, translations, strict=True):
        if translation.attention is None:
            raise UserError(
                f"a sentence of --source is longer than the {subject.translator.longest_source} "
                f"tokens that the model reads at a time, and is translated in parts: {text[:40]!r} "
                "...; leave it out"
            )
    habits = found.of(
        "statistics", lambda: {k: v.tolist() for k, v in statistics(translations).items()}
    )
    heads = [
        Head(kind, layer, index)
        for kind in KINDS
        for layer, index in np.ndindex(*np.shape(habits[kind])[:2])
    ]
    costs = found.of("each head pruned", lambda: _costs(subject, heads))
    pruned = found.of("heads pruned one by one", lambda: _pruned(subject, heads, costs["without"]))
    drawn = (translations, subject.sources, subject.splits, settings.longest)
    return page(
        subject.name,
        len(subject.sources),
        {kind: np.array(habits[kind]) for kind in KINDS},
        costs,
        pruned,
        far_example(*drawn),
        reference_example(*drawn),
        None if settings.model else scaled_down(settings.pairs, settings.steps),
    )


def _subject(settings: Settings, found: Measurements) -> Subject:
    if settings.model is None:
        if settings.source or settings.target:
            raise UserError("--source and --target belong to a --model of yours; give it too")
        made = grammar_model(found, settings.pairs, settings.steps, settings.seed)
        test = made.splits.test[: settings.sentences]
        name = (
            f"a model of {made.score['parameters']:,} parameters of the generated grammar, English "
            "to German"
        )
        sources, targets = [pair.source for pair in test], [pair.target for pair in test]
        return Subject(name, made.translator, sources, targets, made.splits)
    if settings.source is None or settings.target is None:
        raise UserError("--model needs --source and --target, sentences and their translations")
    both = read_both(settings.source, settings.target)
    pairs = [pair for pair in zip(*both, strict=True) if all(map(str.strip, pair))]
    pairs = pairs[: settings.sentences]
    if not pairs:
        raise UserError(f"{settings.source} has no sentence with a translation")
    translator = Translator.load(settings.model)
    sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Subject(f"`{settings.model}`", translator, sources, targets, None)


def _costs(subject: Subject, heads: Sequence[Head]) -> dict[str, Any]:
    """Perplexity a token of the references, with all heads and without each of them."""
    batches, model = subject.batches(), subject.model
    costs = {}
    for head in heads:
        with without(model, [head]):
            costs[str(head)] = likelihood(model, batches).perplexity
    return {"all": likelihood(model, batches).perplexity, "without": costs}


def _pruned(
    subject: Subject, heads: Sequence[Head], costs: Mapping[str, float]
) -> list[dict[str, float]]:
    """What the model can do with fewer and fewer heads: those that cost least go first."""
    batches, model = subject.batches(), subject.model
    order = sorted(heads, key=lambda head: costs[str(head)])
    translated = {round(share * len(heads)) for share in np.linspace(0, 1, _POINTS)}
    found = []
    for gone in range(len(heads) + 1):
        with without(model, order[:gone]):
            point: dict[str, float] = {
                "heads": len(heads) - gone,
                "perplexity": likelihood(model, batches).perplexity,
            }
            if gone in translated:
                texts = [t.text for t in subject.translator.translate(subject.sources)]
                point["bleu"] = bleu(texts, subject.targets).value
        found.append(point)
    return found


EXPERIMENT = Experiment(
    "figures",
    {
        "toy": Settings(None, None, None, 10, 30, 400, 20, 1),
        "small": Settings(None, None, None, 500, 18, 40_000, 3600, 1),
    },
    measure,
)
