"""Sentences, of token ids, translated and scored by a model with its tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from autograd import to_host
from npformer.alignment import AlignmentLayer, check_layer
from npformer.attention_maps import attention_maps
from npformer.batch import Batch, batches_of_similar_length, ended
from npformer.beam import Watch
from npformer.beam_search import search
from npformer.described import described, looked_at, ranked
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.hypotheses import Hypothesis
from npformer.long_lines import DividedLines
from npformer.packed import Packed
from npformer.search_settings import SearchSettings
from npformer.shortlist import Shortlist
from npformer.shortlist_file import load_shortlist
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer
from npformer.translation import Translation


class UntranslatableError(UserError):
    """The model has no translation of a line.

    number: of the line in its text
    """

    def __init__(self, number: int) -> None:
        super().__init__(
            "the model's probabilities are not numbers (NaN), so it has no translation of line "
            f"{number:,}; take an earlier checkpoint"
        )


def source_tokens(batch_tokens: int, beam: int) -> int:
    """The source tokens of a batch whose hypotheses have `batch_tokens` together."""
    return max(1, batch_tokens // beam)


class SentenceTranslator:
    """A model with its tokenizers, and what it finds for sentences that lines are divided into."""

    def __init__(
        self,
        model: Transformer | Ensemble,
        tokenizers: TokenizerPair,
        directory: Path | None = None,
    ) -> None:
        """directory: the model's, where its shortlist is read from when it is first needed."""
        self.model = model
        self.tokenizers = tokenizers
        self.directory = directory

    @cached_property
    def shortlist(self) -> Shortlist:
        """The shortlist in the model's directory. Raises UserError if there is no valid one."""
        if self.directory is None:
            raise UserError("this model has no directory, and so no shortlist")
        return load_shortlist(self.directory, self.tokenizers)

    def search(
        self,
        divided: DividedLines,
        chosen: Sequence[int],
        settings: SearchSettings,
        *,
        shortlist: bool = False,
        watch: Watch | None = None,
    ) -> list[list[Hypothesis]]:
        """The best translations of some of the sentences, in one batch; watch: see `search`.

        A sentence has none if the model's probabilities are not numbers, or it was given up.
        """
        tokenizer = self.tokenizers.target
        sources = Packed.of([divided.sentences[i] for i in chosen])
        prefixes = [divided.prefixes[i] for i in chosen]
        if settings.alternatives > 1:  # some may have the same text
            settings = replace(settings, alternatives=settings.rows)
        return search(
            self.model,
            ended(sources, self.tokenizers.source.end_id),
            settings,
            tokenizer.begin_id,
            tokenizer.end_id,
            prefixes=prefixes if any(prefixes) else None,
            streams=[divided.streams[i] for i in chosen],
            shortlist=self.shortlist if shortlist else None,
            watch=watch,
        )

    def found(
        self,
        divided: DividedLines,
        settings: SearchSettings,
        *,
        chosen: Sequence[int] | None = None,
        shortlist: bool = False,
        batch_tokens: int = 4096,
        attention: bool = False,
        alignment: AlignmentLayer | None = None,
    ) -> Iterator[tuple[int, Translation]]:
        """The index and the translation of each sentence, batch by batch.

        chosen: the indices of those that are translated, if not all. shortlist: whether to choose
        from the tokens of the model's shortlist.
        """
        chosen = range(len(divided.sentences)) if chosen is None else chosen
        if alignment is not None:
            check_layer(alignment, self.model.config)
        target, sentences = self.tokenizers.target, [divided.sentences[i] for i in chosen]
        look = partial(looked_at, self.model, self.tokenizers, alignment=alignment)
        tokens = source_tokens(batch_tokens, settings.rows)
        for batch in batches_of_similar_length(sentences, tokens):
            own = [chosen[i] for i in batch]
            of_batch = self.search(divided, own, settings, shortlist=shortlist)
            for i, hypotheses in zip(batch, of_batch, strict=True):
                if not hypotheses:
                    raise UntranslatableError(divided.numbers[divided.line_of[chosen[i]]])
                best, *others = (
                    look(t, sentences[i], ids, attention=attention and rank == 0)
                    for rank, (t, ids) in enumerate(ranked(hypotheses, target, settings))
                )
                best = replace(best, alternatives=tuple(others))
                yield chosen[i], best

    def best(self, hypotheses: Sequence[Hypothesis], settings: SearchSettings) -> Translation:
        """The translation and its alternatives, of what `search` has found for a sentence."""
        pairs = ranked(hypotheses, self.tokenizers.target, settings)
        best, *others = (translation for translation, _ in pairs)
        return replace(best, alternatives=tuple(others))

    def scored(
        self,
        sources: Sequence[list[int]],
        targets: Sequence[list[int]],
        settings: SearchSettings,
        *,
        attention: bool = False,
        alignment: AlignmentLayer | None = None,
    ) -> list[Translation]:
        """As `Translator.score`, of token ids without begin and end."""
        if alignment is not None:
            check_layer(alignment, self.model.config)
        look = partial(
            looked_at, self.model, self.tokenizers, attention=attention, alignment=alignment
        )
        found = []
        for source, target in zip(sources, targets, strict=True):
            batch = Batch.of([source], [target], **self.tokenizers.control_ids)
            log_p = to_host(self.model.target_log_p(batch)).astype(np.float64).tolist()
            score = sum(log_p) / settings.divisor(len(log_p))
            if beta := settings.coverage_penalty:
                score += attention_maps(self.model, batch)[0].coverage_penalty(beta)
            translation = described(Hypothesis(target, score, log_p), self.tokenizers.target)
            found.append(look(translation, source, target))
        return found
