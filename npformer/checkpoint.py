"""Arrays and models on disk: written atomically, never pickled, verified when read.

A model directory is self-contained:

    config.json  model.safetensors  tokenizer.spm   (or source.spm and target.spm)

Beside them README.md, its card, tells people and hubs about it, and shortlist.safetensors, on
request, which target tokens a search may choose from. Neither is needed.

model.safetensors is written last. It holds a checksum of itself and those of the other files, so
that altered files, and files of another model, are refused. (Older files hold none, and are
accepted.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from autograd import Parameter
from npformer.config import TransformerConfig
from npformer.directories import how_to_restore
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.parts import PAPER_PARTS, Parts
from npformer.reading import JSON_LIMIT, is_version, open_plain, parse_json, read_plain
from npformer.tokenizer import TOKENIZER_FILES, TokenizerPair
from npformer.transformer import Transformer

VERSION = 1
CONFIG, WEIGHTS, SHORTLIST = "config.json", "model.safetensors", "shortlist.safetensors"
MODEL_FILES = {CONFIG, WEIGHTS, SHORTLIST, *TOKENIZER_FILES}

# The types that we write, as safetensors names them, in the order of a file's arrays.
_DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class ArrayKind(NamedTuple):
    """The type and shape of an array, known before it is read; `dtype` is NumPy's name."""

    dtype: str
    shape: tuple[int, ...]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write named arrays to a safetensors file, with the checksum that `load_arrays` verifies.

    about: any JSON to store with them. The same arrays give the same bytes. Raises TypeError for
    arrays that could not be read again, such as those of bfloat16.

    Other threads can run meanwhile, and no array is copied: safetensors' own writer serialises a
    file in memory first, in one long call.
    """
    arrays = {
        name: np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        for name, array in arrays.items()
    }
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES.values():
            raise TypeError(
                f"{name!r} is an array of {array.dtype.name}; a file holds floating-point numbers, "
                "integers and booleans of NumPy's own dtypes"
            )
    details = {"version": VERSION, "about": about, "sha256": _checksum(arrays, about)}
    # One entry, because safetensors writes several in random order.
    # NaN and infinity are refused here, for `parse_json` would refuse the file.
    metadata = {"npformer": json.dumps(details, sort_keys=True, allow_nan=False)}
    names = {dtype: name for name, dtype in _DTYPES.items()}
    order = list(_DTYPES)
    kinds = {name: names[array.dtype.name] for name, array in arrays.items()}
    sequence = sorted(arrays, key=lambda name: (order.index(kinds[name]), name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in sequence:
        begin, end = end, end + arrays[name].nbytes
        shape = list(arrays[name].shape)
        header[name] = {"dtype": kinds[name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sequence:
            file.write(_bytes_of(arrays[name]))


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays that `save_arrays` wrote, and the `about` that was stored with them.

    Raises UserError if the file is missing, foreign, of a later version, truncated or altered.
    """
    with _opened(path) as file:
        # Before the arrays are read: foreign files may have types that NumPy does not know.
        details, _ = _header(path, file)
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about: dict[str, Any] = details["about"]
    if details.get("sha256") != _checksum(arrays, about):
        raise _altered(path)
    return arrays, about


