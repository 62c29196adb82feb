"""Make a model of ours from one of another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npformer.formats.importing import import_model
from train.cli.flags import path
from train.cli.streams import tell

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        type=path,
        metavar="DIR",
        help="a model of Hugging Face's Marian architecture, as OPUS-MT has, or of Marian, fairseq "
        "or JoeyNMT; docs/importing.md says which files it must hold",
    )
    parser.add_argument("--out", type=path, required=True, help="directory of the new model")


def run(options: Namespace) -> None:
    config = import_model(options.directory, options.out)
    vocabulary = f"{config.vocab_size:,} tokens"
    if config.source_vocab_size:
        vocabulary = f"{config.source_vocab_size:,} source and {config.vocab_size:,} target tokens"
    tell(
        f"{options.out}: {config.layers} + {config.decoder_depth} layers, "
        f"d_model {config.d_model}, {vocabulary}"
    )
