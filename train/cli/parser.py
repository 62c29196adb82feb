"""The parser of the command line: subcommands and their flags."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jsonargparse import ArgumentParser

from npformer.formats.exporting import FORMATS
from npformer.long_lines import LongLines
from train.cli.experiments import add_flags
from train.cli.translations import Format
from train.corpora.text import BadLines
from train.datasets.catalogue import DATASETS
from train.experiments.catalogue import ABOUT as EXPERIMENTS
from train.ranks.world import world
from train.settings import BleuTokenizer, TrainSettings

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


def build_parser(with_experiments: bool = False) -> ArgumentParser:
    """The parser of all subcommands; with the flags of each experiment, which take time to load."""
    parser = _parser('The Transformer of "Attention Is All You Need", on NumPy and CuPy.')
    parser.prog = "npformer"
    subcommands = parser.add_subcommands(title="commands", metavar="COMMAND")

    def add(name: str, about: str) -> ArgumentParser:
        command = _parser(about)
        subcommands.add_subcommand(name, command, help=about)
        return command

    prepare = add("prepare", "Learn a vocabulary and turn parallel text into a corpus.")
    for split in ("train", "valid"):
        for side in ("source", "target"):
            prepare.add_argument(
                f"--{split}_{side}",
                type=_path,
                nargs="+",
                required=True,
                metavar="FILE",
                help=f"{split} text, {side} language: UTF-8, one sentence a line, as it is or "
                "compressed (gzip, bzip2, xz, zstd); - is standard input",
            )
    prepare.add_argument("--vocab_size", type=int, help="subwords to learn")
    prepare.add_argument(
        "--tokenizer",
        type=_path,
        metavar="DIR",
        help="use the vocabulary of this corpus, model or SentencePiece file; none is learned",
    )
    prepare.add_argument("--out", type=_path, required=True, help="directory of the corpus")
    prepare.add_argument("--algorithm", choices=["bpe", "unigram"], default="bpe")
    prepare.add_argument(
        "--separate", action="store_true", help="a vocabulary for each language, not a shared one"
    )
    prepare.add_argument(
        "--max_length", type=int, default=256, help="drop pairs with more subwords on a side"
    )
    prepare.add_argument(
        "--normalization",
        choices=["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity"],
        default="nmt_nfkc",
        help="of Unicode text, by SentencePiece",
    )
    prepare.add_argument(
        "--character_coverage",
        type=float,
        default=1.0,
        help="share of all characters that get ids of their own, 0.98 to 1; the rest is bytes",
    )
    prepare.add_argument(
        "--vocabulary_lines",
        type=int,
        default=500_000,
        help="lines to learn the vocabulary from, at most; a million takes a gigabyte of memory",
    )
    prepare.add_argument(
        "--max_ratio",
        type=float,
        help="drop pairs with more than this many times as many subwords on one side",
    )
    prepare.add_argument(
        "--drop_copies", action="store_true", help="drop pairs that are the same on both sides"
    )
    prepare.add_argument("--drop_duplicates", action="store_true", help="drop repeated pairs")
    for side in ("source", "target"):
        prepare.add_argument(
            f"--{side}_script",
            nargs="+",
            default=[],
            metavar="NAME",
            help="drop pairs with fewer than half the letters of this side in these scripts of "
            "Unicode: Latin, Cyrillic, Han ...",
        )
    prepare.add_argument(
        "--keep_text", action="store_true", help="keep the training text, for train --sampling"
    )
    prepare.add_argument("--jobs", type=int, help="processes that encode; one for each core")
    prepare.add_argument(
        "--overwrite", action="store_true", help="replace a corpus that is there already"
    )

    fetch = add("fetch", "Download a public parallel corpus.")
    fetch.add_argument("name", choices=list(DATASETS), help="the corpus")
    fetch.add_argument("--out", type=_path, help="directory for its texts; data/NAME if not given")

    train = add("train", "Train a model on a corpus.")
    train.add_argument("--config", type=_path, metavar="FILE", help="a YAML file of settings")
    train.add_argument("--data", type=_path, required=True, help="the corpus, made by prepare")
    train.add_argument("--out", type=_path, required=True, help="directory of the run")
    train.add_argument("--resume", action="store_true", help="resume the run in --out")
    train.add_argument(
        "--jobs",
        type=int,
        help="processes that segment text for --sampling; one for each core, which ranks share",
    )
    train.add_class_arguments(TrainSettings, as_group=False)

    translate = add("translate", "Translate text to standard output, line by line.")
    _model(translate)
    translate.add_argument(
        "--source", type=_path, help="text to translate, if it does not come by standard input"
    )
    translate.add_argument(
        "--n_best", type=int, default=1, help="translations of each line, best first"
    )
    _written(translate)
    translate.add_argument(
        "--bad_lines",
        choices=get_args(BadLines),
        default="refuse",
        help="of bytes that are not UTF-8: replace them, or skip their lines, which become empty",
    )
    _search(translate)

    evaluate = add("evaluate", "Translate a text and score it: BLEU, chrF and perplexity.")
    _model(evaluate)
    evaluate.add_argument("--source", type=_path, required=True, help="text to translate")
    evaluate.add_argument("--reference", type=_path, required=True, help="its translation")
    evaluate.add_argument(
        "--tokenize",
        choices=get_args(BleuTokenizer),
        default="13a",
        help="sacreBLEU's tokenizer for BLEU; none for text that is tokenised already; paper for "
        "BLEU of German as the paper counts it (Moses's tokens, compounds split, no smoothing)",
    )
    evaluate.add_argument(
        "--metrics",
        nargs="+",
        choices=["bleu", "chrf", "ter"],
        default=["bleu", "chrf"],
        help="what to score with; BLEU comes last, in any case",
    )
    evaluate.add_argument("--lowercase", action="store_true", help="score without case")
    evaluate.add_argument("--output", type=_path, help="a file for the translations")
    _search(evaluate)

    score = add("score", "Print the log probability of given translations, a line for a pair.")
    _model(score)
    score.add_argument("--source", type=_path, required=True, help="source text")
    score.add_argument("--target", type=_path, required=True, help="translations of it")
    _written(score)
    _penalties(score)
    score.add_argument(
        "--long_lines",
        choices=["cut", "skip", "refuse"],
        default="refuse",
        help="of more tokens than the model has positions: cut them, or leave their scores empty",
    )

    average = add("average", "Average the parameters of a run's newest checkpoints.")
    average.add_argument("run", type=_path, help="directory of a run")
    average.add_argument("--last", type=int, default=5, help="how many checkpoints")
    average.add_argument("--out", type=_path, required=True, help="directory of the new model")

    importing = add("import", "Make a model of ours from one of another program.")
    importing.add_argument(
        "directory",
        type=_path,
        metavar="DIR",
        help="a model of Hugging Face's Marian architecture, as OPUS-MT has, or of Marian, fairseq "
        "or JoeyNMT; docs/importing.md says which files it must hold",
    )
    importing.add_argument("--out", type=_path, required=True, help="directory of the new model")

    export = add("export", "Write a model of ours in the form of another program.")
    export.add_argument("model", type=_path, metavar="MODEL", help="directory of a model or a run")
    export.add_argument(
        "--format",
        choices=list(FORMATS),
        required=True,
        help="marian: Hugging Face's, for MarianMTModel; ctranslate2: for its Translator",
    )
    export.add_argument("--out", type=_path, required=True, help="new directory for it")

    shortlist = add("shortlist", "Learn which tokens translate which, for translate --shortlist.")
    shortlist.add_argument(
        "--model", type=_path, required=True, help="directory of a model or a run"
    )
    for side in ("source", "target"):
        shortlist.add_argument(
            f"--{side}",
            type=_path,
            nargs="+",
            metavar="FILE",
            help=f"training text, {side} language, as for prepare",
        )
    shortlist.add_argument(
        "--data", type=_path, help="in place of text, the corpus that the model was trained on"
    )
    shortlist.add_argument(
        "--best", type=int, default=50, help="translations of each source token, the likeliest"
    )
    shortlist.add_argument(
        "--frequent", type=int, default=500, help="target tokens for every sentence"
    )
    shortlist.add_argument(
        "--pairs", type=int, default=500_000, help="to learn from, at most, chosen evenly"
    )

    plot = add("plot", "Draw the curves of runs, or the attention over one sentence.")
    plot.add_argument(
        "runs", type=_path, nargs="+", metavar="RUN", help="directory of a run, or of a model"
    )
    plot.add_argument("--out", type=_path, required=True, help="the picture: .png, .svg or .pdf")
    plot.add_argument("--attention", metavar="SENTENCE", help="draw the attention over this")

    status = add("status", "Say what runs have come to: steps, scores, time left, disk.")
    status.add_argument("runs", type=_path, nargs="+", metavar="RUN", help="directory of a run")

    experiment = add("experiment", "Repeat an experiment of the paper, and write a page about it.")
    if with_experiments:
        names = experiment.add_subcommands(title="experiments", metavar="NAME")
        for name, about in EXPERIMENTS.items():
            one = _parser(about)
            add_flags(one, name, _path)
            names.add_subcommand(name, one, help=about)

    demo = add("demo", "Train a small model on an example, and translate with it.")
    demo.add_argument("--data", choices=["grammar", "multi30k"], default="grammar")
    demo.add_argument("--out", type=_path, default=Path("runs/demo"), help="where to leave it")
    demo.add_argument("--minutes", type=float, default=4.0, help="time to train for, at most")
    demo.add_argument("--seed", type=int, default=1, help="of the parameters and the batches")
    return parser


class _Parser(ArgumentParser):
    """jsonargparse's parser, which raises an error if help cannot be written."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if world().is_first:
            print(message, end="", file=file or sys.stderr)


