"""Validation: loss, scores and a few translations on the validation set."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer
from npformer.translator import Translator
from train.corpora.batches import Batches
from train.corpora.corpus import Corpus
from train.evaluation import bleu, chrf, joined, likelihood
from train.ranks.lines import translated
from train.ranks.ranks import ALONE, Ranks
from train.runs.progress import Position
from train.runs.samples import Sample, chosen_sentences
from train.settings import TrainSettings


@dataclass(frozen=True)
class Validation:
    """Scores on the validation set.

    Attributes:
        bleu, signature, beam: if translations were scored; beam: of their search
        chrf, chrf_signature: if they were, and the best model is chosen by it
        samples: a few sentences and their translations
    """

    step: int
    valid_loss: float
    valid_perplexity: float
    seconds: float
    bleu: float | None = None
    signature: str | None = None
    beam: int | None = None
    chrf: float | None = None
    chrf_signature: str | None = None
    samples: tuple[Sample, ...] = ()

    def score(self, best_by: str) -> float | None:
        """The score of the setting `best_by`; None if this validation has none."""
        scores = {"none": None, "loss": self.valid_loss, "bleu": self.bleu, "chrf": self.chrf}
        return scores[best_by]


def validate(
    model: Transformer,
    corpus: Corpus,
    batches: Batches,
    settings: TrainSettings,
    position: Position,
    with_bleu: bool,
    ranks: Ranks = ALONE,
) -> Validation:
    """Loss and perplexity on the batches of the validation set.

    With `with_bleu` all of it is translated and scored, otherwise only the sentences of the
    setting `samples`. Batches and sentences are shared out over `ranks`.
    """
    own = slice(ranks.rank, None, ranks.size)
    result = joined(ranks.all(likelihood(model, batches.epoch(0)[own])))
    scores: dict[str, float | int | str] = {}
    samples: tuple[Sample, ...] = ()
    if with_bleu or settings.samples:
        sources, references = corpus.valid_text()
        shown = chosen_sentences(settings.samples, len(sources))
        lines = list(range(len(sources))) if with_bleu else shown
        found = translated(
            Translator(model, corpus.tokenizers),
            [sources[i] for i in lines],
            ranks,
            settings=SearchSettings(settings.bleu_beam),
        )
        texts = {i: t.text for i, t in zip(lines, chain.from_iterable(found), strict=True)}
        samples = tuple(Sample(sources[i], references[i], texts[i]) for i in shown)
        if with_bleu:
            score = bleu(list(texts.values()), references, settings.bleu_tokenize)
            scores = {"bleu": score.value, "signature": score.signature, "beam": settings.bleu_beam}
            if settings.best_by == "chrf":
                score = chrf(list(texts.values()), references)
                scores |= {"chrf": score.value, "chrf_signature": score.signature}
    return Validation(
        position.step,
        result.loss,
        result.perplexity,
        position.seconds,
        samples=samples,
        **scores,  # type: ignore[arg-type]
    )
