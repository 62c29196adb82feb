"""How a run begins, and how it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from autograd.backend import current
from npformer.errors import UserError
from npformer.parts import PAPER_PARTS, Parts
from train.adam import adam
from train.assembly import configuration, training_batches
from train.corpora.corpus import Corpus
from train.loop import TrainingLoop
from train.moving_average import MovingAverage
from train.optimizer import MakeOptimizer
from train.ranks.ranks import ALONE, Ranks
from train.ranks.same_run import check_alike, check_shared
from train.runs.changes import go_on_with_other_batches, scores_compare, told_changes
from train.runs.identity import Identity
from train.runs.init_from import check_model_fits, load_parameters
from train.runs.metrics import read_metrics
from train.runs.progress import Progress, Validations
from train.runs.restored import restored
from train.runs.run import Run
from train.runs.training_data import TrainingData
from train.settings import TrainSettings

Tell = Callable[[str], None]


class Trainer(TrainingLoop):
    """A run that is started in an empty directory, or resumed from its newest state.

    Trainer.start(settings, corpus, Run(directory)).train(report)
    """

    @classmethod
    def start(
        cls,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = PAPER_PARTS,
        optimizer: MakeOptimizer = adam,
        ranks: Ranks = ALONE,
        jobs: int = 1,
    ) -> Trainer:
        """Start a new run. Raises UserError if the directory already holds one."""
        check_alike(ranks, settings, corpus)
        ranks.choose_device(settings.backend or current().name)
        init_from = None if settings.init_from is None else Path(settings.init_from)
        with ranks.together():
            if init_from:
                check_model_fits(init_from, configuration(settings, corpus), corpus, parts)
            trainer = cls(settings, corpus, run, parts, optimizer, ranks, jobs)
        # Before anything is written, for GPUs may refuse to be connected.
        trainer._exchange = ranks.exchange(trainer.model.buffer)
        ranks.on_first(partial(trainer._create, init_from))
        trainer.saved_step = 0
        with run.unlocked_on_error():
            trainer._check_shared()
            trainer._copy_from_first()
        return trainer

    def _create(self, init_from: Path | None) -> None:
        """Create the run, and save a first state, so that a run that is killed can be resumed."""
        if init_from:
            load_parameters(init_from, self.model)
            if isinstance(self.optimizer, MovingAverage):
                self.optimizer.start_anew()
        with self.run.unlocked_on_error():
            self.run.create(
                self.settings, self.model, self.corpus.tokenizers, self.corpus.fingerprint
            )
            self._write_state(self._snapshot(), keep_parameters=True)

    @classmethod
    def resume(
        cls,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = PAPER_PARTS,
        optimizer: MakeOptimizer = adam,
        tell: Tell = lambda line: None,
        ranks: Ranks = ALONE,
        jobs: int = 1,
    ) -> Trainer:
        """Resume a run from its newest state, with the same settings or others that may change.

        tell: is told line by line what came back, and what changes.

        Raises UserError if it does not fit, and if another process is training in the directory.
        """
        check_alike(ranks, settings, corpus)
        ranks.choose_device(settings.backend or current().name)
        before, changes = ranks.on_first(partial(_begin_to_resume, settings, corpus, run, parts))
        with run.unlocked_on_error():
            with ranks.together():
                trainer = cls(settings, corpus, run, parts, optimizer, ranks, jobs)
            trainer._exchange = ranks.exchange(trainer.model.buffer)
            trainer.progress = ranks.on_first(partial(trainer._restore, before, changes, tell))
            trainer.saved_step = trainer.position.step
            trainer._check_shared()
            trainer._copy_from_first()
        return trainer

    def _restore(self, before: TrainSettings, changes: list[str], tell: Tell) -> Progress:
        """Restore everything from the state, and move on to the new settings."""
        settings, corpus, run = self.settings, self.corpus, self.run
        self.progress = run.resume(self.model, corpus.tokenizers, self.optimizer, settings)
        both = (before, configuration(before, corpus)), (settings, self.model.config)
        if not scores_compare(*both):
            best = self.progress.validations
            self.progress.validations = Validations(step=best.step)
            if best.best_step:
                tell(
                    f"the best validation so far is forgotten{_what_is_left(run, before, settings)}"
                )
        self._tell_what_came_back(tell)
        for line in changes:
            tell(line)
        if before.batch_tokens != settings.batch_tokens:
            old = training_batches(before, corpus, self._jobs, self._gives_up)
            tell(go_on_with_other_batches(self.position, old, self.batches))
        run.identity.write(settings, corpus.fingerprint)
        run.write_cards(self.model, settings, TrainingData.of(corpus), self.progress)
        return self.progress

    def _check_shared(self) -> None:
        """Raise UserError on all ranks unless the run's directory is there for each of them."""
        path = self.run.identity.path
        check_shared(self.ranks, self.run.directory, lambda: Identity(path).id)

    def _copy_from_first(self) -> None:
        """Take the first rank's parameters, and its optimizer's arrays."""
        if self.ranks.size == 1:
            return
        buffer, self.optimizer.steps = self.model.buffer, self.position.step
        for array in (buffer.values, *self.optimizer.state().values()):
            self.ranks.copy_from_first(array)
        if buffer.rounded is not None:
            buffer.rounded[...] = buffer.values

    def _tell_what_came_back(self, tell: Tell) -> None:
        for line in restored(
            self.settings,
            self.progress,
            self.optimizer,
            self.rate,
            self.batches.windows,
            read_metrics(self.run.directory),
        ):
            tell(line)


def _begin_to_resume(
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


def _what_is_left(run: Run, before: TrainSettings, now: TrainSettings) -> str:
    """What to say about the best model when scores from now on cannot be compared with its own."""
    if not run.best.directory.is_dir():
        return ""
    until = "" if now.best_by == "none" else f", until a new one is the best by {now.best_by}"
    return f"; {run.best.directory} keeps its model, the best by {before.best_by}{until}"
