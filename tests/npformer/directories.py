"""A small model and its directory, and helpers to change it and to check refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from npformer import Batch, Tokenizer, TransformerConfig, UserError
from npformer.checkpoint import load_arrays, load_model, save_arrays

CONFIG = TransformerConfig(vocab_size=11, layers=1, d_model=4, d_ff=6, heads=2)
BATCH = Batch.of([[3, 4], [5]], [[6], [7, 8, 9]], begin_id=1, end_id=2)

on_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def older(directory: Path) -> Path:
    """A model directory from before weights held the checksums of the other files."""
    weights = directory / "model.safetensors"
    save_arrays(weights, load_arrays(weights)[0], {})
    return directory


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= changes
    path.write_text(json.dumps(values, indent=2) + "\n")


def refusal(path: Path) -> str:
    """The error of `load_model`, which is one line that names the directory."""
    with pytest.raises(UserError) as error:
        load_model(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def tokenizer(word: str = "b") -> Tokenizer:
    return Tokenizer.train([f"a {word}", f"{word} a {word}"], 263, byte_fallback=True)
