"""Learn a vocabulary and turn parallel text into a corpus."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from train.cli.display import counting_stages
from train.cli.flags import path
from train.cli.jobs import jobs_of
from train.corpora import preparation
from train.datasets import fetching
from train.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    for split in ("train", "valid"):
        for side in ("source", "target"):
            parser.add_argument(
                f"--{split}_{side}",
                type=path,
                nargs="+",
                required=True,
                metavar="FILE",
                help=f"{split} text, {side} language: UTF-8, one sentence a line, as it is or "
                "compressed (gzip, bzip2, xz, zstd); - is standard input",
            )
    parser.add_argument("--vocab_size", type=int, help="subwords to learn")
    parser.add_argument(
        "--tokenizer",
        type=path,
        metavar="DIR",
        help="use the vocabulary of this corpus, model or SentencePiece file; none is learned",
    )
    parser.add_argument("--out", type=path, required=True, help="directory of the corpus")
    parser.add_argument("--algorithm", choices=["bpe", "unigram"], default="bpe")
    parser.add_argument(
        "--separate", action="store_true", help="a vocabulary for each language, not a shared one"
    )
    parser.add_argument(
        "--max_length", type=int, default=256, help="drop pairs with more subwords on a side"
    )
    parser.add_argument(
        "--normalization",
        choices=["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity"],
        default="nmt_nfkc",
        help="of Unicode text, by SentencePiece",
    )
    parser.add_argument(
        "--character_coverage",
        type=float,
        default=1.0,
        help="share of all characters that get ids of their own, 0.98 to 1; the rest is bytes",
    )
    parser.add_argument(
        "--vocabulary_lines",
        type=int,
        default=500_000,
        help="lines to learn the vocabulary from, at most; a million takes a gigabyte of memory",
    )
    parser.add_argument(
        "--max_ratio",
        type=float,
        help="drop pairs with more than this many times as many subwords on one side",
    )
    parser.add_argument(
        "--drop_copies", action="store_true", help="drop pairs that are the same on both sides"
    )
    parser.add_argument("--drop_duplicates", action="store_true", help="drop repeated pairs")
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}_script",
            nargs="+",
            default=[],
            metavar="NAME",
            help="drop pairs with fewer than half the letters of this side in these scripts of "
            "Unicode: Latin, Cyrillic, Han ...",
        )
    parser.add_argument(
        "--keep_text", action="store_true", help="keep the training text, for train --sampling"
    )
    parser.add_argument("--jobs", type=int, help="processes that encode; one for each core")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a corpus that is there already"
    )


def run(options: Namespace) -> None:
    with counting_stages() as progress:
        corpus = preparation.prepare(
            options.train_source,
            options.train_target,
            options.valid_source,
            options.valid_target,
            options.out,
            vocab_size=options.vocab_size,
            tokenizer=options.tokenizer,
            algorithm=options.algorithm,
            shared=not options.separate,
            max_length=options.max_length,
            normalization=options.normalization,
            character_coverage=options.character_coverage,
            vocabulary_lines=options.vocabulary_lines,
            max_ratio=options.max_ratio,
            drop_copies=options.drop_copies,
            drop_duplicates=options.drop_duplicates,
            source_script=options.source_script,
            target_script=options.target_script,
            keep_text=options.keep_text,
            jobs=jobs_of(options),
            overwrite=options.overwrite,
            progress=progress,
            origins=fetching.fetched_texts([*options.train_source, *options.train_target]),
        )
    print(
        f"{options.out}: {counted(len(corpus.train), 'pair')} to train on, "
        f"{len(corpus.valid):,} to validate with, {corpus.tokenizers.target.vocab_size:,} subwords",
        file=sys.stderr,
    )
