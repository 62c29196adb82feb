"""Import: a model directory of ours from one of another program."""

from __future__ import annotations

import os
from pathlib import Path

from npformer.checkpoint import WEIGHTS, ArrayKind, check_parameters
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.formats.fairseq import is_fairseq, read_fairseq
from npformer.formats.foreign import ImportedModel
from npformer.formats.hugging_face import is_marian, read_marian
from npformer.formats.joeynmt import is_joeynmt, read_joeynmt
from npformer.formats.marian import marian_file, read_marian_npz
from npformer.model_card import ModelCard, languages_and_license
from npformer.model_directory import check_replaceable, write_model


def import_model(
    directory: str | os.PathLike[str], out: str | os.PathLike[str]
) -> TransformerConfig:
    """Read the model of another program in `directory`, and write it as ours to `out`.

    An existing model in `out` is replaced as a whole. Returns the model's configuration. Raises
    UserError if the directory is missing, incomplete or damaged, or the model has something that
    npformer cannot compute.
    """
    source = Path(directory)
    if not source.is_dir():
        raise UserError(f"there is no model directory {source}")
    check_replaceable(Path(out))
    model = _read(source)
    kinds = {name: ArrayKind(str(a.dtype), a.shape) for name, a in model.parameters.items()}
    check_parameters(kinds, model.config, source / WEIGHTS)
    write_model(Path(out), model.config, model.parameters, model.tokenizers, _card(model, source))
    return model.config


def _card(model: ImportedModel, source: Path) -> ModelCard:
    """What is known of the original: its program, and what the card beside it says."""
    languages, license = languages_and_license(source)
    return ModelCard(
        f"It was imported from {model.program}; its parameters are those of the original.",
        model.source_language,
        model.target_language,
        languages,
        license,
    )


def _read(directory: Path) -> ImportedModel:
    if is_marian(directory):
        return read_marian(directory)
    if is_fairseq(directory):
        return read_fairseq(directory)
    if is_joeynmt(directory):
        return read_joeynmt(directory)
    if path := marian_file(directory):
        return read_marian_npz(path)
    raise UserError(
        f"{directory} holds no model that can be imported: there is no config.json with a "
        "model_type, as Hugging Face's models have it, no .npz file of Marian's, no config.yaml of "
        "JoeyNMT's and no args.json of fairseq's (docs/importing.md says what must be there)"
    )
