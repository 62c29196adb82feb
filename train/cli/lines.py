"""The subcommands that take text line by line: translate, evaluate, score.

Several ranks share the lines out, of which the first reads them, and writes what becomes of them.
A process alone goes the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npformer.batch import Batch
from npformer.beam_search import SearchSettings
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.translator import Translator
from train.cli.display import counting
from train.cli.rank_output import output_of
from train.cli.streams import drop_output, input_bytes, require_output
from train.corpora.text import decode_lines, open_text, read_both
from train.evaluation import Likelihood, bleu, check_tokenizer, chrf, joined, likelihood, ter
from train.ranks.lines import in_order, shared_batches, shared_sentences, translated
from train.ranks.ranks import Ranks
from train.ranks.world import world

if TYPE_CHECKING:
    from jsonargparse import Namespace

_LINES_AT_A_TIME = 10_000  # lines of a stream that are sorted into batches of similar length
_TOKENS_SCORED_TOGETHER = 4096
_PAIRS_AT_A_TIME = 100  # for each of several ranks; their scores are then printed


def translate(options: Namespace) -> None:
    with _ranks(options) as ranks:
        lines: Iterator[str] = iter(())
        with ranks.together():
            settings = _search_settings(options)
            if ranks.is_first:
                require_output("translate")
                lines = _lines(options.source)
            translator = _load(options)
        for before in count(0, _LINES_AT_A_TIME):
            chunk = ranks.on_first(lambda: list(islice(lines, _LINES_AT_A_TIME)))
            if not chunk or not _is_written(
                _translated(translator, chunk, ranks, before, settings), ranks
            ):
                return


def evaluate(options: Namespace) -> None:
    with _ranks(options) as ranks:
        ranks.on_first(lambda: _check_evaluation(options))
        with ranks.together():
            settings = _search_settings(options)
            translator = _load(options)
        sources, references = ranks.on_first(lambda: read_both(options.source, options.reference))
        found = _likelihood(translator, sources, references, ranks)
        texts = _translated(translator, sources, ranks, 0, settings)
        scores = ranks.on_first(lambda: _scores(options, texts, references))
        if ranks.is_first:
            about = "per subword, unsmoothed, of the references"
            print(f"perplexity = {found.perplexity:.3f}  {about}")
            for line in scores:
                print(line)


def score(options: Namespace) -> None:
    with _ranks(options) as ranks:
        ranks.on_first(lambda: require_output("score"))
        with ranks.together():
            translator = _load(options)
        sources, targets = ranks.on_first(lambda: read_both(options.source, options.target))
        at_a_time = 1 if ranks.size == 1 else _PAIRS_AT_A_TIME * ranks.size
        for begin in range(0, len(sources), at_a_time):
            chosen = slice(begin, begin + at_a_time)
            lines = _scored(translator, sources[chosen], targets[chosen], ranks)
            if not _is_written(lines, ranks):
                return


@contextmanager
def _ranks(options: Namespace) -> Iterator[Ranks]:
    """The processes that share the work out. The first alone is heard."""
    ranks = world()
    with output_of(ranks):
        ranks.choose_device(options.backend)
        yield ranks


def _load(options: Namespace) -> Translator:
    return Translator.load(options.model, options.backend, options.precision)


def _search_settings(options: Namespace) -> dict[str, Any]:
    """The settings of the search, validated."""
    chosen = {name: options[name] for name in ("beam", "length_penalty", "penalty", "extra_length")}
    try:
        SearchSettings(**chosen)
    except ValueError as error:
        raise UserError(str(error)) from error
    if options.batch_tokens < 1:
        raise UserError(f"batch_tokens must be at least 1; it is {options.batch_tokens}")
    return {**chosen, "batch_tokens": options.batch_tokens}


def _lines(source: Path | None) -> Iterator[str]:
    """The lines of a file, which may be compressed, or else of standard input."""
    if source is None:
        return decode_lines(input_bytes("translate"), "standard input")

    def lines_of_file() -> Iterator[str]:
        with open_text(source) as file:
            yield from decode_lines(file, str(source))

    return lines_of_file()


def _translated(
    translator: Translator,
    lines: Sequence[str],
    ranks: Ranks,
    before: int,
    settings: dict[str, Any],
) -> list[str]:
    """The translations of lines, of which `before` others have come before."""
    if not ranks.is_first:
        return translated(translator, lines, ranks, before=before, **settings)
    with counting("translated", len(lines)) as advance:
        return translated(translator, lines, ranks, before=before, progress=advance, **settings)


def _is_written(lines: Sequence[str], ranks: Ranks) -> bool:
    """Write lines to the first rank's standard output; returns whether somebody reads it."""

    def write() -> bool:
        try:
            for line in lines:
                sys.stdout.buffer.write(line.encode() + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the reader has closed the pipe, as `head` does
            drop_output()
            return False
        except OSError as error:
            drop_output()
            raise UserError(f"cannot write standard output: {error.strerror}") from error
        return True

    return ranks.on_first(write)


def _check_evaluation(options: Namespace) -> None:
    """Raise UserError for what would make an evaluation come to nothing in the end."""
    _check_output(options)
    require_output("evaluate")
    if "bleu" in options.metrics:
        check_tokenizer(options.tokenize)


def _check_output(options: Namespace) -> None:
    """Raise UserError if the output would overwrite an input."""
    output = options.output
    if output is None or not output.exists():
        return
    if output.is_dir():
        raise UserError(f"{output} is a directory; give --output the name of a file")
    inputs = [options.source, options.reference, *options.model.glob("*")]
    if any(path.exists() and output.samefile(path) for path in inputs):
        raise UserError(f"{output} is what is evaluated; give another --output")


def _scores(options: Namespace, texts: list[str], references: list[str]) -> list[str]:
    """The chosen scores as lines of text, BLEU last, after the translations are written."""
    if options.output:
        with atomic_write(options.output) as file:
            file.writelines(text.encode() + b"\n" for text in texts)
    scores = [
        score(texts, references, options.lowercase)
        for metric, score in (("ter", ter), ("chrf", chrf))
        if metric in options.metrics
    ]
    if "bleu" in options.metrics:
        scores.append(bleu(texts, references, options.tokenize, options.lowercase))
    return [str(score) for score in scores]


def _likelihood(
    translator: Translator, sources: list[str], targets: list[str], ranks: Ranks
) -> Likelihood:
    """The loss of the model on the given translations, of which each rank takes a share."""
    pairs = _Pairs(translator, sources, targets)
    # With the end token, even two empty lines are a pair of one token each.
    together = [(*s, *t, 0) for s, t in zip(pairs.source_ids, pairs.target_ids, strict=True)]
    chosen = shared_batches(together, _TOKENS_SCORED_TOGETHER, ranks.size)[ranks.rank]
    with ranks.together():
        own = likelihood(translator.model, map(pairs.batch, chosen))
    return joined(ranks.all(own))


def _scored(
    translator: Translator, sources: list[str], targets: list[str], ranks: Ranks
) -> list[str]:
    """A line for each pair: its log probability and its perplexity, alone."""
    # What goes on together is a single pair, whose length in characters will do.
    together = [f"{s}\n{t}" for s, t in zip(sources, targets, strict=True)]
    shares = shared_sentences(together, 1, ranks.size)
    own = shares[ranks.rank]
    lines = []
    with ranks.together():
        pairs = _Pairs(translator, [sources[i] for i in own], [targets[i] for i in own])
        for i in range(len(own)):
            found = likelihood(translator.model, [pairs.batch([i])])
            lines.append(f"{-found.nll_sum:.4f}\t{found.perplexity:.3f}")
    return in_order(shares, ranks.all(lines), len(sources), "")


class _Pairs:
    """Pairs of lines as token ids."""

    def __init__(self, translator: Translator, sources: list[str], targets: list[str]) -> None:
        self._tokenizers = translator.tokenizers
        self.source_ids = self._tokenizers.source.encode_lines(sources)
        self.target_ids = self._tokenizers.target.encode_lines(targets)

    def batch(self, indices: Sequence[int]) -> Batch:
        target = self._tokenizers.target
        return Batch.of(
            [self.source_ids[i] for i in indices],
            [self.target_ids[i] for i in indices],
            begin_id=target.begin_id,
            end_id=target.end_id,
        )
