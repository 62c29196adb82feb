"""Arrays and models on disk: written whole or not at all, never unpickled, checked when read.

A model directory is self-contained:

    config.json  model.safetensors  tokenizer.spm   (or source.spm and target.spm)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.transformer import Transformer

VERSION = 1


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write named arrays to a safetensors file, with the checksum that `load_arrays` verifies.

    `about` is any JSON that belongs to them. The same arrays give the same bytes.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    details = {"version": VERSION, "about": about, "sha256": _checksum(arrays, about)}
    # One entry: safetensors writes several in random order.
    metadata = {"npformer": json.dumps(details, sort_keys=True)}
    data = safetensors.numpy.save(arrays, metadata=metadata)
    with atomic_write(path) as file:
        file.write(data)


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_arrays` wrote: the arrays, and what was said about them.

    Raises UserError where the file is missing, foreign, of a later version, cut short or altered.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; is this the directory of a model?")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            # Before reading the arrays: NumPy does not know every type that others write.
            details = _details(path, file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors: it is foreign or cut short ({error})"
        ) from error
    about = details.get("about")
    if not isinstance(about, dict) or details.get("sha256") != _checksum(arrays, about):
        raise UserError(f"{path} has been altered since it was written: its checksum is wrong")
    return arrays, about


def _details(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `save_arrays` wrote beside the arrays; raises UserError unless the version is ours."""
    try:
        details = json.loads(metadata["npformer"])
        version = details["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} was not written by npformer") from error
    if version != VERSION:
        raise UserError(
            f"{path} has format version {version}, and this npformer reads {VERSION}; "
            "use the npformer that wrote it, or a newer one"
        )
    return dict(details)


def _checksum(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def parameter_arrays(model: Transformer) -> dict[str, np.ndarray]:
    """The parameters of a model as NumPy arrays, by name."""
    return {name: p.numpy() for name, p in model.parameters().items()}


def save_model(directory: Path, model: Transformer) -> None:
    """Write config.json and model.safetensors."""
    save_config(directory, model.config)
    save_arrays(directory / "model.safetensors", parameter_arrays(model), {})


def save_config(directory: Path, config: TransformerConfig) -> None:
    """Write config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"format": "npformer", "version": VERSION, "model": config.to_dict()}, indent=2
    )
    with atomic_write(directory / "config.json") as file:
        file.write(text.encode() + b"\n")


def load_config(directory: Path) -> TransformerConfig:
    """Read config.json. Raises UserError where it is missing or is no configuration of ours."""
    path = directory / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{directory} is no model directory: {path.name} cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != "npformer":
        raise UserError(f"{path} was not written by npformer")
    if values.get("version") != VERSION:
        raise UserError(
            f"{path} has format version {values.get('version')}, and this npformer reads {VERSION}"
        )
    if not isinstance(values.get("model"), dict):
        raise UserError(f"{path} is incomplete: it has no settings of the model")
    return TransformerConfig.from_dict(values["model"])


def load_model(directory: Path) -> Transformer:
    """Read a model that `save_model` wrote, onto the current backend."""
    model = Transformer(load_config(directory))
    load_parameters(model, directory / "model.safetensors")
    return model


def load_parameters(model: Transformer, path: Path) -> None:
    """Overwrite a model's parameters with those in a file. Raises UserError where they differ."""
    arrays, _ = load_arrays(path)
    set_parameters(model, arrays, path)


def set_parameters(model: Transformer, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Overwrite a model's parameters; `path` is where the arrays come from, for messages."""
    parameters = model.parameters()
    wrong = sorted(set(parameters) ^ set(arrays))
    if wrong:
        where = "lacks" if wrong[0] in parameters else "has in addition"
        raise UserError(f"{path} is of another model: it {where} the parameter {wrong[0]!r}")
    for name, parameter in parameters.items():
        array = arrays[name]
        if array.shape != parameter.shape:
            raise UserError(
                f"{path} is of another model: {name!r} has shape {list(array.shape)} and not "
                f"{list(parameter.shape)}"
            )
    for name, parameter in parameters.items():
        parameter.assign(arrays[name])
