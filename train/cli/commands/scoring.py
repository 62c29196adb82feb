"""Print the log probability of given translations, a line for a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npformer.errors import UserError
from train.cli.flags import add_model, add_penalties, add_writing, path
from train.cli.lines import alignment_layer, chosen, is_written, load, ranks_of, warn
from train.cli.pairs import Pairs, scored
from train.cli.streams import require_output
from train.cli.translations import written
from train.corpora.text import read_both

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_PAIRS_AT_A_TIME = 100  # for each of several ranks; their scores are then printed


def add_flags(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--source", type=path, required=True, help="source text")
    parser.add_argument("--target", type=path, required=True, help="translations of it")
    add_writing(parser)
    add_penalties(parser)
    parser.add_argument(
        "--long_lines",
        choices=["cut", "skip", "refuse"],
        default="refuse",
        help="of more tokens than the model has positions: cut them, or leave their scores empty",
    )


def run(options: Namespace) -> None:
    is_plain = options.format == "text"
    with ranks_of(options) as ranks:
        with ranks.together():
            settings = chosen(options)
            if is_plain and options.alignment is not None:
                raise UserError("the text of score has no alignment; choose --format tsv or json")
            if ranks.is_first:
                require_output("score")
        translator = load(options, ranks)
        with ranks.together():
            layer = alignment_layer(options.alignment, translator)
        sources, targets = ranks.on_first(lambda: read_both(options.source, options.target))
        at_a_time = 1 if ranks.size == 1 else _PAIRS_AT_A_TIME * ranks.size
        for begin in range(0, len(sources), at_a_time):
            some = slice(begin, begin + at_a_time)
            pairs = Pairs(translator, sources[some], targets[some], options.long_lines, begin + 1)
            warn(pairs.notes, ranks)

            def describe(i: int, source: list[int], target: list[int], first: int = begin) -> str:
                [found] = translator.scored([source], [target], settings, alignment=layer)
                text = written(found, first + i + 1, options.format, 1, layer is not None)
                return text.removesuffix("\n")

            lines = scored(translator, pairs, ranks, None if is_plain else describe)
            if not is_written("".join(f"{line}\n" for line in lines), ranks):
                return
            with ranks.together():
                if pairs.refusal:
                    raise pairs.refusal
