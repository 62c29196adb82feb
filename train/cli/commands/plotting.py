"""Draw the curves of runs, or the attention over one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npformer.errors import UserError
from npformer.translator import Translator
from train.cli.curves import plot_curves
from train.cli.flags import path
from train.cli.plot import plot_attention

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=path, nargs="+", metavar="RUN", help="directory of a run, or of a model"
    )
    parser.add_argument("--out", type=path, required=True, help="the picture: .png, .svg or .pdf")
    parser.add_argument("--attention", metavar="SENTENCE", help="draw the attention over this")


def run(options: Namespace) -> None:
    if options.attention is None:
        plot_curves(options.runs, options.out)
        return
    if len(options.runs) > 1:
        raise UserError("--attention is drawn for one model; give one directory")
    plot_attention(Translator.load(options.runs[0]), options.attention, options.out)