def _parser(about: str) -> ArgumentParser:
    # Whole names alone: `with_settings_of_files` looks for --config, --resume and --init_from.
    return _Parser(description=about, exit_on_error=False, default_env=False, allow_abbrev=False)


class _PathType:
    """Converts an argument to a path unchanged. With Path itself, jsonargparse parses it as YAML.

    YAML is UTF-8, and the name of a file need not be.
    """

    def __call__(self, word: str) -> Path:
        return Path(word)

    def __repr__(self) -> str:
        return "path"


_path = _PathType()


def _model(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=_path, required=True, help="directory of a model or a run")
    parser.add_argument(
        "--ensemble",
        type=_path,
        nargs="+",
        default=[],
        metavar="MODEL",
        help="more models of the same vocabulary: the mean of their probabilities counts",
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", help="of --model and those of --ensemble in the mean"
    )
    parser.add_argument("--backend", choices=["numpy", "cupy"], default="numpy", help="cupy: a GPU")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")


def _written(parser: ArgumentParser) -> None:
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


def _penalties(parser: ArgumentParser) -> None:
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


def _search(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--beam",
        type=int,
        help="hypotheses; 1 is greedy; 4 if not given, or as many as --n_best",
    )
    _penalties(parser)
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
        "--prefixes", type=_path, metavar="FILE", help="what each translation begins with, by line"
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
