"""The subcommands that take text line by line: translate, evaluate, score.

Several ranks share the lines out, of which the first reads them, and writes what becomes of them.
A process alone goes the same way.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npformer.alignment import AlignmentLayer, check_layer
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.search_settings import SearchSettings
from npformer.translation import Translation
from npformer.translator import Translator
from train.cli.arrivals import ArrivingLines, chunks
from train.cli.display import counting
from train.cli.pairs import Pairs, likelihood_of, scored
from train.cli.rank_output import output_of
from train.cli.streams import drop_output, input_bytes, require_output
from train.cli.translations import written
from train.corpora.text import decode_lines, open_text, read_both, read_lines
from train.evaluation import bleu, check_tokenizer, chrf, ter
from train.ranks.alike import check_same_facts, checksum
from train.ranks.lines import translated
from train.ranks.ranks import Ranks
from train.ranks.world import world

if TYPE_CHECKING:
    from jsonargparse import Namespace

logger = logging.getLogger("npformer")

_LINES_AT_A_TIME = 10_000  # lines of a stream that are sorted into batches of similar length
_PAIRS_AT_A_TIME = 100  # for each of several ranks; their scores are then printed

# Options that may differ from host to host.
_PATHS = {"model", "ensemble", "source", "target", "reference", "output", "prefixes"}

# What evaluate does to pairs for the perplexity: they cannot be split.
_FOR_PAIRS: dict[str, Any] = {"split": "skip", "cut": "cut", "skip": "skip", "refuse": "refuse"}


def translate(options: Namespace) -> None:
    with _ranks(options) as ranks:
        arriving: Iterator[tuple[list[str], list[str] | None]] = iter(())
        with ranks.together():
            settings = _search_settings(options)
            if ranks.is_first:
                require_output("translate")
                arriving = _with_prefixes(_arriving(options), options.prefixes)
        translator = _load(options, ranks)
        with ranks.together():
            layer = _layer(options.alignment, translator)
        before = 0
        while found := ranks.on_first(lambda: next(arriving, None)):
            chunk, prefixes = found
            first = before + 1
            given = {**settings, "prefixes": prefixes, "alignment": layer}
            for some in _translated(translator, chunk, ranks, before, given):
                numbered = list(enumerate(some, start=first))
                first += len(some)
                _warn([f"line {number:,} {t.note}" for number, t in numbered if t.note], ranks)
                text = "".join(
                    written(t, number, options.format, options.n_best, layer is not None)
                    for number, t in numbered
                )
                if not _is_written(text, ranks):
                    return
            before += len(chunk)


def evaluate(options: Namespace) -> None:
    with _ranks(options) as ranks:
        ranks.on_first(lambda: _check_evaluation(options))
        with ranks.together():
            settings = _search_settings(options)
        translator = _load(options, ranks)
        sources, references = ranks.on_first(lambda: read_both(options.source, options.reference))
        prefixes = ranks.on_first(lambda: _all_prefixes(options.prefixes, sources))
        with ranks.together():
            pairs = Pairs(translator, sources, references, _FOR_PAIRS[options.long_lines])
            if pairs.refusal:
                raise pairs.refusal
        _warn(pairs.notes, ranks)
        found = likelihood_of(translator, pairs, ranks)
        given = {**settings, "prefixes": prefixes}
        some = _translated(translator, sources, ranks, 0, given)
        translations = list(chain.from_iterable(some))
        notes = [f"line {i:,} {t.note}" for i, t in enumerate(translations, start=1) if t.note]
        _warn(notes, ranks)
        texts = [translation.text for translation in translations]
        scores = ranks.on_first(lambda: _scores(options, texts, references))
        if ranks.is_first:
            about = "per subword, unsmoothed, of the references"
            print(f"perplexity = {found.perplexity:.3f}  {about}")
            for line in scores:
                print(line)


def score(options: Namespace) -> None:
    is_plain = options.format == "text"
    with _ranks(options) as ranks:
        with ranks.together():
            settings = _chosen(options)
            if is_plain and options.alignment is not None:
                raise UserError("the text of score has no alignment; choose --format tsv or json")
            if ranks.is_first:
                require_output("score")
        translator = _load(options, ranks)
        with ranks.together():
            layer = _layer(options.alignment, translator)
        sources, targets = ranks.on_first(lambda: read_both(options.source, options.target))
        at_a_time = 1 if ranks.size == 1 else _PAIRS_AT_A_TIME * ranks.size
        for begin in range(0, len(sources), at_a_time):
            chosen = slice(begin, begin + at_a_time)
            pairs = Pairs(
                translator, sources[chosen], targets[chosen], options.long_lines, begin + 1
            )
            _warn(pairs.notes, ranks)

            def describe(i: int, source: list[int], target: list[int], first: int = begin) -> str:
                [found] = translator.scored([source], [target], settings, alignment=layer)
                text = written(found, first + i + 1, options.format, 1, layer is not None)
                return text.removesuffix("\n")

            lines = scored(translator, pairs, ranks, None if is_plain else describe)
            if not _is_written("".join(f"{line}\n" for line in lines), ranks):
                return
            with ranks.together():
                if pairs.refusal:
                    raise pairs.refusal


@contextmanager
def _ranks(options: Namespace) -> Iterator[Ranks]:
    """The processes that share the work out. The first alone is heard."""
    ranks = world()
    with output_of(ranks):
        ranks.choose_device(options.backend)
        yield ranks


def _load(options: Namespace, ranks: Ranks) -> Translator:
    """The model. Raises UserError on all ranks unless they have the same one, and options."""
    paths = [options.model, *options.ensemble]
    with ranks.together():
        if len(paths) == 1 and options.weights is None:
            translator = Translator.load(options.model, options.backend, options.precision)
        else:
            translator = Translator.ensemble(
                paths, options.weights, options.backend, options.precision
            )
        if options.get("shortlist"):
            translator.shortlist  # noqa: B018, read before any line, on all ranks
    if ranks.size > 1:
        model = translator.model
        models = model.models if isinstance(model, Ensemble) else [model]
        sums = " and ".join(f"{checksum(one.buffer.values):08x}" for one in models)
        own = {name: value for name, value in options.as_dict().items() if name not in _PATHS}
        check_same_facts(ranks, {**own, "the model": sums})
    return translator


def _search_settings(options: Namespace) -> dict[str, Any]:
    """What `translated` takes of the options, validated."""
    n_best = options.get("n_best", 1)
    beam = max(SearchSettings.beam, n_best) if options.beam is None else options.beam
    settings = _chosen(options, beam=beam)
    if not (settings.sampling or 1 <= n_best <= beam):
        raise UserError(f"n_best must be 1 to the beam, {beam}; it is {n_best}")
    settings = dataclasses.replace(settings, alternatives=n_best)
    if options.batch_tokens < 1:
        raise UserError(f"batch_tokens must be at least 1; it is {options.batch_tokens}")
    return {
        "settings": settings,
        "shortlist": options.shortlist,
        "batch_tokens": options.batch_tokens,
        "long_lines": options.long_lines,
        "longest": options.longest,
    }


def _chosen(options: Namespace, **others: Any) -> SearchSettings:
    """The settings of the search among the options, and others."""
    names = {field.name for field in dataclasses.fields(SearchSettings)}
    chosen = {name: options[name] for name in names if name in options}
    try:
        return SearchSettings(**{**chosen, **others})
    except ValueError as error:
        raise UserError(str(error)) from error


def _arriving(options: Namespace) -> Iterator[list[str]]:
    """The lines of a file, which may be compressed, or those of standard input as they arrive."""
    if options.source is None:
        stream = ArrivingLines(input_bytes("translate"))
        lines = decode_lines(stream, "standard input", bad_lines=options.bad_lines)
        yield from chunks(lines, stream.is_there, _LINES_AT_A_TIME)
    else:
        with open_text(options.source) as file:
            lines = decode_lines(file, str(options.source), bad_lines=options.bad_lines)
            yield from chunks(lines, lambda: True, _LINES_AT_A_TIME)


def _layer(word: str | None, translator: Translator) -> AlignmentLayer | None:
    """The layer whose attention aligns words, if any is asked for."""
    if word is None:
        return None
    layer: Any = int(word) if word.isdecimal() and len(word) < 10 else word
    try:
        check_layer(layer, translator.model.config)
    except ValueError as error:
        raise UserError(str(error)) from error
    return layer


def _with_prefixes(
    arriving: Iterator[list[str]], path: Path | None
) -> Iterator[tuple[list[str], list[str] | None]]:
    """Lines, and those of a file, with what their translations begin with."""
    if path is None:
        yield from ((chunk, None) for chunk in arriving)
        return
    lines = read_lines(path)
    before = 0
    for chunk in arriving:
        prefixes = list(islice(lines, len(chunk)))
        if len(prefixes) < len(chunk):
            raise UserError(
                f"{path} has {before + len(prefixes):,} lines, and more are translated; each needs "
                "its prefix, which may be empty"
            )
        before += len(chunk)
        yield chunk, prefixes
    if next(lines, None) is not None:
        raise UserError(
            f"{path} has more than the {before:,} lines that were translated; do the two belong "
            "together?"
        )


def _all_prefixes(path: Path | None, lines: list[str]) -> list[str] | None:
    """What the translations of lines begin with, if a file says so."""
    return next(_with_prefixes(iter([lines]), path))[1]


def _translated(
    translator: Translator,
    lines: Sequence[str],
    ranks: Ranks,
    before: int,
    options: dict[str, Any],
) -> Iterator[list[Translation]]:
    """The translations of lines, of which `before` others have come before."""
    if not ranks.is_first or len(lines) == 1 or sys.stdout.isatty():  # they show it themselves
        yield from translated(translator, lines, ranks, before=before, **options)
        return
    with counting("translated", len(lines)) as advance:
        yield from translated(translator, lines, ranks, before=before, progress=advance, **options)


def _warn(notes: Sequence[str], ranks: Ranks) -> None:
    """Say what was done to lines that are too long."""
    if ranks.is_first:
        for note in notes:
            logger.warning("%s", note)


def _is_written(text: str, ranks: Ranks) -> bool:
    """Write text to the first rank's standard output; returns whether somebody reads it."""

    def write() -> bool:
        try:
            sys.stdout.buffer.write(text.encode())
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
    inputs += [path for model in options.ensemble for path in model.glob("*")]
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
