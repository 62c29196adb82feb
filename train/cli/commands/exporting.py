"""Write a model of ours in the form of another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npformer.formats.exporting import FORMATS, export_model
from train.cli.flags import path
from train.cli.streams import tell

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=path, metavar="MODEL", help="directory of a model or a run")
    parser.add_argument(
        "--format",
        choices=list(FORMATS),
        required=True,
        help="marian: Hugging Face's, for MarianMTModel; ctranslate2: for its Translator",
    )
    parser.add_argument("--out", type=path, required=True, help="new directory for it")


def run(options: Namespace) -> None:
    for note in export_model(options.model, options.out, options.format):
        tell(f"{options.out}: {note}")
    tell(f"{options.out}: the model in the form of {options.format}")
