"""Export: a directory for another program from one of our model directories."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from npformer.checkpoint import load_model, load_tokenizers, parameter_arrays
from npformer.directories import check_not_a_file, whole_directory
from npformer.errors import UserError
from npformer.formats.ctranslate2 import write_ctranslate2
from npformer.formats.hugging_face_export import write_marian
from npformer.formats.outgoing import OutgoingModel
from npformer.shortlist_file import has_shortlist, load_shortlist

FORMATS: dict[str, Callable[[OutgoingModel, Path], list[str]]] = {
    "marian": write_marian,
    "ctranslate2": write_ctranslate2,
}
"""What writes each format."""


def export_model(
    directory: str | os.PathLike[str], out: str | os.PathLike[str], format: str
) -> list[str]:
    """Write the model in `directory` to the new directory `out`, in one of the FORMATS.

    Returns notes on what is not quite the same there. Raises UserError if the format cannot hold
    the model, the model is incomplete or damaged, or `out` is not empty.
    """
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r:.40}; choose one of {', '.join(FORMATS)}")
    source, target = Path(directory), Path(out)
    if not source.is_dir():
        raise UserError(f"there is no model directory {source}")
    check_not_a_file(target, "the exported model")
    is_there = target.is_dir()
    if is_there and any(target.iterdir()):
        raise UserError(f"{target} is not empty; give a new directory for the exported model")
    model, tokenizers = load_model(source), load_tokenizers(source)
    shortlist = load_shortlist(source, tokenizers) if has_shortlist(source) else None
    outgoing = OutgoingModel(model.config, parameter_arrays(model), tokenizers, shortlist)
    try:
        with nullcontext(target) if is_there else whole_directory(target) as new:
            return FORMATS[format](outgoing, new)
    except OSError as error:
        raise UserError(f"cannot write the model {target}: {error.strerror}") from error
