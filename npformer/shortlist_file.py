"""The file of a shortlist, in the directory of the model whose vocabulary it is of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autograd import Sentences
from npformer.checkpoint import SHORTLIST, load_arrays, save_arrays
from npformer.errors import UserError
from npformer.packed import Packed
from npformer.shortlist import Shortlist
from npformer.tokenizer import TokenizerPair

_KINDS = {"always": np.int32, "candidates": np.int32, "lengths": np.int64}


def save_shortlist(
    directory: Path, shortlist: Shortlist, tokenizers: TokenizerPair, about: Mapping[str, Any]
) -> None:
    """Write shortlist.safetensors. about: any JSON to keep with it, how it was made."""
    arrays = {
        "always": shortlist.always,
        "candidates": shortlist.of_source.tokens,
        "lengths": shortlist.of_source.lengths,
    }
    save_arrays(directory / SHORTLIST, arrays, {**about, "tokenizers": tokenizers.sha256})


def has_shortlist(directory: Path) -> bool:
    """Whether a model directory has a shortlist, which may be damaged."""
    return os.path.lexists(directory / SHORTLIST)


def load_shortlist(directory: Path, tokenizers: TokenizerPair) -> Shortlist:
    """Read the shortlist of a model directory.

    Raises UserError if there is none, or it is damaged, foreign or of another vocabulary.
    """
    path = directory / SHORTLIST
    if not has_shortlist(directory):
        raise UserError(
            f"{directory} has no shortlist; make one with npformer shortlist --model {directory}"
        )
    arrays, about = load_arrays(path)
    if {name: array.dtype for name, array in arrays.items()} != _KINDS:
        raise UserError(f"{path} is not a shortlist; make one with npformer shortlist")
    if about.get("tokenizers") != tokenizers.sha256:
        raise UserError(
            f"{path} belongs to a model of another vocabulary; make one with npformer shortlist"
        )
    always, candidates, lengths = (arrays[name] for name in _KINDS)
    size = tokenizers.target.vocab_size
    if not (
        lengths.shape == (tokenizers.source.vocab_size,)
        and always.ndim == candidates.ndim == 1
        and ((lengths >= 0) & (lengths <= len(candidates))).all()
        and lengths.sum() == len(candidates)
        and all(((ids >= 0) & (ids < size)).all() for ids in (always, candidates))
    ):
        raise UserError(f"{path} is not a shortlist; make one with npformer shortlist")
    return Shortlist(always, Packed(candidates, Sentences(lengths)), size)
