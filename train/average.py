"""Averaging the parameters of several checkpoints (section 6.1)."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np

from npformer.checkpoint import (
    MODEL_FILES,
    check_parameters,
    load_arrays,
    load_config,
    load_header,
    load_tokenizers,
    read_config,
    save_config,
    save_weights,
)
from npformer.directories import check_not_a_file, whole_directory
from npformer.errors import UserError
from npformer.parts import PAPER_PARTS, Parts
from train.runs.run import Run
from train.wording import counted


def write_average(run: Path, last: int, out: Path, parts: Parts = PAPER_PARTS) -> None:
    """Write a model directory with the mean of a run's `last` newest checkpoints.

    parts: the classes that the run's model is built from. An existing model in `out` is replaced as
    a whole. Raises UserError if there are fewer checkpoints, if a file of the run has been altered
    or does not fit the others, and if `out` holds anything but a model or cannot be written.
    """
    _check_replaceable(out)
    config, tokenizers = load_config(run, parts), load_tokenizers(run)
    parameters = average_checkpoints(run, last, parts)
    # An empty directory is filled in place: it may be a mount, or somebody's working directory. An
    # old model is replaced as a whole: files of two models do not make one.
    in_place = out.is_dir() and not any(out.iterdir())
    try:
        with nullcontext(out) if in_place else whole_directory(out) as new:
            save_config(new, config)
            tokenizers.save(new)
            save_weights(new, parameters, config, tokenizers, {"averaged": last})
            if not in_place:
                _check_replaceable(out)  # again: something may have come into it meanwhile
    except OSError as error:
        raise UserError(f"cannot write the model {out}: {error.strerror}") from error


def _check_replaceable(out: Path) -> None:
    """Raise UserError unless `out` is free, or holds a model of npformer and nothing else."""
    check_not_a_file(out, "the model")
    if not out.is_dir():
        return
    for path in sorted(out.iterdir()):
        if path.name not in MODEL_FILES or path.is_symlink() or not path.is_file():
            raise UserError(f"{out} holds more than a model: {path.name!r}; give another --out")
    if any(out.iterdir()):
        try:
            read_config(out)
        except UserError as error:
            raise UserError(f"{out} is not replaced ({error}); give another --out") from error


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
