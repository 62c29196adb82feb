"""A model directory, written as a whole in place of an older one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from npformer.checkpoint import MODEL_FILES, read_config, save_config, save_weights
from npformer.config import TransformerConfig
from npformer.directories import check_not_a_file, whole_directory
from npformer.errors import UserError
from npformer.model_card import CARD, ModelCard, is_own, write_card
from npformer.tokenizer import TokenizerPair

logger = logging.getLogger("npformer")


def write_model(
    out: Path,
    config: TransformerConfig,
    parameters: Mapping[str, np.ndarray],
    tokenizers: TokenizerPair,
    card: ModelCard,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a model directory; an existing model in `out` is replaced as a whole.

    A README.md there that is not a card of npformer, or has been changed, is kept in place of
    `card`, with a warning.

    about: any JSON to keep with the parameters. Raises UserError if `out` holds anything but a
    model, or cannot be written.
    """
    check_replaceable(out)
    # An empty directory is filled in place: it may be a mount, or somebody's working directory. An
    # old model is replaced as a whole: files of two models do not make one.
    in_place = out.is_dir() and not any(out.iterdir())
    try:
        with nullcontext(out) if in_place else whole_directory(out) as new:
            save_config(new, config)
            tokenizers.save(new)
            write_card(new, card.text(config, sum(array.size for array in parameters.values())))
            save_weights(new, parameters, config, tokenizers, about)
            if not in_place:
                check_replaceable(out)  # again: something may have come into it meanwhile
                _keep_card(out, new)
    except OSError as error:
        raise UserError(f"cannot write the model {out}: {error.strerror}") from error


def _keep_card(old: Path, new: Path) -> None:
    """Put the README.md of the old directory into the new one, if it is somebody's work."""
    path = old / CARD
    if os.path.lexists(path) and not is_own(path):
        shutil.copy2(path, new / CARD)
        logger.warning("%s is not as npformer wrote it, and is kept; check what it says", path)


def check_replaceable(out: Path) -> None:
    """Raise UserError unless `out` is free, or holds a model of npformer and nothing else."""
    check_not_a_file(out, "the model")
    if not out.is_dir():
        return
    for path in sorted(out.iterdir()):
        if path.name not in {*MODEL_FILES, CARD} or path.is_symlink() or not path.is_file():
            raise UserError(f"{out} holds more than a model: {path.name!r}; give another --out")
    if any(out.iterdir()):
        try:
            read_config(out)
        except UserError as error:
            raise UserError(f"{out} is not replaced ({error}); give another --out") from error
