"""Say what runs have come to: steps, scores, time left, disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.cli.flags import path
from train.cli.status import describe, read_status
from train.cli.streams import require_output

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="directory of a run")


def run(options: Namespace) -> None:
    require_output("status")
    print("\n\n".join(describe(read_status(run)) for run in options.runs))
