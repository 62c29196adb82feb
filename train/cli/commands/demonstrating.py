"""Train a small model on an example, and translate with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from train.cli.demo import run_demo
from train.cli.flags import path

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--data", choices=["grammar", "multi30k"], default="grammar")
    parser.add_argument("--out", type=path, default=Path("runs/demo"), help="where to leave it")
    parser.add_argument("--minutes", type=float, default=4.0, help="time to train for, at most")
    parser.add_argument("--seed", type=int, default=1, help="of the parameters and the batches")


def run(options: Namespace) -> None:
    run_demo(options.data, options.out, options.minutes, options.seed)
