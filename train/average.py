"""Averaging the parameters of several checkpoints (section 6.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npformer.checkpoint import (
    check_parameters,
    load_arrays,
    load_config,
    load_header,
    load_tokenizers,
)
from npformer.errors import UserError
from npformer.model_directory import check_replaceable, write_model
from npformer.parts import PAPER_PARTS, Parts
from train.runs.cards import averaged_card
from train.runs.run import Run
from train.runs.state import read_about
from train.runs.training_data import TrainingData
from train.settings import TrainSettings
from train.wording import counted


def write_average(run: Path, last: int, out: Path, parts: Parts = PAPER_PARTS) -> None:
    """Write a model directory with the mean of a run's `last` newest checkpoints.

    parts: the classes that the run's model is built from. An existing model in `out` is replaced as
    a whole. Raises UserError if there are fewer checkpoints, if a file of the run has been altered
    or does not fit the others, and if `out` holds anything but a model or cannot be written.
    """
    check_replaceable(out)  # before minutes are spent
    config, tokenizers = load_config(run, parts), load_tokenizers(run)
    parameters = average_checkpoints(run, last, parts)
    steps = [int(path.stem) for path in Run(run).checkpoints.paths()[-last:]]
    card = averaged_card(steps, *_known_of(Run(run)), parts)
    write_model(out, config, parameters, tokenizers, card, {"averaged": last})


def _known_of(run: Run) -> tuple[TrainSettings | None, TrainingData | None]:
    """The settings and the data of a run for a model card, as far as its state tells them.

    A mean can be taken without a state, or with one that is damaged.
    """
    try:
        about = read_about(run.state)
        if not run.identity.owns(about):
            return None, None
        data = TrainingData.from_dict(about["data"], run.state) if "data" in about else None
        return run.saved_settings(), data
    except UserError:
        return None, None


def average_checkpoints(
    directory: Path, last: int, parts: Parts = PAPER_PARTS
) -> dict[str, np.ndarray]:
    """The mean of the parameters of a run's `last` newest checkpoints (section 6.1).

    Raises UserError if there are fewer, or one is damaged or does not fit the run's model.
    """
    if last < 1:
        raise UserError(f"--last must be at least 1; it is {last}")
    run = Run(directory)
    paths = run.checkpoints.paths()
    if len(paths) < last:
        raise UserError(
            f"{directory} holds {counted(len(paths), 'checkpoint')}, and --last asks for {last}; "
            "train with a larger keep_checkpoints, or average fewer"
        )
    config = load_config(directory, parts)
    for path in paths[-last:]:  # before minutes are spent on the first
        run.checkpoints.check_own(path)
        check_parameters(load_header(path)[0], config, path, parts)
    total: dict[str, np.ndarray] = {}
    for path in paths[-last:]:
        arrays, _ = load_arrays(path)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise UserError(
                    f"{path} cannot be averaged: {name!r} holds numbers that are not finite; "
                    "delete it, or take fewer with --last"
                )
            if name in total:
                total[name] += array
            else:
                total[name] = array.astype(np.float64)
    return {name: (sum_ / last).astype(np.float32) for name, sum_ in total.items()}
