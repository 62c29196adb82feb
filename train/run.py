"""The directory of a training run: its results, and what is needed to resume it.

config.json  model.safetensors  tokenizer.spm     a model directory, of the newest checkpoint
train.yaml                                        the run's settings
metrics.jsonl                                     a line for each log entry and validation
checkpoints/00001000.safetensors                  the newest parameters, for averaging
training/state.safetensors                        parameters, moments and position, for resuming
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import reprlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from autograd import to_host
from npformer.checkpoint import (
    check_parameters,
    load_arrays,
    load_header,
    parameter_arrays,
    read_config,
    save_arrays,
    save_config,
    save_weights,
    set_parameters,
)
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.parts import THE_PAPERS, Parts
from npformer.reading import read_plain
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer
from train.optimizer import Optimizer
from train.settings import ModelSettings, TrainSettings, shown


@dataclass
class Position:
    """The progress of a run: steps taken, the next epoch and batch in it, seconds spent."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, values: Any, path: Path) -> Position:
        """The position in a state; `path` is the state's file, for messages."""
        if not isinstance(values, dict) or values.keys() != {f.name for f in fields(cls)}:
            raise UserError(f"{path} is no state of a training run: it holds no position")
        for name, value in values.items():
            kinds = (int, float) if name == "seconds" else (int,)
            if type(value) not in kinds or not 0 <= value < math.inf:
                raise UserError(
                    f"{path} is damaged: {name} is {reprlib.repr(value)} in its position; resume "
                    "from a copy of it, or start the run again with another --out"
                )
        return cls(**values)


class Run:
    """The directory of one training run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "training" / "state.safetensors"
        self.metrics = directory / "metrics.jsonl"
        self.checkpoints = directory / "checkpoints"

    def create(
        self, settings: TrainSettings, model: Transformer, tokenizers: TokenizerPair, corpus: str
    ) -> None:
        """Create the directory of a new run. Raises UserError if it exists and is not empty."""
        if self.directory.exists() and any(self.directory.iterdir()):
            raise UserError(
                f"{self.directory} exists and is not empty; give --resume to resume the run in it, "
                "or another --out"
            )
        for directory in (self.state.parent, self.checkpoints):
            directory.mkdir(parents=True, exist_ok=True)
        save_config(self.directory, model.config)
        tokenizers.save(self.directory)
        self.save_settings(settings, corpus)

    def save_settings(self, settings: TrainSettings, corpus: str) -> None:
        """Write train.yaml: the settings, and the fingerprint of the corpus."""
        values = dataclasses.asdict(settings)
        values["model"] = {k: v for k, v in values["model"].items() if v is not None}
        text = f"# corpus {corpus}\n" + yaml.safe_dump(values, sort_keys=False)
        with atomic_write(self.directory / "train.yaml") as file:
            file.write(text.encode())

    def corpus(self) -> str:
        """The fingerprint of the corpus that the run was started with."""
        path = self.directory / "train.yaml"
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                first = file.readline(200).rstrip("\n")
        except OSError as error:
            raise UserError(
                f"{self.directory} holds no run to resume: {path} cannot be read ({error.strerror})"
            ) from error
        return first.removeprefix("# corpus ")

    def save(
        self,
        model: Transformer,
        tokenizers: TokenizerPair,
        optimizer: Optimizer,
        position: Position,
        keep: int,
    ) -> None:
        """Write a checkpoint. A kill at any moment leaves this one or the previous one."""
        parameters = parameter_arrays(model)
        about = {"step": position.step}
        if position.step:  # an untrained model is not worth averaging
            save_arrays(self._checkpoint(position.step), parameters, about)
        save_arrays(
            self.state,
            {
                **{f"parameter.{key}": value for key, value in parameters.items()},
                **{f"{optimizer.name}.{key}": to_host(x) for key, x in optimizer.state().items()},
            },
            {"position": dataclasses.asdict(position), "order": list(parameters)},
        )
        save_weights(self.directory, parameters, model.config, tokenizers, about)
        for old in self.checkpoint_paths()[:-keep]:
            old.unlink()

    def check_model(self, config: TransformerConfig, parts: Parts = THE_PAPERS) -> None:
        """Raise UserError unless the run's model has this configuration.

        Dropout and smoothing may change when a run is resumed. The check allocates no memory for
        the sizes in a file, which may be damaged.
        """
        free = {"dropout", "attention_dropout", "ffn_dropout", "smoothing", "smoothing_spread"}
        given = config.to_dict()
        for name, value in read_config(self.directory).to_dict().items():
            if name not in free and given[name] != value:
                raise UserError(
                    f"{self.directory} has a model with {name} = {value!r}, and cannot be resumed "
                    f"with {given[name]!r}; start a new run with another --out"
                )
        if not self.state.is_file():
            raise UserError(
                f"{self.directory} holds no checkpoint to resume from ({self.state.name} is not "
                "there); start the run again with another --out"
            )
        saved, about = load_header(self.state)
        Position.of(about.get("position"), self.state)
        kinds = {
            name.removeprefix("parameter."): kind
            for name, kind in saved.items()
            if name.startswith("parameter.")
        }
        check_parameters(kinds, config, self.state, parts)

    def resume(
        self, model: Transformer, tokenizers: TokenizerPair, optimizer: Optimizer
    ) -> Position:
        """Restore everything from the newest checkpoint, and drop later metrics.

        The files of the model directory are rewritten: they may have been lost or altered, and
        dropout may have changed.
        """
        arrays, about = load_arrays(self.state)
        position = Position.of(about.get("position"), self.state)
        self._check_numbers(arrays, optimizer)
        self._check_order(about, model)
        for key, array in optimizer.state().items():
            name = f"{optimizer.name}.{key}"
            saved = arrays.pop(name, None)
            if saved is None or saved.shape != array.shape:
                raise UserError(
                    f"{self.state} is of another model or optimizer: {name} does not fit"
                )
            array[...] = optimizer.owner.asarray(saved)
        set_parameters(
            model, {k.removeprefix("parameter."): v for k, v in arrays.items()}, self.state
        )
        optimizer.steps = position.step
        for path in self.checkpoint_paths():
            if int(path.stem) > position.step:  # left by a kill before its state was written
                path.unlink()
        self._truncate_metrics(position.step)
        self._write_model(model, tokenizers, position)
        return position

    def _check_order(self, about: dict[str, Any], model: Transformer) -> None:
        """Raise UserError unless the flat moments are in the order of the model's parameters.

        Older states do not record their order. It has not changed for models with post-norm.
        """
        order = about.get("order", list(model.parameters()) if model.config.norm == "post" else [])
        if order != list(model.parameters()):
            raise UserError(
                f"{self.state} has the moments in another order, that of an earlier npformer: "
                "resume the run with the npformer that began it"
            )

    def _check_numbers(self, arrays: dict[str, np.ndarray], optimizer: Optimizer) -> None:
        """Raise UserError unless all arrays of a state are finite, and of the right dtypes."""
        dtypes = {f"{optimizer.name}.{key}": x.dtype for key, x in optimizer.state().items()}
        for name, array in arrays.items():
            if array.dtype != dtypes.get(name, np.float32):
                raise UserError(f"{self.state} is of another model: {name!r} holds {array.dtype}")
            if not np.isfinite(array).all():
                raise UserError(
                    f"{self.state} holds numbers that are not finite, in {name!r}: training "
                    "diverged; start again with a lower learning rate and another --out"
                )

    def _write_model(
        self, model: Transformer, tokenizers: TokenizerPair, position: Position
    ) -> None:
        """Write the files of the model directory, so that it can be read at every moment."""
        tokenizers.save(self.directory)
        about = {"step": position.step}
        save_weights(
            self.directory,
            parameter_arrays(model),
            model.config,
            tokenizers,
            about,
            or_present_config=True,
        )
        save_config(self.directory, model.config)

    def log(self, entry: dict[str, Any]) -> None:
        """Append an entry to metrics.jsonl. Raises UserError if it cannot be written."""
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.metrics}: {error.strerror}") from error

    def checkpoint_paths(self) -> list[Path]:
        """The run's own checkpoints, oldest first, without other files that lie beside them."""
        ours = [
            path
            for path in self.checkpoints.glob("*.safetensors")
            if re.fullmatch("[0-9]+", path.stem)
            and path == self._checkpoint(int(path.stem))
            and path.is_file()
        ]
        return sorted(ours, key=lambda path: int(path.stem))

    def _checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:08d}.safetensors"

    def _truncate_metrics(self, step: int) -> None:
        kept = [entry for entry in read_metrics(self.directory) if entry["step"] <= step]
        with atomic_write(self.metrics) as file:
            file.writelines(json.dumps(entry).encode() + b"\n" for entry in kept)


