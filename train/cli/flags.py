"""The parser of a command's flags, and the flags that several commands have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse import ArgumentParser

from npformer.long_lines import LongLines
from train.cli.translations import Format
from train.ranks.world import world

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(ArgumentParser):
    """jsonargparse's parser, which raises an error if help cannot be written."""

    def __init__(self, about: str = "", **others: Any) -> None:
        # Whole names alone: `with_settings_of_files` looks for --config, --resume and --init_from.
        own = {"exit_on_error": False, "default_env": False, "allow_abbrev": False}
        super().__init__(description=about, **{**own, **others})

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if world().is_first:
            print(message, end="", file=file or sys.stderr)


class _PathType:
    """Converts an argument to a path unchanged. With Path itself, jsonargparse parses it as YAML.

    YAML is UTF-8, and the name of a file need not be.
    """

    def __call__(self, word: str) -> Path:
        return Path(word)

    def __repr__(self) -> str:
        return "path"


path = _PathType()


def add_model(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=path, required=True, help="directory of a model or a run")
    parser.add_argument(
        "--ensemble",
        type=path,
        nargs="+",
        default=[],
        metavar="MODEL",
        help="more models of the same vocabulary: the mean of their probabilities counts",
    )
    parser.add_argument(
        "--ensemble_weights",
        type=float,
        nargs="+",
        metavar="W",
        help="of --model and those of --ensemble in the mean",
    )
    parser.add_argument(
        "--weights",
        choices=["float32", "int8"],
        default="float32",
        help="what the model's matrices are held in; int8 is faster on a CPU, with less memory",
    )
    parser.add_argument("--backend", choices=["numpy", "cupy"], default="numpy", help="cupy: a GPU")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")


def add_writing(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=get_args(Format),
        default="text",
        help="tsv: line, rank, score, log P, log P of each token, tokens, text; json: an object a "
        "line",
    )
    parser.add_argument(
        "--alignment",
        type=str,
        metavar="LAYER",
        help="align words by the attention of a decoder layer, 1 or more, auto or mean; the last "
        "column, as 0-0 2-1",
    )


def add_penalties(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--length_penalty", type=float, default=0.6, help="the exponent of the penalty"
    )
    parser.add_argument(
        "--penalty",
        choices=["gnmt", "power", "none"],
        default="gnmt",
        help="of n tokens: (5 + n) / 6 as in the paper, or n, to the power of the exponent",
    )
    parser.add_argument(
        "--coverage_penalty",
        type=float,
        default=0.0,
        help="for source tokens that are attended to little: β of Wu et al. (2016)",
    )


def add_search(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--beam",
        type=int,
        help="hypotheses; 1 is greedy; 4 if not given, or as many as --n_best",
    )
    add_penalties(parser)
    parser.add_argument(
        "--stop",
        choices=["bound", "beam"],
        default="bound",
        help="once no hypothesis can reach a better score, or once as many have ended as the beam "
        "has, which is faster and may miss the best",
    )
    parser.add_argument("--min_length", type=int, default=0, help="tokens, at least")
    parser.add_argument(
        "--min_ratio", type=float, default=0.0, help="tokens for each of the source, at least"
    )
    parser.add_argument("--max_length", type=int, help="tokens with the end, at most")
    parser.add_argument("--max_ratio", type=float, help="tokens for each of the source, at most")
    parser.add_argument(
        "--extra_length", type=int, default=50, help="tokens more than the source, at most"
    )
    parser.add_argument(
        "--no_repeat_ngram",
        type=int,
        default=0,
        help="no as many tokens in a row occur twice in a translation; 0 allows it",
    )
    parser.add_argument(
        "--prefixes", type=path, metavar="FILE", help="what each translation begins with, by line"
    )
    parser.add_argument(
        "--groups", type=int, default=1, help="of the beam, for more different translations"
    )
    parser.add_argument(
        "--diversity", type=float, default=0.5, help="of --groups: what a token loses for each use"
    )
    parser.add_argument(
        "--sampling",
        action="store_true",
        help="draw translations at random, by their probability, without a beam",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="of what is drawn: more is less likely"
    )
    parser.add_argument(
        "--top_k", type=int, default=0, help="draw from as many of the likeliest tokens; 0 is all"
    )
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="draw from the likeliest with this probability"
    )
    parser.add_argument(
        "--shortlist",
        action="store_true",
        help="choose from the tokens that the model's shortlist has for each sentence",
    )
    parser.add_argument(
        "--batch_tokens", type=int, default=4096, help="source tokens times beam, in a batch"
    )
    parser.add_argument(
        "--long_lines",
        choices=get_args(LongLines),
        default="split",
        help="of more tokens than the model takes: split them at the ends of sentences, cut them, "
        "or skip them, which become empty",
    )
    parser.add_argument(
        "--longest",
        type=int,
        help="tokens of a line, at most, before it is long; those of the sentences that the model "
        "was trained on, if not given",
    )
