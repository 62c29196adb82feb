"""The Translator: text in, text out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

from autograd.backend import current
from npformer.alignment import AlignmentLayer
from npformer.checkpoint import load_model, load_tokenizers
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.long_lines import DividedLines, LongLines, divide
from npformer.parts import PAPER_PARTS, Parts
from npformer.search_settings import SearchSettings
from npformer.sentence_translator import SentenceTranslator
from npformer.transformer import Weights
from npformer.translation import Translation


class Translator(SentenceTranslator):
    """A model with its tokenizers.

    Translator.load("model/").translate(["A dog runs."], beam=4)[0].text
    """

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        backend: str | None = None,
        precision: str = "float32",
        parts: Parts = PAPER_PARTS,
        weights: Weights = "float32",
    ) -> Translator:
        """Load a model directory onto a backend, by default the current one.

        parts: what the model was built from, if not from the paper's. weights: "int8" to hold its
        matrices in 8 bits, on a CPU; see `Transformer.quantize`. Raises UserError if the directory
        is incomplete or damaged, and BackendError if the backend, or the precision "bf16" or
        weights in 8 bits on it, are not available.
        """
        if weights not in get_args(Weights):
            raise ValueError(f"weights must be 'float32' or 'int8', got {weights!r:.40}")
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
        model = model.to(backend or current().name, precision)
        return cls(model.quantize() if weights == "int8" else model, tokenizers, path)

    @classmethod
    def ensemble(
        cls,
        directories: Sequence[str | os.PathLike[str]],
        ensemble_weights: Sequence[float] | None = None,
        backend: str | None = None,
        precision: str = "float32",
        weights: Weights = "float32",
    ) -> Translator:
        """Load models that share a vocabulary, to translate by the mean of their probabilities.

        ensemble_weights: of the mean, by default the same for each. weights: as for `load`, of all.
        A shortlist is that of the first. Raises UserError as `load` does, and if the models'
        tokenizers differ, or for invalid weights of the mean.
        """
        first, *others = (
            cls.load(path, backend, precision, weights=weights) for path in directories
        )
        for path, other in zip(directories[1:], others, strict=True):
            if other.tokenizers.sha256 != first.tokenizers.sha256:
                raise UserError(
                    f"{path} has another vocabulary than {directories[0]}; models translate "
                    "together only if they were trained with the same"
                )
        models: list[Any] = [translator.model for translator in (first, *others)]
        try:
            return cls(Ensemble(models, ensemble_weights), first.tokenizers, first.directory)
        except ValueError as error:
            raise UserError(str(error)) from error

    def translate(
        self,
        lines: Sequence[str],
        *,
        shortlist: bool = False,
        batch_tokens: int = 4096,
        attention: bool = False,
        alignment: AlignmentLayer | None = None,
        long_lines: LongLines = "split",
        longest: int | None = None,
        prefixes: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[Translation]:
        """The translation of each line, in order. The translation of a blank line is empty.

        settings: the fields of SearchSettings: beam=4, length_penalty=0.6, penalty="gnmt",
        extra_length=50, alternatives=1 ... Alternatives have different texts. Lines of similar
        length are translated together, in batches of about batch_tokens / beam source tokens.
        shortlist: choose from the tokens that the model's shortlist has for each sentence, which is
        faster. long_lines: what to do with lines of more than `longest` tokens, by default
        `longest_source`: "split" them at the ends of sentences, "cut" or "skip" them, which is
        noted in the translation, or "refuse" them. prefixes: for each line the text that its
        translation begins with, which may be empty. `progress` is called with the number of lines
        that have become complete. With `attention`, the attention weights are computed too.
        alignment: align the words of each translation with those of its source, by the attention of
        a decoder layer, counted from 1, of the one that is best by experience ("auto"), or of the
        "mean" of all. Raises UntranslatableError for a line that the model gives no probability,
        and UserError for one that is refused.

        Several threads may translate at the same time.
        """
        if isinstance(lines, str):
            raise TypeError("translate takes a list of lines, got a single string")
        chosen = SearchSettings(**settings)
        numbers = range(1, len(lines) + 1)
        divided = self.divide(list(lines), numbers, long_lines, prefixes, longest)
        if divided.refusal:
            raise divided.refusal
        found = self.found(
            divided,
            chosen,
            shortlist=shortlist,
            batch_tokens=batch_tokens,
            attention=attention,
            alignment=alignment,
        )
        return list(chain.from_iterable(divided.translations(found, progress)))

    def translate_lines(
        self,
        lines: Iterable[str],
        *,
        lines_at_a_time: int = 1000,
        shortlist: bool = False,
        batch_tokens: int = 4096,
        attention: bool = False,
        alignment: AlignmentLayer | None = None,
        long_lines: LongLines = "split",
        longest: int | None = None,
        prefixes: Iterable[str] | None = None,
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
            None if prefixes is None else iter(prefixes),
            lines_at_a_time,
            partial(self.divide, long_lines=long_lines, longest=longest),
            chosen,
            shortlist=shortlist,
            batch_tokens=batch_tokens,
            attention=attention,
            alignment=alignment,
        )

    def _stream(
        self,
        lines: Iterator[str],
        prefixes: Iterator[str] | None,
        lines_at_a_time: int,
        divided_lines: Callable[..., DividedLines],
        settings: SearchSettings,
        **options: Any,
    ) -> Iterator[Translation]:
        first = 1
        while some := list(islice(lines, lines_at_a_time)):
            given = None if prefixes is None else list(islice(prefixes, len(some)))
            divided = divided_lines(some, range(first, first + len(some)), prefixes=given)
            found = self.found(divided, settings, **options)
            yield from chain.from_iterable(divided.translations(found))
            if divided.refusal:
                raise divided.refusal
            first += len(some)

    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        attention: bool = False,
        alignment: AlignmentLayer | None = None,
        **settings: Any,
    ) -> list[Translation]:
        """Given translations of lines, with the scores that `translate` would give them, in order.

        settings: those of SearchSettings that are of the score. Raises ValueError if the numbers of
        lines differ.
        """
        if isinstance(sources, str) or isinstance(targets, str):
            raise TypeError("score takes lists of lines, got a single string")
        source_ids = self.tokenizers.source.encode_lines(list(sources))
        target_ids = self.tokenizers.target.encode_lines(list(targets))
        return self.scored(
            source_ids,
            target_ids,
            SearchSettings(**settings),
            attention=attention,
            alignment=alignment,
        )

    @property
    def longest_source(self) -> int:
        """The most source tokens that are translated together, without the end."""
        return self.model.config.longest_source

    def divide(
        self,
        lines: Sequence[str],
        numbers: Sequence[int],
        long_lines: LongLines,
        prefixes: Sequence[str] | None = None,
        longest: int | None = None,
    ) -> DividedLines:
        """The sentences of lines, which `found` translates. numbers: of the lines, for messages.

        prefixes: for each line the text that its translation begins with. longest: the most tokens
        of a sentence, in place of `longest_source`. Raises UserError if the model has not learned
        so many positions.
        """
        longest = self.longest_source if longest is None else longest
        config = self.model.config
        if longest < 1:
            raise UserError(f"longest must be at least 1; it is {longest}")
        if config.positions == "learned" and longest >= config.max_length:
            raise UserError(
                f"longest is {longest:,}, and the model has learned {config.max_length:,} "
                "positions, of which the end takes one"
            )
        if isinstance(prefixes, str):
            raise TypeError("prefixes are a list, one for each line; got a single string")
        if prefixes is not None and len(prefixes) != len(lines):
            raise ValueError(
                f"each line needs its prefix, which may be empty; there are {len(lines):,} lines "
                f"and {len(prefixes):,} prefixes"
            )
        given = None if prefixes is None else self.tokenizers.target.encode_lines(prefixes)
        refusal = None
        for i, ids in enumerate(given or ()):
            if fault := self._prefix_fault(ids):
                refusal = UserError(f"the prefix of line {numbers[i]:,} has {fault}")
                lines, numbers, given = lines[:i], numbers[:i], given and given[:i]
                break
        tokenizer = self.tokenizers.source
        divided = divide(lines, numbers, tokenizer, longest, long_lines, given)
        divided.refusal = divided.refusal or refusal
        return divided

    def _prefix_fault(self, ids: Sequence[int]) -> str:
        """Why no translation can begin with these tokens; empty if one can."""
        config = self.model.config
        if never := set(ids) & set(config.suppressed_ids):
            [piece] = self.tokenizers.target.pieces([min(never)])
            return f"the token {piece!r:.40}, which the model never chooses; give another prefix"
        if config.positions == "learned" and len(ids) >= config.max_length:
            return (
                f"{len(ids):,} tokens, and the model has learned {config.max_length:,} positions, "
                "of which the first token after it takes one; shorten it"
            )
        return ""
