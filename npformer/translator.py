"""The library's face: text in, text out."""

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
from npformer.parts import THE_PAPERS, Parts
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer


@dataclass(frozen=True)
class Translation:
    """A translated line.

    `score` is log P over the length penalty, `alternatives` are the next best translations (where
    more than one was asked for). With attention asked for, `attention` has the weights,
    `source_pieces` are the tokens attended to, `target_pieces` those that the decoder reads, and
    `predicted_pieces` those that it predicts from them.
    """

    text: str
    score: float
    alternatives: tuple[Translation, ...] = ()
    attention: AttentionMaps | None = None
    source_pieces: tuple[str, ...] = ()
    target_pieces: tuple[str, ...] = ()
    predicted_pieces: tuple[str, ...] = ()


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
        parts: Parts = THE_PAPERS,
    ) -> Translator:
        """Read a model directory, onto a backend (the one in use unless given).

        `parts` are what the model was built of, where those were not the paper's.
        Raises UserError where it is incomplete or damaged, and BackendError where the backend, or
        the precision "bf16" there, cannot be used.
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
                    f"{size}; the files are not of one model"
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
        """The translation of each line, in order; an empty or blank line gives an empty one.

        `settings` are the fields of SearchSettings: beam=4, length_penalty=0.6, penalty="gnmt",
        extra_length=50, alternatives=1. Lines are translated in batches of similar length, of about
        `batch_tokens` source tokens times beam; `progress` is called with the number of lines done.
        """
        if isinstance(lines, str):
            raise TypeError("translate takes a list of lines; this is a single string")
        chosen = SearchSettings(**settings)
        sources = self.tokenizers.source.encode_lines(list(lines))
        results = [Translation("", 0.0)] * len(sources)
        if progress:
            progress(sum(not source for source in sources))
        for batch in batches_of_similar_length(sources, max(1, batch_tokens // chosen.beam)):
            found = self._search([sources[i] for i in batch], chosen)
            for i, hypotheses in zip(batch, found, strict=True):
                if not hypotheses:
                    raise UserError(
                        "the model's probabilities are not numbers (NaN), so it has no translation "
                        f"of line {i + 1}; take an earlier checkpoint"
                    )
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
        """The translation with the weights that produced it."""
        begin, end = self.tokenizers.target.begin_id, self.tokenizers.source.end_id
        batch = Batch.of([source], [hypothesis.ids], begin_id=begin, end_id=end)
        return replace(
            translation,
            attention=attention_maps(self.model, batch)[0],
            source_pieces=tuple(self.tokenizers.source.pieces(batch.source.tokens)),
            target_pieces=tuple(self.tokenizers.target.pieces(batch.target_input.tokens)),
            predicted_pieces=tuple(self.tokenizers.target.pieces(batch.target_output.tokens)),
        )