_LARGEST_METRICS = 1 << 28  # bytes: a million entries


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics.jsonl, without a last line that a kill has truncated.

    Raises UserError, naming the line, for an invalid entry.
    """
    path = directory / "metrics.jsonl"
    try:
        lines = read_plain(path, _LARGEST_METRICS).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    entries = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            wrong = _what_is_wrong(entry)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deeply
            wrong = "it is not JSON"
        if wrong:
            raise UserError(
                f"{path}, line {number}, is no entry of a log: {wrong}; delete the line, or move "
                "the file away to go on without it"
            )
        entries.append(entry)
    return entries


_WHOLE = ("step", "epoch")
_NEEDED = {
    "loss": ("step", "seconds", "loss", "perplexity", "rate"),
    "valid_loss": ("step", "seconds", "valid_loss", "valid_perplexity"),
}


def _what_is_wrong(entry: Any) -> str | None:
    """Why this is neither a log entry nor a validation; None if it is one.

    Infinity and NaN are accepted, as Python writes them: a run logs a perplexity that overflows as
    infinity, and its curve has a gap there.
    """
    if not isinstance(entry, dict):
        return "it is no object"
    kind = next((kind for kind in _NEEDED if kind in entry), None)
    if kind is None:
        return "it has no loss"
    for name in _NEEDED[kind]:
        if name not in entry:
            return f"it has no {name}"
    for name, value in entry.items():
        if name in _WHOLE:
            if type(value) is not int or not 0 <= value < 2**63:
                return f"{name} is no whole number"
        elif name != "signature" and type(value) is not float and type(value) is not int:
            return f"{name} is no number"
        elif type(value) is int and abs(value) >= 2**63:
            return f"{name} is too large"
    return None


def settings_from_dict(values: dict[str, Any]) -> TrainSettings:
    """Settings from nested dictionaries. Raises UserError for an unknown name."""
    values = dict(values)
    model = values.pop("model", {})
    if not isinstance(model, dict):
        raise UserError(f"model must hold settings, a line each; it is {shown(model)}")
    for given, kind, prefix in ((values, TrainSettings, ""), (model, ModelSettings, "model.")):
        known = {f.name for f in dataclasses.fields(kind)}
        for name in given:
            if name not in known:
                raise UserError(f"there is no setting {prefix}{name}")
    return TrainSettings(model=ModelSettings(**model), **values)
