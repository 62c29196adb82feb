"""Training within an experiment: a run that goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

from npformer.parts import PAPER_PARTS, Parts
from train.corpora.corpus import Corpus
from train.experiments.measurements import Tell
from train.loop import Report
from train.runs.log_entry import LogEntry
from train.runs.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer
from train.wording import duration


def train_run(
    directory: Path,
    settings: TrainSettings,
    corpus: Corpus,
    tell: Tell,
    parts: Parts = PAPER_PARTS,
) -> Run:
    """Train a run to its end, from its newest state if there is one.

    parts: what the model is built from.
    """
    run = Run(directory)
    begin = Trainer.resume if run.state.is_file() else Trainer.start
    begin(settings, corpus, run, parts).train(_reports(directory.name, settings.max_steps, tell))
    return run


def _reports(name: str, max_steps: int, tell: Tell) -> Report:
    def report(entry: object) -> None:
        if isinstance(entry, LogEntry):
            tell(
                f"{name}: step {entry.step:,} of {max_steps:,}, perplexity {entry.perplexity:.2f}, "
                f"{duration(entry.seconds_left)} left"
            )

    return report
