"""Marian's own models: an .npz file of arrays and settings, with vocabularies and SentencePiece.

model.npz  decoder.yml  vocab.yml (or two)  source.spm  target.spm
"""

from __future__ import annotations

import io
import math
import re
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.formats.archives import BAD_ARCHIVE
from npformer.formats.foreign import (
    LARGEST_WEIGHTS,
    ForeignArrays,
    ImportedModel,
    read_text,
)
from npformer.reading import read_plain
from npformer.sentencepiece_model import SentencePieceModel, is_whole
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.vocabulary import Vocabulary

SETTINGS = "special:model.yml"
DECODER = "decoder.yml"
_END, _UNKNOWN = "</s>", "<unk>"
_VOCABULARIES = (".yml", ".yaml", ".spm", ".txt")  # by which of them comes first

# What a transformer of Marian's may have been trained with, and what it must be for us.
_FIXED = {
    "type": ("transformer",),
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-no-projection": ("false",),
    "transformer-postprocess-emb": ("", "d"),
    "transformer-ffn-activation": ("relu", "swish"),
    "transformer-ffn-depth": ("2",),
    "transformer-train-position-embeddings": ("false",),
    "transformer-tied-layers": ("", "[]"),
    "transformer-rnn-projection": ("false",),
}
_NORMS = {("", "dan", ""): "post", ("n", "da", "n"): "pre"}  # preprocess, postprocess, at the top


def marian_file(directory: Path) -> Path | None:
    """The model in a directory: model.npz, or the only .npz file; None if there is none.

    Raises UserError if there are several.
    """
    found = sorted(directory.glob("*.npz"))
    if directory / "model.npz" in found:
        return directory / "model.npz"
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{directory} holds several models ({names:.200}); leave one of them there")
    return found[0] if found else None


def read_marian_npz(path: Path) -> ImportedModel:
    """Read a Transformer that Marian has trained, with what lies beside it.

    Raises UserError if files are missing or damaged, or the model has something that we cannot
    compute.
    """
    contents = _npz(path)
    settings = contents.pop(SETTINGS, None)
    if settings is None:
        raise UserError(f"{path} is no model of Marian's: it has no {SETTINGS}")
    beside = path.parent / DECODER
    values = _flat(read_text(beside)) if beside.exists() else {}
    values |= _flat(settings.tobytes().rstrip(b"\0").decode(errors="replace"))
    arrays = ForeignArrays(contents, path)
    source, target = _tokenizers(path.parent)
    config = _configuration(path, values, arrays, source, target)
    parameters = dict(_parameters(arrays, config))
    arrays.check_all_taken()
    return ImportedModel(config, parameters, TokenizerPair(source, target), "Marian")


def _npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, without pickled ones."""
    try:
        content = read_plain(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                    raise UserError(f"{path}: {info.filename!r:.60} in it is compressed")
                found[info.filename.removesuffix(".npy")] = _npy(archive.read(info))
    except BAD_ARCHIVE as error:
        raise UserError(f"{path} is no .npz file, or it is damaged or cut short") from error
    return found


def _npy(content: bytes) -> np.ndarray:
    """The array in an .npy file. Raises ValueError if it is damaged, or holds Python's objects."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError("an unknown version")
    try:
        shape, is_fortran, dtype = read(file)
    except (SyntaxError, TypeError, tokenize.TokenError) as error:  # it is Python's, as NumPy sees
        raise ValueError("no header") from error
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size != len(content) - file.tell() or bool in map(type, shape):
        raise ValueError("another size")
    numbers = np.frombuffer(content, dtype, offset=file.tell())
    return numbers.reshape(shape, order="F" if is_fortran else "C")