def load_header(path: Path) -> tuple[dict[str, ArrayKind], dict[str, Any]]:
    """Like `load_arrays`, with types and shapes in place of the arrays; does not verify contents.

    Raises UserError if the file is missing, foreign, of a later version or truncated.
    """
    with _opened(path) as file:
        details, kinds = _header(path, file)
    return kinds, details["about"]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; its errors within the block are raised as UserError."""
    try:
        open_plain(path).close()  # safetensors would block on a pipe, and hides the reason
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}); is this the directory of a model?"
        ) from error
    try:
        opened = safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _foreign(path, error) from error
    try:
        with opened as file:
            yield file
    except safetensors.SafetensorError as error:
        raise _foreign(path, error) from error


def _header(path: Path, file: Any) -> tuple[dict[str, Any], dict[str, ArrayKind]]:
    """The details that `save_arrays` wrote, and the types and shapes of the arrays.

    Raises UserError unless the file has our version.
    """
    metadata = (file.metadata() or {}).get("npformer")
    if metadata is None:
        raise UserError(f"{path} was not written by npformer")
    details = parse_json(metadata, f"the metadata of {path}")
    if not isinstance(details, dict) or "version" not in details:
        raise UserError(f"{path} was not written by npformer")
    if not is_version(details["version"], VERSION):
        raise UserError(
            f"{path} has format version {details['version']!r:.20}, and this npformer reads "
            f"{VERSION}; use the npformer that wrote it, or a newer one"
        )
    if not isinstance(details.get("about"), dict):
        raise _altered(path)
    kinds = {}
    for name in file.keys():  # noqa: SIM118, it is not a dictionary
        array = file.get_slice(name)
        dtype = _DTYPES.get(array.get_dtype())
        if dtype is None:
            raise _altered(path)
        kinds[name] = ArrayKind(dtype, tuple(array.get_shape()))
    return details, kinds


def _foreign(path: Path, error: Exception) -> UserError:
    reason = textwrap.shorten(str(error), 200)  # it may quote the file
    return UserError(
        f"{path} cannot be read as safetensors: it is another kind of file, or cut short ({reason})"
    )


def _altered(path: Path) -> UserError:
    return UserError(f"{path} has been altered since it was written: its checksum is wrong")


def _checksum(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def _bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data


def parameter_arrays(model: Transformer) -> dict[str, np.ndarray]:
    """The parameters of a model as NumPy arrays, by name.

    Raises UserError for a model whose weights are in 8 bits, and not those that it was made of.
    """
    if model.weights == "int8":
        raise UserError(
            "a model with weights in 8 bits is not written; take the directory that it was loaded "
            "from, which has them in float32"
        )
    return {name: p.numpy() for name, p in model.parameters().items()}


def save_model(
    directory: Path, model: Transformer, tokenizers: TokenizerPair | None = None
) -> None:
    """Write a model directory. Without tokenizers, they can be added later."""
    save_config(directory, model.config)
    if tokenizers:
        tokenizers.save(directory)
    save_weights(directory, parameter_arrays(model), model.config, tokenizers)


def save_weights(
    directory: Path,
    parameters: Mapping[str, np.ndarray],
    config: TransformerConfig,
    tokenizers: TokenizerPair | None,
    about: Mapping[str, Any] | None = None,
    *,
    or_present_config: bool = False,
) -> None:
    """Write model.safetensors, with the checksums of this configuration and these tokenizers.

    Their files are written before, by `save_config` and `TokenizerPair.save`. To replace
    config.json while others may be reading, write the weights first, with `or_present_config`:
    they then accept the present config.json too, so that the two fit at every moment.
    """
    configs = [_config_json(config)]
    if or_present_config:
        configs.append(_config_content(directory))
    files: dict[str, Any] = {"configs": sorted({hashlib.sha256(c).hexdigest() for c in configs})}
    if tokenizers:
        files["tokenizers"] = tokenizers.sha256
    save_arrays(directory / WEIGHTS, parameters, {**(about or {}), **files})


def save_config(directory: Path, config: TransformerConfig) -> None:
    """Write config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_write(directory / CONFIG) as file:
        file.write(_config_json(config))


def _config_json(config: TransformerConfig) -> bytes:
    values = {"format": "npformer", "version": VERSION, "model": config.to_dict()}
    return json.dumps(values, indent=2).encode() + b"\n"


def load_config(directory: Path, parts: Parts = PAPER_PARTS) -> TransformerConfig:
    """Read config.json, and check that it fits model.safetensors.

    Raises UserError if it is not a configuration of npformer, or not that of the weights, by the
    checksum or by the names and shapes of their arrays.
    """
    config, sha256 = _read_config(directory)
    path = directory / WEIGHTS
    kinds, about = load_header(path)
    if "configs" in about and not (
        isinstance(about["configs"], list) and sha256 in about["configs"]
    ):
        raise UserError(
            f"{directory / CONFIG} is not the file that {WEIGHTS} was written with: it has been "
            "altered, or belongs to another model; restore the right one"
        )
    check_parameters(kinds, config, path, parts)
    return config


