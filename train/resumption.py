"""What is checked before a run is resumed, and what is said of its best model."""

from __future__ import annotations

from npformer.errors import UserError
from npformer.parts import Parts
from train.assembly import configuration
from train.corpora.corpus import Corpus
from train.runs.changes import told_changes
from train.runs.run import Run
from train.settings import TrainSettings


def begin_to_resume(
    settings: TrainSettings, corpus: Corpus, run: Run, parts: Parts
) -> tuple[TrainSettings, list[str]]:
    """Lock a run that is to be resumed; returns the settings that it had, and what changes.

    Raises UserError if anything is in the way, before the model is built.
    """
    run.lock()
    with run.unlocked_on_error():
        if not corpus.has_fingerprint(run.identity.corpus()):
            raise UserError(
                f"{run.directory} was trained on another corpus than {corpus.directory}; "
                "give the one that it was started with"
            )
        config = configuration(settings, corpus)
        run.check_model(config, parts)
        before = run.saved_settings()
        changes = told_changes(
            (before, configuration(before, corpus)), (settings, config), run.saved_step() + 1
        )
    return before, changes


def what_is_left(run: Run, before: TrainSettings, now: TrainSettings) -> str:
    """What to say about the best model when scores from now on cannot be compared with its own."""
    if not run.best.directory.is_dir():
        return ""
    until = "" if now.best_by == "none" else f", until a new one is the best by {now.best_by}"
    return f"; {run.best.directory} keeps its model, the best by {before.best_by}{until}"
