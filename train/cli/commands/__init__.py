"""The subcommands of the command line, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: the module of this package with its functions `add_flags` and `run`, and perhaps
            `expanded`, which replaces flags by others before they are parsed
        about: what it does, in a sentence
        is_shared: whether several processes can share its work
    """

    module: str
    about: str
    is_shared: bool = False

    def add_flags(self, parser: ArgumentParser) -> None:
        """Add its flags to a parser."""
        self._imported().add_flags(parser)

    def expanded(self, words: list[str]) -> list[str]:
        """The words of a command line after the command, as the parser takes them."""
        expand = getattr(self._imported(), "expanded", None)
        return expand(words) if expand else words

    def run(self, options: Namespace) -> None:
        """Do what the options say."""
        self._imported().run(options)

    def _imported(self) -> Any:
        return import_module(f"{__name__}.{self.module}")


COMMANDS = {
    "prepare": Command("preparing", "Learn a vocabulary and turn parallel text into a corpus."),
    "fetch": Command("fetching", "Download a public parallel corpus."),
    "train": Command("training", "Train a model on a corpus.", is_shared=True),
    "translate": Command(
        "translating", "Translate text to standard output, line by line.", is_shared=True
    ),
    "evaluate": Command(
        "evaluating", "Translate a text and score it: BLEU, chrF and perplexity.", is_shared=True
    ),
    "score": Command(
        "scoring",
        "Print the log probability of given translations, a line for a pair.",
        is_shared=True,
    ),
    "serve": Command("serving", "Answer requests for translations over HTTP, and show a page."),
    "average": Command("averaging", "Average the parameters of a run's newest checkpoints."),
    "import": Command("importing", "Make a model of ours from one of another program."),
    "export": Command("exporting", "Write a model of ours in the form of another program."),
    "shortlist": Command(
        "shortlisting", "Learn which tokens translate which, for translate --shortlist."
    ),
    "plot": Command("plotting", "Draw the curves of runs, or the attention over one sentence."),
    "status": Command("reporting", "Say what runs have come to: steps, scores, time left, disk."),
    "experiment": Command(
        "experimenting", "Repeat an experiment of the paper, and write a page about it."
    ),
    "demo": Command("demonstrating", "Train a small model on an example, and translate with it."),
}
