"""Download a public parallel corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from train.cli.display import counting_bytes
from train.cli.flags import path
from train.cli.streams import tell
from train.datasets.catalogue import DATASETS
from train.datasets.fetching import fetch

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("name", choices=list(DATASETS), help="the corpus")
    parser.add_argument("--out", type=path, help="directory for its texts; data/NAME if not given")


def run(options: Namespace) -> None:
    dataset = DATASETS[options.name]
    with counting_bytes() as progress:
        fetch(dataset, options.out or Path("data", dataset.name), tell, progress)
