"""What the subcommands that take text line by line share: translate, evaluate, score.

Several ranks share the lines out, of which the first reads them, and writes what becomes of them.
A process alone goes the same way.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npformer.alignment import AlignmentLayer, check_layer
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.search_settings import SearchSettings
from npformer.translation import Translation
from npformer.translator import Translator
from train.cli.rank_output import output_of
from train.cli.streams import drop_output
from train.corpora.text import read_lines
from train.ranks.alike import check_same_facts, checksum
from train.ranks.lines import translated
from train.ranks.ranks import Ranks
from train.ranks.world import world

if TYPE_CHECKING:
    from jsonargparse import Namespace

logger = logging.getLogger("npformer")

# Options that may differ from host to host.
_PATHS = {"model", "ensemble", "source", "target", "reference", "output", "prefixes"}


@contextmanager
def ranks_of(options: Namespace) -> Iterator[Ranks]:
    """The processes that share the work out. The first alone is heard."""
    ranks = world()
    with output_of(ranks):
        ranks.choose_device(options.backend)
        yield ranks


def loaded(options: Namespace) -> Translator:
    """The model that the options name, or the ensemble."""
    held = {name: options[name] for name in ("backend", "precision", "weights")}
    if not options.ensemble and options.ensemble_weights is None:
        return Translator.load(options.model, **held)
    paths = [options.model, *options.ensemble]
    return Translator.ensemble(paths, options.ensemble_weights, **held)


def load(options: Namespace, ranks: Ranks) -> Translator:
    """The model. Raises UserError on all ranks unless they have the same one, and options."""
    with ranks.together():
        translator = loaded(options)
        if options.get("shortlist"):
            translator.shortlist  # noqa: B018, read before any line, on all ranks
    if ranks.size > 1:
        model = translator.model
        models = model.models if isinstance(model, Ensemble) else [model]
        sums = " and ".join(f"{checksum(a):08x}" for one in models for a in one.arrays())
        own = {name: value for name, value in options.as_dict().items() if name not in _PATHS}
        check_same_facts(ranks, {**own, "the model": sums})
    return translator


def search_settings(options: Namespace) -> dict[str, Any]:
    """What `translated` takes of the options, validated."""
    n_best = options.get("n_best", 1)
    beam = max(SearchSettings.beam, n_best) if options.beam is None else options.beam
    settings = chosen(options, beam=beam)
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


def chosen(options: Namespace, **others: Any) -> SearchSettings:
    """The settings of the search among the options, and others."""
    names = {field.name for field in dataclasses.fields(SearchSettings)}
    chosen = {name: options[name] for name in names if name in options}
    try:
        return SearchSettings(**{**chosen, **others})
    except ValueError as error:
        raise UserError(str(error)) from error


def alignment_layer(word: str | None, translator: Translator) -> AlignmentLayer | None:
    """The layer whose attention aligns words, if any is asked for."""
    if word is None:
        return None
    layer: Any = int(word) if word.isdecimal() and len(word) < 10 else word
    try:
        check_layer(layer, translator.model.config)
    except ValueError as error:
        raise UserError(str(error)) from error
    return layer


def with_prefixes(
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


def all_prefixes(path: Path | None, lines: list[str]) -> list[str] | None:
    """What the translations of lines begin with, if a file says so."""
    return next(with_prefixes(iter([lines]), path))[1]


def translations_of(
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
    from train.cli.display import counting  # only here, for it takes time to load

    with counting("translated", len(lines)) as advance:
        yield from translated(translator, lines, ranks, before=before, progress=advance, **options)


def warn(notes: Sequence[str], ranks: Ranks) -> None:
    """Say what was done to lines that are too long."""
    if ranks.is_first:
        for note in notes:
            logger.warning("%s", note)


def is_written(text: str, ranks: Ranks) -> bool:
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
