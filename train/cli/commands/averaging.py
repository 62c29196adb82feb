"""Average the parameters of a run's newest checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.average import write_average
from train.cli.flags import path
from train.cli.streams import tell
from train.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=path, help="directory of a run")
    parser.add_argument("--last", type=int, default=5, help="how many checkpoints")
    parser.add_argument("--out", type=path, required=True, help="directory of the new model")


def run(options: Namespace) -> None:
    write_average(options.run, options.last, options.out)
    tell(f"{options.out}: the mean of {counted(options.last, 'checkpoint')}")
