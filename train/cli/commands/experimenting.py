"""Repeat an experiment of the paper, and write a page about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.cli.experiments import add_settings, run_experiment
from train.cli.flags import Parser, path
from train.cli.streams import require_output, tell
from train.experiments.catalogue import ABOUT

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    names = parser.add_subcommands(title="experiments", metavar="NAME")
    for name, about in ABOUT.items():
        one = Parser(about)
        add_settings(one, name, path)
        names.add_subcommand(name, one, help=about)


def run(options: Namespace) -> None:
    require_output("experiment")
    print(run_experiment(options.subcommand, options[options.subcommand], tell), end="")
