"""The Translator: text in, text out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from autograd.backend import current
from npformer.attention_maps import attention_maps
from npformer.batch import Batch, batches_of_similar_length, ended
from npformer.beam_search import search
from npformer.checkpoint import load_model, load_tokenizers
from npformer.errors import UserError
from npformer.hypotheses import Hypothesis
from npformer.long_lines import DividedLines, LongLines, divide
from npformer.packed import Packed
from npformer.parts import PAPER_PARTS, Parts
from npformer.search_settings import SearchSettings
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer
from npformer.translation import Translation, distinct


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


class Translator:
    """A model with its tokenizers.

    Translator.load("model/").translate(["A dog runs."], beam=4)[0].text
    """

    def __init__(self, model: Transformer, tokenizers: TokenizerPair) -> None:
        self.model = model
        self.tokenizers = tokenizers

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        backend: str | None = None,
        precision: str = "float32",
        parts: Parts = PAPER_PARTS,
    ) -> Translator:
        """Load a model directory onto a backend, by default the current one.

        parts: what the model was built from, if not from the paper's. Raises UserError if the
        directory is incomplete or damaged, and BackendError if the backend, or the precision
        "bf16" on it, is not available.
        """
        path = Path(directory)
        if not path.is_dir():
            raise UserError(f"there is no model directory {path}")
        model, tokenizers = load_model(path, parts), load_tokenizers(path)
        sizes = (model.config.source_vocab_size or model.config.vocab_size, model.config.vocab_size)
        for side, tokenizer, size in zip(
            ("source", "target"), (tokenizers.source, tokenizers.target), sizes, strict=True
        ):
            if tokenizer.vocab_size != size:
                raise UserError(
                    f"{path}: the {side} tokenizer has {tokenizer.vocab_size} tokens, the model "
                    f"{size}; they do not belong together"
                )
        return cls(model.to(backend or current().name, precision), tokenizers)

    def translate(
        self,
        lines: Sequence[str],
        *,
        batch_tokens: int = 4096,
        attention: bool = False,
        long_lines: LongLines = "split",
        progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[Translation]:
        """The translation of each line, in order. The translation of a blank line is empty.

        settings: the fields of SearchSettings: beam=4, length_penalty=0.6, penalty="gnmt",
        extra_length=50, alternatives=1 ... Alternatives have different texts. Lines of similar
        length are translated together, in batches of about batch_tokens / beam source tokens.
        long_lines: what to do with lines of more than `longest_source` tokens: "split" them at the
        ends of sentences, "cut" or "skip" them, which is noted in the translation, or "refuse"
        them. `progress` is called with the number of lines that have become complete. With
        `attention`, the attention weights are computed too. Raises UntranslatableError for a line
        that the model gives no probability, and UserError for one that is refused.

        Several threads may translate at the same time.
        """
        if isinstance(lines, str):
            raise TypeError("translate takes a list of lines, got a single string")
        chosen = SearchSettings(**settings)
        divided = self.divide(list(lines), range(1, len(lines) + 1), long_lines)
        if divided.refusal:
            raise divided.refusal
        found = self.found(divided, chosen, batch_tokens=batch_tokens, attention=attention)
        return list(chain.from_iterable(divided.translations(found, progress)))

    def translate_lines(
        self,
        lines: Iterable[str],
        *,
        lines_at_a_time: int = 1000,
        batch_tokens: int = 4096,
        attention: bool = False,
        long_lines: LongLines = "split",
        **settings: Any,
    ) -> Iterator[Translation]:
        """The translation of each line of a stream, in order; it may be endless.

        lines_at_a_time: as many are read before any of them is translated, because lines of
        similar length are translated together; with 1, each line is answered before the next is
        read. The rest is as for `translate`; an error comes after the translations of all lines
        before it.
        """
        if isinstance(lines, str):
            raise TypeError("translate_lines takes lines, got a single string")
        chosen = SearchSettings(**settings)
        if lines_at_a_time < 1:
            raise ValueError(f"lines_at_a_time must be at least 1, got {lines_at_a_time}")
        return self._stream(
            iter(lines),
            lines_at_a_time,
            long_lines,
            chosen,
            batch_tokens=batch_tokens,
            attention=attention,
        )

    def _stream(
        self,
        lines: Iterator[str],
        lines_at_a_time: int,
        long_lines: LongLines,
        settings: SearchSettings,
        **options: Any,
    ) -> Iterator[Translation]:
        first = 1
        while some := list(islice(lines, lines_at_a_time)):
            divided = self.divide(some, range(first, first + len(some)), long_lines)
            found = self.found(divided, settings, **options)
            yield from chain.from_iterable(divided.translations(found))
            if divided.refusal:
                raise divided.refusal
            first += len(some)

    @property
    def longest_source(self) -> int:
        """The most source tokens that are translated together, without the end."""
        return self.model.config.max_length - 1

    def divide(
        self, lines: Sequence[str], numbers: Sequence[int], long_lines: LongLines
    ) -> DividedLines:
        """The sentences of lines, which `found` translates. numbers: of the lines, for messages."""
        tokenizer = self.tokenizers.source
        return divide(lines, numbers, tokenizer, self.longest_source, long_lines)

    def found(
        self,
        divided: DividedLines,
        settings: SearchSettings,
        *,
        chosen: Sequence[int] | None = None,
        batch_tokens: int = 4096,
        attention: bool = False,
    ) -> Iterator[tuple[int, Translation]]:
        """The index and the translation of each sentence, batch by batch.

        chosen: the indices of those that are translated, if not all.
        """
        chosen = range(len(divided.sentences)) if chosen is None else chosen
        sentences = [divided.sentences[i] for i in chosen]
        tokens = source_tokens(batch_tokens, settings.beam)
        for batch in batches_of_similar_length(sentences, tokens):
            of_batch = self._search([sentences[i] for i in batch], settings)
            for i, hypotheses in zip(batch, of_batch, strict=True):
                if not hypotheses:
                    raise UntranslatableError(divided.numbers[divided.line_of[chosen[i]]])
                best, *others = distinct([self._translation(h) for h in hypotheses])
                best = replace(best, alternatives=tuple(others[: settings.alternatives - 1]))
                if attention:
                    best = self._with_attention(best, sentences[i], hypotheses[0])
                yield chosen[i], best

    def _search(self, sources: list[list[int]], settings: SearchSettings) -> list[list[Hypothesis]]:
        tokenizer = self.tokenizers.target
        packed = ended(Packed.of(sources), self.tokenizers.source.end_id)
        if settings.alternatives > 1:  # some may have the same text
            settings = replace(settings, alternatives=settings.beam)
        return search(self.model, packed, settings, tokenizer.begin_id, tokenizer.end_id)

    def _translation(self, hypothesis: Hypothesis) -> Translation:
        tokenizer = self.tokenizers.target
        has_ended = len(hypothesis.log_p) > len(hypothesis.ids)
        return Translation(
            tokenizer.decode(hypothesis.ids),
            hypothesis.score,
            tokens=tuple(tokenizer.pieces([*hypothesis.ids, *[tokenizer.end_id] * has_ended])),
            token_log_p=tuple(hypothesis.log_p),
        )

    def _with_attention(
        self, translation: Translation, source: list[int], hypothesis: Hypothesis
    ) -> Translation:
        """The translation with its attention weights."""
        begin, end = self.tokenizers.target.begin_id, self.tokenizers.source.end_id
        batch = Batch.of([source], [hypothesis.ids], begin_id=begin, end_id=end)
        return replace(
            translation,
            attention=attention_maps(self.model, batch)[0],
            source_pieces=tuple(self.tokenizers.source.pieces(batch.source.tokens)),
            target_pieces=tuple(self.tokenizers.target.pieces(batch.target_input.tokens)),
            predicted_pieces=tuple(self.tokenizers.target.pieces(batch.target_output.tokens)),
        )
