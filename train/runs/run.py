"""The directory of a training run: its results, and what is needed to resume it.

config.json  model.safetensors  tokenizer.spm     a model directory, of the newest checkpoint
train.yaml                                        the run's settings, its corpus and its id
metrics.jsonl                                     a line for each log entry and validation
checkpoints/00001000.safetensors                  the newest parameters, for averaging
translations.jsonl                                a few sentences, at each validation
best/                                             a model directory, of the best validation
training/state.safetensors                        all that is needed to resume
training/products/                                on a GPU, how its matrix products are computed
training/lock                                     locked by the process that trains in it
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autograd.backend import current
from npformer.checkpoint import (
    CONFIG,
    MODEL_FILES,
    load_header,
    parameter_arrays,
    read_config,
    save_arrays,
    save_config,
    save_weights,
)
from npformer.config import TransformerConfig
from npformer.directories import check_not_a_file
from npformer.errors import UnwritableError, UserError
from npformer.files import atomic_write, sync_directory, sync_file, unfinished
from npformer.parts import PAPER_PARTS, Parts
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer
from train.runs.best import BestModel
from train.runs.lock import RunLock
from train.runs.metrics import append_metrics, drop_metrics_after, metrics_path
from train.moving_average import published_parameters
from train.optimizer import Optimizer
from train.runs.progress import Progress
from train.runs.samples import drop_samples_after, samples_path
from train.settings import (
    MODEL_MAY_CHANGE,
    TrainSettings,
    settings_from_dict,
    settings_to_dict,
)
from train.settings_file import dump_settings, read_settings
from train.runs.state import check_state, load_state, read_about, save_state, state_arrays

logger = logging.getLogger("npformer")


class Run:
    """The directory of one training run.

    A run has an id, which its state and its checkpoints bear, so that files of another run are
    never taken for its own. Files from before there were ids have none, and are taken.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "training" / "state.safetensors"
        self.products = directory / "training" / "products"
        self.settings = directory / "train.yaml"
        self.metrics = metrics_path(directory)
        self._config = directory / CONFIG
        self.checkpoints = directory / "checkpoints"
        self.best = BestModel(directory)
        self._lock = RunLock(directory / "training" / "lock")
        self._id: str | None = None

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
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {error.filename}: {error.strerror}") from error
        for directory in (self.directory, self.directory.parent):
            sync_directory(directory)
        self._remove_unfinished()
        self._id = secrets.token_hex(16)
        self.save_settings(settings, corpus)  # first, since they are given only once
        save_config(self.directory, model.config)
        tokenizers.save(self.directory)

    def was_never_saved(self) -> bool:
        """Whether a start was killed between its settings and its first state."""
        return self.settings.is_file() and self._holds_only_a_start()

    def _check_free(self) -> None:
        check_not_a_file(self.directory, "the run")
        if not self._holds_only_a_start():
            raise UserError(
                f"{self.directory} exists and is not empty; give --resume to resume the run in it, "
                "or another --out"
            )

    def _holds_only_a_start(self) -> bool:
        """Whether nothing is there but what `create` makes. Its lock comes before its files."""
        before_the_lock = {self.directory, self.state.parent}
        after_it = {self._lock.path, self.checkpoints, self.settings}
        after_it |= {self.directory / name for name in MODEL_FILES - {"model.safetensors"}}
        after_it |= set(self._unfinished())
        known = before_the_lock | (after_it if self._lock.path.is_file() else set())
        return all(path in known for path in self.directory.rglob("*"))

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
            raise UserError(
                f"{error}; the steps since step {self.saved_step()} are lost: once it can be "
                "written, --resume continues from there"
            ) from error

    # Settings

    def save_settings(self, settings: TrainSettings, corpus: str) -> None:
        """Write train.yaml: the settings, the fingerprint of the corpus, and the run's id."""
        text = f"# corpus {corpus}\n"
        if identity := self.id():
            text += f"# run {identity}\n"
        text += dump_settings(settings_to_dict(settings))
        with atomic_write(self.settings) as file:
            file.write(text.encode())

    def corpus(self) -> str:
        """The fingerprint of the corpus that the run was started with."""
        first = self._first_lines()[0]
        if not first.startswith("# corpus "):
            raise UserError(
                f"{self.settings} has lost its first line, which says what corpus the run was "
                "started with; take it from a copy"
            )
        return first.removeprefix("# corpus ")

    def id(self) -> str | None:
        """The run's id; None for a run from before there were ids, and without its train.yaml."""
        if self._id is None and self.settings.is_file():
            found = re.fullmatch("# run ([0-9a-f]{32})", self._first_lines()[1])
            self._id = found[1] if found else None
        return self._id

    def _first_lines(self) -> list[str]:
        try:
            with open(self.settings, encoding="utf-8-sig", errors="replace") as file:
                return [file.readline(200).rstrip("\n") for _ in range(2)]
        except OSError as error:
            raise UserError(
                f"{self.directory} holds no run to resume: {self.settings} cannot be read "
                f"({error.strerror})"
            ) from error

    # Saving

    def save(
        self,
        model: Transformer,
        tokenizers: TokenizerPair,
        optimizer: Optimizer,
        progress: Progress,
        settings: TrainSettings,
        *,
        keep_parameters: bool = True,
    ) -> None:
        """Write a state and, with `keep_parameters`, a checkpoint to average.

        A kill at any moment leaves this state or the previous one, and the metrics up to it.
        Raises UserError, and keeps what is there, if numbers are not finite or the disk is full.
        """
        self.check_place()
        parameters, step = parameter_arrays(model), progress.position.step
        published = published_parameters(model, optimizer)
        arrays = state_arrays(parameters, optimizer, step)  # raises before anything is written
        for path in (self.metrics, samples_path(self.directory)):
            sync_file(path)
        path = self._checkpoint(step)
        # An untrained model is not worth averaging, and a file that is not the run's stays.
        if keep_parameters and step and (self._is_own(path) or not os.path.lexists(path)):
            save_arrays(path, published, {"step": step, "run": self._id})
        save_state(
            self.state,
            arrays,
            progress,
            {
                "run": self._id,
                "settings": {**settings_to_dict(settings), "backend": optimizer.owner.name},
            },
        )
        # Without the id, so that runs with the same settings make the same file.
        save_weights(self.directory, published, model.config, tokenizers, {"step": step})
        self.best.publish(progress.validations.best_step, model.config, tokenizers)
        self._prune(settings)

    def keep_best(self, model: Transformer, optimizer: Optimizer, step: int) -> None:
        """Keep the model of the best validation, to be put into best/ with the next state."""
        self.best.keep(published_parameters(model, optimizer), step, self._id)

    def _prune(self, settings: TrainSettings) -> None:
        """Remove the run's own checkpoints that the settings do not keep."""
        own = [path for path in self.checkpoint_paths() if self._is_own(path)]
        for old in own[: -settings.keep_checkpoints]:
            if not settings.keep_every or int(old.stem) % settings.keep_every:
                old.unlink()

    def has_checkpoint(self, step: int) -> bool:
        """Whether the parameters of this step are kept."""
        path = self._checkpoint(step)
        return path in self.checkpoint_paths() and self._is_own(path)

    def log(self, entry: dict[str, Any]) -> None:
        """Append an entry to metrics.jsonl. Raises UserError if it cannot be written."""
        self.check_place()
        append_metrics(self.directory, entry)

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
        read_about(self.state)
        self.check_own(self.state)
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
        # train.yaml may have lost its line with the id, and the checkpoints still bear it.
        self._id = self.id() or read_about(self.state).get("run") or secrets.token_hex(16)
        self._remove_unfinished()
        self.checkpoints.mkdir(exist_ok=True)  # it may have been deleted for space
        for path in self.checkpoint_paths():
            if not self._is_own(path):
                logger.warning(
                    "%s is damaged or not of this run, and is left alone; move it away, or it can "
                    "neither be averaged nor replaced",
                    path,
                )
            elif int(path.stem) > step:  # left by a kill before its state
                path.unlink()
        self._prune(settings)
        # The validation of this very step may have been killed, or not be counted in the state.
        validated = step if progress.validations.step == step else step - 1
        drop_metrics_after(self.directory, step, validated)
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
            published_parameters(model, optimizer),
            model.config,
            tokenizers,
            {"step": step},
            or_present_config=True,
        )
        save_config(self.directory, model.config)

    # Checkpoints

    def checkpoint_paths(self) -> list[Path]:
        """The files that are named as the run's checkpoints, oldest first."""
        ours = [
            path
            for path in self.checkpoints.glob("*.safetensors")
            if re.fullmatch("[0-9]+", path.stem)
            and path == self._checkpoint(int(path.stem))
            and path.is_file()
        ]
        return sorted(ours, key=lambda path: int(path.stem))

    def check_own(self, path: Path) -> None:
        """Raise UserError if a checkpoint or state is of another run, or cannot be read."""
        if not self._bears_id(path):
            raise UserError(
                f"{path} does not belong to the run in {self.directory}; move it away, or "
                "put the right one in its place"
            )

    def _is_own(self, path: Path) -> bool:
        try:
            return self._bears_id(path)
        except UserError:  # nobody knows whose it is
            return False

    def _bears_id(self, path: Path) -> bool:
        about, own = load_header(path)[1], self.id()
        is_ours = own is None or about.get("run") in (None, own)
        # A model that somebody has copied here bears no id, but the step that it is of.
        return is_ours and (path == self.state or str(about.get("step")) == str(int(path.stem)))

    def _checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:08d}.safetensors"

    # Leftovers

    def _unfinished(self) -> Iterator[Path]:
        """Files that a killed process left unfinished."""
        models = (self.directory, self.best.directory)
        names = (directory / name for directory in models for name in MODEL_FILES)
        others = (self.best.waiting, samples_path(self.directory))
        for path in (self.state, self.settings, self.metrics, *others, *names):
            target = Path(os.path.realpath(path))  # beside which the file was written
            yield from unfinished(target.parent, target.name.__eq__)
        yield from unfinished(self.checkpoints, re.compile(r"[0-9]{8,}\.safetensors").fullmatch)
        yield from unfinished(self.products, re.compile("[0-9a-f]{24}").fullmatch)

    def _remove_unfinished(self) -> None:
        for path in self._unfinished():
            path.unlink()