def read_config(directory: Path) -> TransformerConfig:
    """Read config.json alone. Raises UserError if it is not a configuration of npformer."""
    return _read_config(directory)[0]


def is_own_model(directory: Path) -> bool:
    """Whether a directory has a configuration that npformer can read."""
    try:
        read_config(directory)
    except UserError:
        return False
    return True


def _read_config(directory: Path) -> tuple[TransformerConfig, str]:
    """The configuration, and the SHA-256 of its file."""
    path = directory / CONFIG
    content = _config_content(directory)
    values = parse_json(content, path)
    if not isinstance(values, dict) or values.get("format") != "npformer":
        is_hugging_face = isinstance(values, dict) and "model_type" in values
        advice = "; `npformer import` can make a model of one of Hugging Face's Marian"
        raise UserError(f"{path} was not written by npformer{advice if is_hugging_face else ''}")
    if not is_version(values.get("version"), VERSION):
        raise UserError(
            f"{path} has format version {values.get('version')!r:.20}, and this npformer reads "
            f"{VERSION}"
        )
    if not isinstance(values.get("model"), dict):
        raise UserError(f"{path} is incomplete: it has no settings of the model")
    try:
        config = TransformerConfig.from_dict(values["model"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config, hashlib.sha256(content).hexdigest()


def _config_content(directory: Path) -> bytes:
    try:
        return read_plain(directory / CONFIG, JSON_LIMIT)
    except OSError as error:
        raise UserError(
            f"{directory} is not a model directory: {CONFIG} cannot be read ({error.strerror})"
            f"{how_to_restore(directory)}"
        ) from error


def load_tokenizers(directory: Path) -> TokenizerPair:
    """Read the tokenizers of a model directory.

    Raises UserError if they are missing, damaged, or not those of the weights.
    """
    path = directory / WEIGHTS
    _, about = load_header(path)
    expected = about.get("tokenizers")
    if expected is not None and not isinstance(expected, dict):
        raise _altered(path)
    return TokenizerPair.load(directory, expected)


def load_model(directory: Path, parts: Parts = PAPER_PARTS) -> Transformer:
    """Read a model that `save_model` wrote, onto the current backend; `parts` as it had them."""
    config = load_config(directory, parts)  # before memory is allocated
    path = directory / WEIGHTS
    arrays, _ = load_arrays(path)
    model = Transformer(config, parts=parts)
    set_parameters(model, arrays, path)
    return model


def set_parameters(model: Transformer, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Overwrite a model's parameters; `path` is the origin of the arrays, for messages."""
    kinds = {name: ArrayKind(str(array.dtype), array.shape) for name, array in arrays.items()}
    _check_kinds(kinds, model.parameters(), path)
    for name, parameter in model.parameters().items():
        parameter.assign(arrays[name])


def check_parameters(
    kinds: Mapping[str, ArrayKind],
    config: TransformerConfig,
    path: Path,
    parts: Parts = PAPER_PARTS,
) -> None:
    """Raise UserError unless these are the parameters of such a model; `path` is for messages.

    The time depends on the number of arrays, not on the sizes in a damaged configuration.
    """
    most = len(kinds) + 1  # with more layers, one is missing
    config = dataclasses.replace(
        config,
        layers=min(config.layers, most),
        decoder_layers=min(config.decoder_depth, most),
    )
    _check_kinds(kinds, Transformer(config, parts=parts, allocate=False).parameters(), path)


def _check_kinds(
    kinds: Mapping[str, ArrayKind], parameters: Mapping[str, Parameter], path: Path
) -> None:
    for name, parameter in parameters.items():
        kind, shape = kinds.get(name), parameter.shape
        if kind is None:
            raise UserError(f"{path} belongs to another model: it lacks the parameter {name!r}")
        if kind.shape != shape:
            raise UserError(
                f"{path} belongs to another model: {name!r} has shape {list(kind.shape)}, not "
                f"{list(shape)}"
            )
        if kind.dtype not in ("float32", "float64"):
            raise UserError(f"{path} belongs to another model: {name!r} holds {kind.dtype}")
    if others := sorted(kinds.keys() - parameters.keys()):
        raise UserError(
            f"{path} belongs to another model: it also has the parameter {others[0]!r:.100}"
        )
