"""What each rank of test_ranks.py runs: several commands, one after the other.

Arguments: the folder of the text and the corpus, the run of a model, and a folder for what is made.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.integration.command_line import TINY
from train.__main__ import main
from train.cli.commands import scoring, translating
from train.ranks.world import world
from train.trainer import Trainer


def main_with_output(path: Path, *words: object) -> None:
    """Run a command whose standard output is a file, on the first rank."""
    stdout = sys.stdout
    with open(path if world().is_first else os.devnull, "w", encoding="utf-8") as sys.stdout:
        assert main([str(word) for word in words]) == 0
    sys.stdout = stdout


def noisy(train_step: Any) -> Any:
    """A step in which a library that is not written in Python prints."""

    def step(self: Trainer, *arguments: Any) -> Any:
        os.write(2, b"from a library\n")
        return train_step(self, *arguments)

    return step


folder, model, out = map(Path, sys.argv[1:])
translating._LINES_AT_A_TIME, scoring._PAIRS_AT_A_TIME = 12, 4  # both come in several turns
text = ["--source", folder / "test.en"]
main_with_output(out / "translated", "translate", "--model", model, *text, "--batch-tokens", 200)
reference = folder / "test.de"
main_with_output(out / "scores", "score", "--model", model, *text, "--target", reference)
made = ["--output", out / "made"]
main_with_output(
    out / "evaluated", "evaluate", "--model", model, *text, "--reference", reference, *made
)
if not world().is_first:
    Trainer.validate = noisy(Trainer.validate)  # type: ignore[method-assign]
run = ["--data", folder / "corpus", "--out", out / "run"]
assert main([*map(str, ["train", *run, *TINY, "--max-steps", 20])]) == 0
assert main([*map(str, ["train", *run, "--resume", "--max-steps", 25])]) == 0
if world().is_first:
    print("a mistake", file=sys.stderr)
assert main([*map(str, ["translate", "--model", out / "none", *text])]) == 2
