"""Fine-tuning: a new run that begins with the parameters of a model, and nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from npformer.checkpoint import (
    WEIGHTS,
    load_arrays,
    load_config,
    load_tokenizers,
    set_parameters,
)
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.parts import PAPER_PARTS, Parts
from npformer.transformer import Transformer
from train.corpora.corpus import Corpus
from train.settings import MODEL_MAY_CHANGE, OF_THE_CORPUS


def model_settings(directory: Path) -> dict[str, Any]:
    """The configuration of the model in `directory`, as the settings `model` of a run."""
    config = load_config(directory)
    values, base = config.to_dict(), TransformerConfig.preset("base", vocab_size=1).to_dict()
    for name in OF_THE_CORPUS:
        del values[name]
    for name in ("d_k", "d_v"):
        if values[name] * config.heads == config.d_model:  # as it is unless given
            del values[name]
    values["longest"] = config.longest_source  # the run may have shorter sentences
    return {name: value for name, value in values.items() if value != base[name]}


def check_model_fits(
    directory: Path, config: TransformerConfig, corpus: Corpus, parts: Parts = PAPER_PARTS
) -> None:
    """Raise UserError unless a run on this corpus, with a model so configured, can begin with it.

    Dropout and smoothing may differ. Nothing is allocated.
    """
    if load_tokenizers(directory).sha256 != corpus.tokenizers.sha256:
        raise UserError(
            f"{corpus.directory} has tokenizers that differ from those of the model {directory}, "
            f"so its token ids have other meanings; prepare the corpus with --tokenizer {directory}"
        )
    given, own = (_with_source(c.to_dict()) for c in (config, load_config(directory, parts)))
    for name, value in own.items():
        if name not in MODEL_MAY_CHANGE and given[name] != value:
            raise UserError(
                f"the model {directory} has {name} = {value!r}, and a run that begins with it "
                f"cannot have {given[name]!r}; leave the sizes of the model out"
            )


def _with_source(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration that says how large the source's vocabulary is, be it its own or not."""
    return {**values, "source_vocab_size": values["source_vocab_size"] or values["vocab_size"]}


def load_parameters(directory: Path, model: Transformer) -> None:
    """Give `model` the parameters of the model in `directory`.

    Raises UserError if they are damaged, do not fit, or are not finite.
    """
    path = directory / WEIGHTS
    arrays, _ = load_arrays(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path} holds numbers that are not finite, in {name!r}")
    set_parameters(model, arrays, path)
