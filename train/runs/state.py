"""training/state.safetensors: all that is needed to resume, in one file.

It holds the parameters, the optimizer's arrays in the parameters' order, the progress, the settings
and the id of the run, and what model cards say of its data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from npformer.checkpoint import (
    check_parameters,
    load_arrays,
    load_header,
    save_arrays,
    set_parameters,
)
from npformer.config import TransformerConfig
from npformer.errors import UnreadableError, UserError
from npformer.parts import PAPER_PARTS, Parts
from npformer.transformer import Transformer
from train.optimizer import Optimizer
from train.runs.progress import Progress
from train.runs.snapshot import Snapshot


def state_arrays(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The arrays of a state. Raises UserError if a number is not finite."""
    arrays = {
        **{f"parameter.{name}": value for name, value in snapshot.parameters.items()},
        **snapshot.optimizer,
    }
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"training diverged: after step {snapshot.step} {name} holds numbers that are not "
                "finite, and is not saved; resume from the checkpoint before (--resume) with a "
                "lower learning rate or a clip_norm"
            )
    return arrays


def save_state(
    path: Path, arrays: dict[str, np.ndarray], progress: Progress, about: dict[str, Any]
) -> None:
    """Write a state of `state_arrays`, with `about` beside its progress."""
    order = [name.removeprefix("parameter.") for name in arrays if name.startswith("parameter.")]
    save_arrays(path, arrays, {**progress.to_dict(), "order": order, **about})


def read_about(path: Path) -> dict[str, Any]:
    """What a state says about itself, its numbers checked, before its arrays are read."""
    about = load_header(path)[1]
    Progress.of(about, path)
    return about


def check_state(path: Path, config: TransformerConfig, parts: Parts = PAPER_PARTS) -> None:
    """Raise UserError unless a state has the parameters of such a model."""
    kinds = {
        name.removeprefix("parameter."): kind
        for name, kind in load_header(path)[0].items()
        if name.startswith("parameter.")
    }
    check_parameters(kinds, config, path, parts)


def load_state(path: Path, model: Transformer, optimizer: Optimizer) -> Progress:
    """Restore a model and its optimizer from a state; returns the progress.

    Raises UserError, and changes nothing, if a bit of the file has changed or it does not fit.
    """
    try:
        arrays, about = load_arrays(path)
    except UnreadableError:
        raise
    except UserError as error:
        raise UserError(
            f"{error}; resume from a copy of it, or begin another run with --init-from and the "
            "model in the same directory"
        ) from error
    progress = Progress.of(about, path)
    _check_numbers(path, arrays, optimizer)
    _check_order(path, about, model)
    restored = []
    for key, array in optimizer.state().items():
        name = f"{optimizer.name}.{key}"
        saved = arrays.pop(name, None)
        if saved is None or saved.shape != array.shape:
            raise UserError(f"{path} belongs to another model or optimizer: {name} does not fit")
        restored.append((array, saved))
    set_parameters(model, {k.removeprefix("parameter."): v for k, v in arrays.items()}, path)
    for array, saved in restored:
        array[...] = optimizer.owner.asarray(saved)
    optimizer.steps = progress.position.step
    return progress


def _check_order(path: Path, about: dict[str, Any], model: Transformer) -> None:
    """Raise UserError unless the flat moments are in the order of the model's parameters.

    Older states do not record their order. It has not changed for models with post-norm.
    """
    order = about.get("order", list(model.parameters()) if model.config.norm == "post" else [])
    if order != list(model.parameters()):
        raise UserError(
            f"{path} has the moments in another order, that of an earlier npformer: resume the run "
            "with the npformer that began it"
        )


def _check_numbers(path: Path, arrays: dict[str, np.ndarray], optimizer: Optimizer) -> None:
    """Raise UserError unless all arrays of a state are finite, and of the right dtypes."""
    dtypes = {f"{optimizer.name}.{key}": x.dtype for key, x in optimizer.state().items()}
    for name, array in arrays.items():
        if array.dtype != dtypes.get(name, np.float32):
            raise UserError(f"{path} belongs to another model: {name!r} holds {array.dtype}")
        if not np.isfinite(array).all():
            raise UserError(
                f"{path} holds numbers that are not finite, in {name!r}: training diverged; start "
                "again with a lower learning rate and another --out"
            )
