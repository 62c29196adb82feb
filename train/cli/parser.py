"""The parser of the command line."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from train.cli.commands import COMMANDS
from train.cli.flags import Parser


def build_parser(only: str | None = None) -> ArgumentParser:
    """The parser of all subcommands.

    only: the one whose flags are needed, for those of others take time to load.
    """
    parser = Parser('The Transformer of "Attention Is All You Need", on NumPy and CuPy.')
    parser.prog = "npformer"
    subcommands = parser.add_subcommands(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = Parser(command.about)
        subcommands.add_subcommand(name, one, help=command.about)
        if only in (None, name):
            command.add_flags(one)
    return parser
