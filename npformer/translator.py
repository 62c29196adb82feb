"""The Translator: text in, text out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autograd.backend import current
from npformer.attention_maps import AttentionMaps, attention_maps
from npformer.batch import Batch, batches_of_similar_length, ended
from npformer.beam_search import SearchSettings, search
from npformer.checkpoint import load_model, load_tokenizers
from npformer.errors import UserError
from npformer.hypotheses import Hypothesis
from npformer.packed import Packed
from npformer.parts import PAPER_PARTS, Parts
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer


@dataclass(frozen=True)
class Translation:
    """The translation of a line.

    Attributes:
        text: the translation
        score: log P divided by the length penalty
        alternatives: the next best translations, if more than one was asked for
        attention: the attention weights, if they were asked for; the other fields go with them
        source_pieces: the pieces of the source
        target_pieces: the pieces that the decoder reads
        predicted_pieces: the pieces that it predicts from each of these
    """

    text: str
    score: float
    alternatives: tuple[Translation, ...] = ()
    attention: AttentionMaps | None = None
    source_pieces: tuple[str, ...] = ()
    target_pieces: tuple[str, ...] = ()
    predicted_pieces: tuple[str, ...] = ()


class UntranslatableError(UserError):
    """The model has no translation of a line.

    line: its index
    """

    def __init__(self, line: int) -> None:
        super().__init__(
            "the model's probabilities are not numbers (NaN), so it has no translation of line "
            f"{line + 1:,}; take an earlier checkpoint"
        )
        self.line = line


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
        progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[Translation]:
        """The translation of each line, in order. The translation of a blank line is empty.

        settings: the fields of SearchSettings: beam=4, length_penalty=0.6, penalty="gnmt",
        extra_length=50, alternatives=1. Lines of similar length are translated together, in
        batches of about batch_tokens / beam source tokens. `progress` is called after each batch
        with its number of lines. With `attention`, the attention weights are computed too. Raises
        UntranslatableError for a line that the model gives no probability.
        """
        if isinstance(lines, str):
            raise TypeError("translate takes a list of lines, got a single string")
        chosen = SearchSettings(**settings)
        sources = self.tokenizers.source.encode_lines(list(lines))
        results = [Translation("", 0.0)] * len(sources)
        if progress:
            progress(sum(not source for source in sources))
        tokens = source_tokens(batch_tokens, chosen.beam)
        for batch in batches_of_similar_length(sources, tokens):
            found = self._search([sources[i] for i in batch], chosen)
            for i, hypotheses in zip(batch, found, strict=True):
                if not hypotheses:
                    raise UntranslatableError(i)
                best, *others = (self._translation(h) for h in hypotheses)
                results[i] = replace(best, alternatives=tuple(others))
                if attention:
                    results[i] = self._with_attention(results[i], sources[i], hypotheses[0])
            if progress:
                progress(len(batch))
        return results

    def _search(self, sources: list[list[int]], settings: SearchSettings) -> list[list[Hypothesis]]:
        tokenizer = self.tokenizers.target
        packed = ended(Packed.of(sources), self.tokenizers.source.end_id)
        return search(self.model, packed, settings, tokenizer.begin_id, tokenizer.end_id)

    def _translation(self, hypothesis: Hypothesis) -> Translation:
        return Translation(self.tokenizers.target.decode(hypothesis.ids), hypothesis.score)

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
