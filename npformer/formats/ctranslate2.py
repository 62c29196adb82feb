"""Our models in the binary format of CTranslate2.

    model.bin  config.json  shared_vocabulary.json (or source_vocabulary.json, target_...)
    vmap.txt, if the model has a shortlist

model.bin holds named variables, sorted by name, and then aliases: other names of a variable.
vmap.txt has a line for each source token: the token, a tab, and candidates with spaces between
them. Those of a line without a token are candidates for every sentence.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.formats.layer_names import sides
from npformer.formats.outgoing import OutgoingModel, write_json
from npformer.positions import sinusoids
from npformer.shortlist import Shortlist
from npformer.vocabulary import Vocabulary

_FORMAT = "CTranslate2"
_VERSION, _REVISION, _KIND = 6, 7, "TransformerSpec"
_ACTIVATIONS = {"relu": 0, "swish": 2}
_TYPES = {"float32": 0, "int8": 1, "int16": 2}
_SPACES = set(" \t\r\n")
_NEVER = -1e30  # the bias of a token that is never chosen; finite, so that sums stay numbers

Value = np.ndarray | np.generic  # an array, or a number that stands alone


def write_ctranslate2(model: OutgoingModel, directory: Path) -> list[str]:
    """Write a directory that `ctranslate2.Translator` loads, with the SentencePiece models.

    It translates lists of pieces, without the end, which it adds itself. Returns notes, of which
    there are none. Raises UserError for a model that the format cannot hold.
    """
    model.require(_FORMAT, attention_window=None)
    model.require_activation(_FORMAT, _ACTIVATIONS)
    model.require_even_heads(_FORMAT)
    source, target = model.vocabularies
    for name, what in (("end_id", "the end"), ("unknown_id", "unknown words")):
        tokens = [v.pieces[getattr(v, name)] for v in (source, target)]
        if tokens[0] != tokens[1]:
            raise UserError(
                f"{_FORMAT} cannot hold vocabularies with two tokens for {what}, "
                f"{tokens[0]!r:.40} in the source and {tokens[1]!r:.40} in the target"
            )

    vocabularies = {"source": source, "target": target}
    if list(source.pieces) == list(target.pieces):
        vocabularies = {"shared": source}
    for side, vocabulary in vocabularies.items():
        write_json(directory / f"{side}_vocabulary.json", list(vocabulary.pieces))
    model.write_sentencepiece(directory)
    config = {
        "add_source_bos": False,
        "add_source_eos": True,
        "bos_token": target.pieces[target.begin_id],
        "decoder_start_token": target.pieces[target.begin_id],
        "eos_token": target.pieces[target.end_id],
        "layer_norm_epsilon": model.config.norm_epsilon,
        "multi_query_attention": False,
        "unk_token": target.pieces[target.unknown_id],
    }
    write_json(directory / "config.json", config)
    with atomic_write(directory / "model.bin") as file:
        _write_variables(file, dict(_variables(model)))
    if model.shortlist:
        _write_candidates(directory / "vmap.txt", model.shortlist, source, target)
    return []


def _write_candidates(
    path: Path, shortlist: Shortlist, source: Vocabulary, target: Vocabulary
) -> None:
    """Write vmap.txt, without the tokens that hold spaces, which it cannot have."""

    def written(ids: np.ndarray) -> str:
        pieces = [target.pieces[i] for i in ids.tolist()]
        return " ".join(piece for piece in pieces if not _SPACES & set(piece))

    with atomic_write(path) as file:
        file.write(f"\t{written(shortlist.always)}\n".encode())
        for piece, ids in zip(source.pieces, shortlist.of_source, strict=True):
            if not _SPACES & set(piece) and (candidates := written(ids)):
                file.write(f"{piece}\t{candidates}\n".encode())


def _variables(model: OutgoingModel) -> Iterator[tuple[str, Value]]:
    """Everything that the format has of a model, by its names there."""
    config, own = model.config, model.parameters
    embedding = own["embedding"]
    for side, layers in sides(config):
        yield f"{side}/activation", np.int8(_ACTIVATIONS[config.activation])
        yield f"{side}/num_heads", np.int16(config.heads)
        yield f"{side}/pre_norm", np.int8(config.norm == "pre")
        yield f"{side}/scale_embeddings", np.int8(config.scale_embeddings)
        yield f"{side}/position_encodings/encodings", _positions(model, side)
        if config.norm == "pre":
            yield from _norm(model, f"{side}/layer_norm", f"{side}.norm")
        for i in range(layers):
            yield from _layer(model, f"{side}/layer_{i}", f"{side}.{i}")
    yield "encoder/embeddings_0/weight", own.get("source_embedding", embedding)
    yield "encoder/embeddings_merge", np.int8(0)
    yield "encoder/multi_query_attention", np.int8(0)
    yield "decoder/embeddings/weight", embedding
    yield "decoder/start_from_zero_embedding", np.int8(config.decoder_start == "zero")
    yield "decoder/alignment_heads", np.int16(1)
    yield "decoder/alignment_layer", np.int16(-1)
    for name in ("alibi", "alibi_use_positive_positions", "scale_alibi"):
        yield f"decoder/{name}", np.int8(0)
    yield "decoder/projection/weight", own.get("projection", embedding)
    if config.output_bias or config.suppressed_ids:
        bias = own.get("output_bias", np.zeros(config.vocab_size, np.float32)).copy()
        bias[list(config.suppressed_ids)] = _NEVER
        yield "decoder/projection/bias", bias


def _layer(model: OutgoingModel, theirs: str, ours: str) -> Iterator[tuple[str, Value]]:
    parts = {
        "self_attention": ("self_attention", ("qkv", "output")),
        "attention": ("cross_attention", ("q", "kv", "output")),
        "ffn": ("feed_forward", ("inner", "outer")),
    }
    for name, (part, linears) in parts.items():
        if f"{ours}.{part}.norm.gain" not in model.parameters:
            continue  # an encoder has no cross-attention
        yield from _norm(model, f"{theirs}/{name}/layer_norm", f"{ours}.{part}.norm")
        for i, linear in enumerate(linears):
            weight = model.parameters[f"{ours}.{part}.{linear}.weight"]
            yield f"{theirs}/{name}/linear_{i}/weight", weight.T
            bias = model.parameters[f"{ours}.{part}.{linear}.bias"]
            yield f"{theirs}/{name}/linear_{i}/bias", bias


def _norm(model: OutgoingModel, theirs: str, ours: str) -> Iterator[tuple[str, Value]]:
    yield f"{theirs}/gamma", model.parameters[f"{ours}.gain"]
    yield f"{theirs}/beta", model.parameters[f"{ours}.bias"]


def _positions(model: OutgoingModel, side: str) -> np.ndarray:
    config = model.config
    if config.positions == "learned":
        return model.parameters["source_positions" if side == "encoder" else "target_positions"]
    return sinusoids(
        model.positions,
        config.d_model,
        config.positions,
        config.position_spacing,
        config.first_position,
    ).astype(np.float32)


def _write_variables(file: BinaryIO, variables: dict[str, Value]) -> None:
    """Write model.bin."""
    aliases: dict[str, str] = {}
    names: dict[int, str] = {}
    for name in sorted(variables):
        first = names.setdefault(id(variables[name]), name)
        if first != name:
            aliases[name] = first
    _write_number(file, "I", _VERSION)
    _write_text(file, _KIND)
    _write_number(file, "I", _REVISION)
    _write_number(file, "I", len(names))
    for name in names.values():
        array = np.asarray(variables[name], order="C")
        _write_text(file, name)
        _write_number(file, "B", array.ndim)
        for size in array.shape:
            _write_number(file, "I", size)
        _write_number(file, "B", _TYPES[array.dtype.name])
        _write_number(file, "I", array.nbytes)
        file.write(array.tobytes())
    _write_number(file, "I", len(aliases))
    for alias, name in aliases.items():
        _write_text(file, alias)
        _write_text(file, name)


def _write_number(file: BinaryIO, form: str, number: int) -> None:
    file.write(struct.pack(f"<{form}", number))


def _write_text(file: BinaryIO, text: str) -> None:
    encoded = text.encode() + b"\0"
    _write_number(file, "H", len(encoded))
    file.write(encoded)
