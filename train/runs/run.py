"""The directory of a training run: its results, and what is needed to resume it.

config.json  model.safetensors  tokenizer.spm     a model directory, of the newest checkpoint
README.md                                         its model card
train.yaml                                        the run's settings, its corpus and its id
metrics.jsonl                                     a line for each log entry and validation
checkpoints/00001000.safetensors                  the newest parameters, for averaging
translations.jsonl                                a few sentences, at each validation
best/                                             a model directory, of the best validation
ranks/                                            what several ranks say of themselves
training/state.safetensors                        all that is needed to resume
training/products/                                on a GPU, how its matrix products are computed
training/lock                                     locked by the process that trains in it
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autograd.backend import current
from npformer.checkpoint import (
    CONFIG,
    MODEL_FILES,
    SHORTLIST,
    WEIGHTS,
    read_config,
    save_config,
    save_weights,
)
from npformer.config import TransformerConfig
from npformer.directories import check_not_a_file
from npformer.errors import UnwritableError, UserError
from npformer.files import sync_directory, sync_file, unfinished
from npformer.model_card import CARD, is_own
from npformer.parts import PAPER_PARTS, Parts
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer
from train.optimizer import Optimizer
from train.runs.best import BestModel
from train.runs.cards import RunCards
from train.runs.checkpoints import CheckpointFiles
from train.runs.identity import Identity
from train.runs.lock import RunLock
from train.runs.metrics import append_metrics, drop_metrics_after, metrics_path, read_metrics
from train.runs.progress import Progress
from train.runs.rank_files import RankFiles
from train.runs.samples import drop_samples_after, samples_path
from train.runs.snapshot import Parameters, Snapshot, published_copy
from train.runs.state import check_state, load_state, read_about, save_state, state_arrays
from train.runs.training_data import TrainingData
from train.settings import (
    MODEL_MAY_CHANGE,
    TrainSettings,
    settings_from_dict,
    settings_to_dict,
)
from train.settings_file import read_settings


class Run:
    """The directory of one training run.

    Attributes:
        state: the file of all that is needed to resume
        products: the directory of the kept choices of a GPU's matrix products
        settings: the settings file
        metrics: the log
        identity: the settings file and the run's id, which the state and the checkpoints bear
        checkpoints: the newest parameters, for averaging
        best: the model of the best validation
        cards: the model cards of both model directories
        ranks: the logs and reports of the ranks that train it, if there are several
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "training" / "state.safetensors"
        self.products = directory / "training" / "products"
        self.settings = directory / "train.yaml"
        self.metrics = metrics_path(directory)
        self._config = directory / CONFIG
        self.identity = Identity(self.settings)
        self.checkpoints = CheckpointFiles(directory / "checkpoints", self.identity)
        self.best = BestModel(directory)
        self.cards = RunCards(directory, self.best)
        self.ranks = RankFiles(directory / "ranks")
        self._lock = RunLock(directory / "training" / "lock")

    # Beginning

    def create(
        self, settings: TrainSettings, model: Transformer, tokenizers: TokenizerPair, corpus: str
    ) -> None:
        """Create the directory of a new run, and lock it.

        What a start that was killed has left is replaced. Raises UserError if the directory holds
        anything else, or another process is training in it.
        """
        self._check_free()
        try:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._check_free()  # another process may have been faster
            self.checkpoints.directory.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {error.filename}: {error.strerror}") from error
        for directory in (self.directory, self.directory.parent):
            sync_directory(directory)
        self._remove_unfinished()
        self.identity.begin()
        self.identity.write(settings, corpus)  # first, since they are given only once
        save_config(self.directory, model.config)
        tokenizers.save(self.directory)

    def was_never_saved(self) -> bool:
        """Whether a start was killed between its settings and its first state."""
        return self.settings.is_file() and self._holds_only_a_start()

    def _check_free(self) -> None:
        check_not_a_file(self.directory, "the run")
        if not self._holds_only_a_start():
            self._lock.check_free()
            raise UserError(
                f"{self.directory} exists and is not empty; give --resume to resume the run in it, "
                "or another --out"
            )

    def _holds_only_a_start(self) -> bool:
        """Whether nothing is there but what `create` makes. Its lock comes before its files."""
        before_the_lock = {self.directory, self.state.parent}
        after_it = {self._lock.path, self.checkpoints.directory, self.settings}
        after_it |= {self.directory / name for name in MODEL_FILES - {WEIGHTS, SHORTLIST}}
        if is_own(card := self.directory / CARD):
            after_it.add(card)
        known = before_the_lock | (after_it if self._lock.path.is_file() else set())
        others = [path for path in self.directory.rglob("*") if path not in known]
        unfinished = set(self._unfinished()) if self._lock.path.is_file() else set()
        return all(Path(os.path.realpath(path)) in unfinished for path in others)

    def products_of(self, rank: int) -> Path:
        """Where a rank keeps how its matrix products are computed: its GPU may be another one."""
        return self.products if rank == 0 else self.products / f"rank-{rank}"

    def lock(self) -> None:
        """Lock the directory until `unlock`. Raises UserError if another process has it."""
        self.check_place()
        if not self.state.parent.is_dir():
            raise UserError(
                f"{self.directory} holds no run to resume: there is no {self.state.parent}"
            )
        self._lock.acquire()

    def unlock(self) -> None:
        self._lock.release()

    def check_place(self) -> None:
        """Raise UserError if the directory that is locked was moved, removed or replaced."""
        self._lock.check_place()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory until the end of the block, if it is not locked already."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    @contextmanager
    def unlocked_on_error(self) -> Iterator[None]:
        """Unlock the directory if the block raises."""
        try:
            yield
        except BaseException:
            self.unlock()
            raise

    @contextmanager
    def saying_what_is_kept(self) -> Iterator[None]:
        """Add how to resume to the error of a file that cannot be written in the block."""
        try:
            yield
        except UnwritableError as error:
            self.check_place()  # the state at its path may be gone, or that of another run
            raise UserError(
                f"{error}; the steps since step {self.saved_step()} are lost: once it can be "
                "written, --resume continues from there"
            ) from error

    # Saving

    def save(
        self,
        snapshot: Snapshot,
        tokenizers: TokenizerPair,
        settings: TrainSettings,
        data: TrainingData | None = None,
        *,
        keep_parameters: bool = True,
    ) -> None:
        """Write a state and, with `keep_parameters`, a checkpoint to average.

        data: what the model cards say of the corpus

        A kill at any moment leaves this state or the previous one, and the metrics up to it.
        Raises UserError, and keeps what is there, if numbers are not finite or the disk is full.
        """
        self.check_place()
        model, progress, step = snapshot.model, snapshot.progress, snapshot.step
        published = snapshot.published
        arrays = state_arrays(snapshot)  # raises before anything is written
        for path in (self.metrics, samples_path(self.directory)):
            sync_file(path)
        if keep_parameters and step:  # an untrained model is not worth averaging
            self.checkpoints.save(published, step)
        save_state(
            self.state,
            arrays,
            progress,
            {
                "run": self.identity.id,
                "settings": {**settings_to_dict(settings), "backend": snapshot.backend},
                **({"data": data.to_dict()} if data else {}),
            },
        )
        # Without the id, so that runs with the same settings make the same file.
        save_weights(self.directory, published, model.config, tokenizers, {"step": step})
        self.best.publish(progress.validations.best_step, model.config, tokenizers)
        self.write_cards(model, settings, data, progress)
        self.checkpoints.prune(settings.keep_checkpoints, settings.keep_every)

    def write_cards(
        self,
        model: Transformer,
        settings: TrainSettings,
        data: TrainingData | None,
        progress: Progress,
    ) -> None:
        """Write the model cards of the run and of its best model."""
        step, best_step = progress.position.step, progress.validations.best_step
        self.cards.write(model, settings, data, step, best_step)

    def keep_best(self, parameters: Parameters, step: int) -> None:
        """Keep the model of the best validation, to be put into best/ with the next state."""
        self.best.keep(parameters, step, self.identity.id)

    def log(self, entry: dict[str, Any]) -> None:
        """Append an entry to metrics.jsonl. Raises UserError if it cannot be written."""
        self.check_place()
        append_metrics(self.directory, entry)
        self.cards.note(entry)

    # Resuming

    def check_model(self, config: TransformerConfig, parts: Parts = PAPER_PARTS) -> None:
        """Raise UserError unless the run has a state of its own, of a model so configured.

        Dropout and smoothing may change when a run is resumed. The check allocates no memory for
        the sizes in a file, which may be damaged.
        """
        given = config.to_dict()
        known = read_config(self.directory).to_dict() if self._config.exists() else {}
        for name, value in known.items():
            if name not in MODEL_MAY_CHANGE and given[name] != value:
                raise UserError(
                    f"{self.directory} has a model with {name} = {value!r}, and cannot be resumed "
                    f"with {given[name]!r}; start a new run with another --out"
                )
        if not self.state.is_file():
            raise UserError(
                f"{self.directory} holds no checkpoint to resume from ({self.state.name} is not "
                f"there); start another run, perhaps with --init-from {self.directory}"
            )
        if not self.identity.owns(read_about(self.state)):
            raise UserError(
                f"{self.state} does not belong to the run in {self.directory}; move it away, or "
                "put the right one in its place"
            )
        check_state(self.state, config, parts)

    def saved_step(self) -> int:
        """The step of the state."""
        return Progress.of(read_about(self.state), self.state).position.step

    def saved_settings(self) -> TrainSettings:
        """The settings that the state was trained with."""
        values = read_about(self.state).get("settings")
        if values is None:  # a state from before they were kept in it
            values = read_settings(self.settings)
        if not isinstance(values, dict):
            raise UserError(f"{self.state} is damaged: its settings are {values!r:.60}")
        try:
            # Where none was chosen, the one that the precision needs, also on a machine without it.
            single = values.get("precision", "float32") == "float32"
            return settings_from_dict({"backend": current().name if single else "cupy", **values})
        except (UserError, TypeError) as error:
            raise UserError(f"{self.state}: {error}") from error

    def resume(
        self,
        model: Transformer,
        tokenizers: TokenizerPair,
        optimizer: Optimizer,
        settings: TrainSettings,
    ) -> Progress:
        """Restore everything from the newest state, and drop what is later than it.

        The files of the model directory are rewritten: they may have been lost or altered, and
        dropout may have changed.
        """
        progress = load_state(self.state, model, optimizer)
        step = progress.position.step
        self.identity.restore(read_about(self.state))
        self._remove_unfinished()
        self.checkpoints.drop_after(step)
        self.checkpoints.prune(settings.keep_checkpoints, settings.keep_every)
        # The validation of this very step may have been killed, or not be counted in the state.
        validated = step if progress.validations.step == step else step - 1
        drop_metrics_after(self.directory, step, validated)
        self.cards.restore(read_metrics(self.directory))
        drop_samples_after(self.directory, validated)
        self.best.publish(progress.validations.best_step, model.config, tokenizers)
        self._write_model(model, tokenizers, optimizer, step)
        return progress

    def _write_model(
        self, model: Transformer, tokenizers: TokenizerPair, optimizer: Optimizer, step: int
    ) -> None:
        """Write the files of the model directory, so that it can be read at every moment."""
        tokenizers.save(self.directory)
        if not self._config.exists():
            save_config(self.directory, model.config)
        save_weights(
            self.directory,
            published_copy(model, optimizer)(),
            model.config,
            tokenizers,
            {"step": step},
            or_present_config=True,
        )
        save_config(self.directory, model.config)

    # Leftovers

    def _unfinished(self) -> Iterator[Path]:
        """Files that a killed process left unfinished."""
        models = (self.directory, self.best.directory)
        names = (directory / name for directory in models for name in {*MODEL_FILES, CARD})
        others = (self.best.waiting, samples_path(self.directory))
        for path in (self.state, self.settings, self.metrics, *others, *names):
            target = Path(os.path.realpath(path))  # beside which the file was written
            yield from unfinished(target.parent, target.name.__eq__)
        yield from self.checkpoints.unfinished()
        yield from self.ranks.unfinished()
        for products in (self.products, *self.products.glob("rank-*")):
            yield from unfinished(products, re.compile("[0-9a-f]{24}").fullmatch)

    def _remove_unfinished(self) -> None:
        for path in self._unfinished():
            path.unlink()