def _flat(text: str) -> dict[str, str]:
    """The scalars of a YAML mapping of options, as text."""
    found = re.findall(r"^([a-z0-9-]+):[ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE)
    return {name: value.strip("\"'") for name, value in found}


def _configuration(
    path: Path,
    values: dict[str, str],
    arrays: ForeignArrays,
    source: Tokenizer,
    target: Tokenizer,
) -> TransformerConfig:
    for name, known in _FIXED.items():
        if values.get(name, known[0]) not in known:
            raise UserError(f"{path}: a model with {name} = {values[name]!r:.40} is not supported")
    order = tuple(
        values.get(f"transformer-{name}", default)
        for name, default in (("preprocess", ""), ("postprocess", "dan"), ("postprocess-top", ""))
    )
    if order not in _NORMS:
        raise UserError(
            f"{path}: the transformer-preprocess, -postprocess and -postprocess-top "
            f"{order!r:.60} are not supported, only {' and '.join(map(repr, _NORMS))}"
        )

    def whole(name: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", values.get(name, "")):
            raise UserError(f"{path}: {name} must be a number; it is {values.get(name)!r:.40}")
        return int(values[name])

    layers, decoder_layers = whole("enc-depth"), whole("dec-depth")
    has_output = "decoder_ff_logit_out_W" in arrays or "decoder_ff_logit_out_Wt" in arrays
    is_shared = "Wemb" in arrays
    share = "none" if has_output else "all" if is_shared else "target"
    try:
        return TransformerConfig(
            vocab_size=target.vocab_size,
            source_vocab_size=None if is_shared else source.vocab_size,
            layers=layers,
            decoder_layers=None if decoder_layers == layers else decoder_layers,
            d_model=whole("dim-emb"),
            d_ff=whole("transformer-dim-ffn"),
            heads=whole("transformer-heads"),
            activation=values.get("transformer-ffn-activation", "relu"),  # type: ignore[arg-type]
            norm=_NORMS[order],  # type: ignore[arg-type]
            norm_epsilon=1e-6,
            positions="concatenated",
            position_spacing="d/2-1",
            share_embeddings=share,  # type: ignore[arg-type]
            decoder_start="zero",
            longest=max(1, whole("max-length") - 1) if "max-length" in values else None,
            output_bias=True,
            suppressed_ids=(target.unknown_id,),  # as Marian does without --allow-unk
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _parameters(
    arrays: ForeignArrays, config: TransformerConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters by our names. Marian's matrices are [d_in, d_out], as ours are."""
    d, size = config.d_model, config.vocab_size
    if "Wemb" in arrays:
        embedding = arrays.take("Wemb", (size, d))
        yield "embedding", embedding
        if config.share_embeddings == "none":
            yield "source_embedding", embedding
    else:
        assert config.source_vocab_size is not None
        yield "source_embedding", arrays.take("encoder_Wemb", (config.source_vocab_size, d))
        yield "embedding", arrays.take("decoder_Wemb", (size, d))
    output = "decoder_ff_logit_out"
    if f"{output}_W" in arrays:
        yield "projection", arrays.take(f"{output}_W", (d, size)).T
    elif f"{output}_Wt" in arrays:
        yield "projection", arrays.take(f"{output}_Wt", (size, d))
    yield "output_bias", arrays.take(f"{output}_b", (1, size))[0]
    for side, count in (
        ("encoder", config.layers),
        ("decoder", config.decoder_layers or config.layers),
    ):
        for i in range(count):
            yield from _layer(arrays, config, f"{side}.{i}", f"{side}_l{i + 1}")
        if config.norm == "pre":
            yield from _norm(arrays, config, f"{side}.norm", f"{side}_top", "")


def _layer(
    arrays: ForeignArrays, config: TransformerConfig, ours: str, theirs: str
) -> Iterator[tuple[str, np.ndarray]]:
    d = config.d_model
    suffix = "_pre" if config.norm == "pre" else ""

    def linear(name: str, part: str, letters: str, *shape: int) -> Iterator[tuple[str, np.ndarray]]:
        weights = [arrays.take(f"{theirs}_{part}_W{letter}", shape) for letter in letters]
        biases = [arrays.take(f"{theirs}_{part}_b{letter}", (1, shape[1])) for letter in letters]
        yield f"{ours}.{name}.weight", np.concatenate(weights, axis=1)
        yield f"{ours}.{name}.bias", np.concatenate(biases, axis=1)[0]

    yield from linear("self_attention.qkv", "self", "qkv", d, d)
    yield from linear("self_attention.output", "self", "o", d, d)
    yield from _norm(arrays, config, f"{ours}.self_attention.norm", f"{theirs}_self_Wo", suffix)
    if ours.startswith("decoder"):
        yield from linear("cross_attention.q", "context", "q", d, d)
        yield from linear("cross_attention.kv", "context", "kv", d, d)
        yield from linear("cross_attention.output", "context", "o", d, d)
        norm = f"{theirs}_context_Wo"
        yield from _norm(arrays, config, f"{ours}.cross_attention.norm", norm, suffix)
    yield from linear("feed_forward.inner", "ffn", "1", d, config.d_ff)
    yield from linear("feed_forward.outer", "ffn", "2", config.d_ff, d)
    yield from _norm(arrays, config, f"{ours}.feed_forward.norm", f"{theirs}_ffn_ffn", suffix)


def _norm(
    arrays: ForeignArrays, config: TransformerConfig, ours: str, theirs: str, suffix: str
) -> Iterator[tuple[str, np.ndarray]]:
    shape = (1, config.d_model)
    yield f"{ours}.gain", arrays.take(f"{theirs}_ln_scale{suffix}", shape)[0]
    yield f"{ours}.bias", arrays.take(f"{theirs}_ln_bias{suffix}", shape)[0]


def _tokenizers(directory: Path) -> tuple[Tokenizer, Tokenizer]:
    files = _vocabulary_files(directory)
    return _tokenizer(files[0], "source"), _tokenizer(files[-1], "target")


def _tokenizer(path: Path, side: str) -> Tokenizer:
    """The tokenizer of a vocabulary: it is a SentencePiece model itself, or has one beside it."""
    if path.suffix == ".spm":
        pieces = SentencePieceModel.of(_spm(path)).pieces
        return Tokenizer.load(
            path, _of_ids({piece.text: i for i, piece in enumerate(pieces)}, path)
        )
    vocabulary, model = _vocabulary(path), path.parent / f"{side}.spm"
    if not model.exists():
        raise UserError(
            f"{path.parent} has the vocabulary {path.name}, but no {model.name}, the SentencePiece "
            "model that divides text into its tokens"
        )
    return Tokenizer.load(model, vocabulary)


def _spm(path: Path) -> bytes:
    """The contents of a SentencePiece model. Raises UserError if it is none."""
    try:
        content = read_plain(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not is_whole(content):
        raise UserError(f"{path} is not a SentencePiece model, or it is cut short")
    return content


def _vocabulary_files(directory: Path) -> list[Path]:
    """The vocabularies that decoder.yml names; else the only file whose name says that it is one.

    Raises UserError if there is none, or it is not clear which.
    """
    decoder = directory / DECODER
    if decoder.exists():
        listed = re.search(r"^vocabs:\s*\n((?:\s*- .*\n?)+)", read_text(decoder), re.MULTILINE)
        names = re.findall(r"- (.*?)\s*$", listed[1], re.MULTILINE) if listed else []
        if names:
            # Only their last part: the directory may have been moved.
            return [directory / Path(name.strip("\"'")).name for name in names]
    found: list[Path] = []
    for kind in _VOCABULARIES:
        found = found or sorted(directory.glob(f"*vocab*{kind}"))
    if len(found) != 1:
        raise UserError(
            f"{directory} holds {len(found)} vocabularies (*vocab*, {', '.join(_VOCABULARIES)}), "
            f"and no {DECODER} that says which belong to the model"
        )
    return found


def _vocabulary(path: Path) -> Vocabulary:
    text = read_text(path)
    if path.suffix in (".yml", ".yaml", ".json"):
        return _of_ids(_yaml_ids(text, path), path)
    ids: dict[str, int] = {}  # a token a line, by their ids
    for i, line in enumerate(text.removesuffix("\n").split("\n")):
        token = line.removesuffix("\r")
        if ids.setdefault(token, i) != i:
            raise UserError(f"{path}: line {i + 1:,} has the token {token!r:.40} again")
    return _of_ids(ids, path)


def _of_ids(ids: dict[str, int], path: Path) -> Vocabulary:
    try:
        if _END not in ids:
            raise UserError(f"the vocabulary has no {_END}")
        return Vocabulary.of_ids(
            ids, len(ids), begin_id=ids[_END], end_id=ids[_END], unknown=_UNKNOWN
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _yaml_ids(text: str, path: Path) -> dict[str, int]:
    """The ids in a vocabulary, a YAML mapping with a token on each line, or a key on two lines."""
    found: dict[str, int] = {}
    # Not splitlines: tokens may be other separators of lines.
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        line = line.rstrip("\r")
        if not line.strip() or line == "---":
            continue
        key, _, value = line.rpartition(":")
        if line.startswith("? "):
            key, value = line[2:], next(lines, (0, ""))[1].removeprefix(":")
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII):
            raise UserError(f"{path}: line {number:,} is not a token and its id: {line!r:.60}")
        token = _unquoted(key)
        if token in found:
            raise UserError(f"{path}: line {number:,} has the token {token!r:.40} again")
        found[token] = int(value)
    return found


def _unquoted(key: str) -> str:
    if len(key) > 1 and key[0] == key[-1] == "'":
        return key[1:-1].replace("''", "'")
    if len(key) > 1 and key[0] == key[-1] == '"':
        return re.sub(r"\\(x..|u.{4}|U.{8}|.)", _escaped, key[1:-1])
    return key


def _escaped(found: re.Match[str]) -> str:
    """The character of an escape in YAML."""
    code = found[1]
    if len(code) > 1:
        try:
            return chr(int(code[1:], 16))
        except (ValueError, OverflowError):
            return found[0]
    return _ESCAPES.get(code, code)


_ESCAPES = {
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "t": "\t",
    "n": "\n",
    "v": "\v",
    "f": "\f",
    "r": "\r",
    "e": "\x1b",
    "N": "\x85",
    "_": "\xa0",
    "L": "\u2028",
    "P": "\u2029",
}
