"""Translate text to standard output, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from train.cli.arrivals import ArrivingLines, chunks
from train.cli.flags import add_model, add_search, add_writing, path
from train.cli.lines import (
    alignment_layer,
    is_written,
    load,
    ranks_of,
    search_settings,
    translations_of,
    warn,
    with_prefixes,
)
from train.cli.streams import input_bytes, require_output
from train.cli.translations import written
from train.corpora.text import BadLines, decode_lines, open_text

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_LINES_AT_A_TIME = 10_000  # of a stream, which are sorted into batches of similar length


def add_flags(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--source", type=path, help="text to translate, if it does not come by standard input"
    )
    parser.add_argument(
        "--n_best", type=int, default=1, help="translations of each line, best first"
    )
    add_writing(parser)
    parser.add_argument(
        "--bad_lines",
        choices=get_args(BadLines),
        default="refuse",
        help="of bytes that are not UTF-8: replace them, or skip their lines, which become empty",
    )
    add_search(parser)


def run(options: Namespace) -> None:
    with ranks_of(options) as ranks:
        arriving: Iterator[tuple[list[str], list[str] | None]] = iter(())
        with ranks.together():
            settings = search_settings(options)
            if ranks.is_first:
                require_output("translate")
                arriving = with_prefixes(_arriving(options), options.prefixes)
        translator = load(options, ranks)
        with ranks.together():
            layer = alignment_layer(options.alignment, translator)
        before = 0
        while found := ranks.on_first(lambda: next(arriving, None)):
            chunk, prefixes = found
            first = before + 1
            given = {**settings, "prefixes": prefixes, "alignment": layer}
            for some in translations_of(translator, chunk, ranks, before, given):
                numbered = list(enumerate(some, start=first))
                first += len(some)
                warn([f"line {number:,} {t.note}" for number, t in numbered if t.note], ranks)
                text = "".join(
                    written(t, number, options.format, options.n_best, layer is not None)
                    for number, t in numbered
                )
                if not is_written(text, ranks):
                    return
            before += len(chunk)


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
