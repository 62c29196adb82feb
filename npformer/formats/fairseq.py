"""Transformers of fairseq.

model.safetensors  args.json  dict.SRC.txt  dict.TGT.txt  sentencepiece.bpe.model

The first two hold what fairseq keeps in one pickle, checkpoint_best.pt, which needs fairseq itself
to be read; docs/importing.md has the lines that write them.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.formats.foreign import (
    ForeignArrays,
    ImportedModel,
    only_file,
    read_safetensors,
    read_text,
)
from npformer.formats.foreign_settings import ForeignSettings, read_object
from npformer.formats.layer_names import take_layers
from npformer.model_card import language_code
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.vocabulary import Vocabulary

ARGUMENTS = "args.json"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first tokens of each dictionary
_PAD, _END, _UNKNOWN = 1, 2, 3
_FIRST_POSITION = _PAD + 1  # of a sentence; the padding has the position of its id
_NORM_EPSILON = 1e-5  # PyTorch's, which fairseq does not change

# Architectures that compute the same function. Those of users are called by names of their own.
_ARCHITECTURES = (
    "transformer",
    "transformer_tiny",
    "transformer_iwslt_de_en",
    "transformer_wmt_en_de",
    "transformer_vaswani_wmt_en_de_big",
    "transformer_vaswani_wmt_en_fr_big",
    "transformer_wmt_en_de_big",
    "transformer_wmt_en_de_big_t2t",
    "transformer_align",
    "transformer_wmt_en_de_big_align",
)

# What changes the function, some of it without another array.
_OFF = (
    "adaptive_input",
    "adaptive_softmax_cutoff",
    "base_layers",
    "char_inputs",
    "cross_self_attention",
    "decoder_layers_to_keep",
    "decoder_xformers_att_config",
    "encoder_layers_to_keep",
    "encoder_xformers_att_config",
    "layernorm_embedding",
    "merge_src_tgt_embed",
    "no_cross_attention",
    "no_decoder_final_norm",
    "no_token_positional_embeddings",
    "quant_noise_pq",
    "quant_noise_scalar",
    "scale_attn",
    "scale_fc",
    "scale_heads",
    "scale_resids",
)

_ENCODER, _DECODER = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
_OUTPUT, _OLD_OUTPUT = "decoder.output_projection.weight", "decoder.embed_out"
_POSITIONS = ("encoder.embed_positions", "decoder.embed_positions")


def is_fairseq(directory: Path) -> bool:
    """Whether a directory has arguments of fairseq."""
    return (directory / ARGUMENTS).exists()


def read_fairseq(directory: Path) -> ImportedModel:
    """Read a Transformer that fairseq has trained.

    Raises UserError if the directory is incomplete, or has something that we cannot compute.
    """
    about = _arguments(directory / ARGUMENTS)
    _check_supported(about)
    path = only_file(directory, "*.safetensors", "weights in safetensors")
    arrays = ForeignArrays(_by_present_names(read_safetensors(path)), path)
    tokenizers = _tokenizers(directory, about)
    for name, tokenizer, side in (
        (_ENCODER, tokenizers.source, "source"),
        (_DECODER, tokenizers.target, "target"),
    ):
        dictionary = _dictionary(directory, about, side)
        arrays.check_vocabulary(name, tokenizer.vocab_size, dictionary)
    config = _configuration(about, arrays, tokenizers)
    languages = [language_code(about.values.get(f"{side}_lang")) for side in ("source", "target")]
    return ImportedModel(config, _parameters(arrays, config), tokenizers, "fairseq", *languages)


def _arguments(path: Path) -> ForeignSettings:
    """The arguments of a training, in the flat form: encoder_layers.

    Later versions of fairseq keep them in a configuration, with those of the model in one section
    and those of the task in another; and there the encoder may have a section.
    """
    values = read_object(path)
    model, task = values.get("model"), values.get("task")
    found: dict[str, Any] = dict(model) if isinstance(model, dict) else values
    if isinstance(task, dict):
        languages = {name: task.get(name) for name in ("source_lang", "target_lang")}
        found = {**languages, **found, "task": task.get("_name")}
    for section in ("encoder", "decoder", "quant_noise"):
        if isinstance(own := found.get(section), dict):
            found = {**found, **{f"{section}_{name}": value for name, value in own.items()}}
    return ForeignSettings(path, {**found, "arch": found.get("arch") or found.get("_name")})


def _check_supported(about: ForeignSettings) -> None:
    architecture = about("arch", str)
    if architecture not in _ARCHITECTURES:
        raise about.refused(
            "arch",
            f"; if it is a {_ARCHITECTURES[0]!r} with other sizes and nothing else, write that "
            "there",
        )
    if about("task", str, "translation") != "translation":
        raise about.refused("task")
    about.require_off(*_OFF)
    if about("activation_fn", str, "relu") != "relu":
        raise about.refused("activation_fn")


def _by_present_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint that an early version may have written."""
    found = {}
    for name, array in arrays.items():
        stem, _, last = name.rpartition(".in_proj_")
        if stem and array.ndim and len(array) % 3 == 0:  # of queries, keys and values
            for letter, part in zip("qkv", np.split(array, 3), strict=True):
                found[f"{stem}.{letter}_proj.{last}"] = part
            continue
        layer, old, number = name.partition(".layer_norms.")
        if old:
            norms = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
            if layer.startswith("encoder"):
                del norms[1]
            index, _, last = number.partition(".")
            if index.isdecimal() and int(index) < len(norms):
                name = f"{layer}.{norms[int(index)]}.{last}"
        found[name] = array
    return found


def _configuration(
    about: ForeignSettings, arrays: ForeignArrays, tokenizers: TokenizerPair
) -> TransformerConfig:
    d = arrays.matrix_shape(arrays.first_of(_ENCODER, _DECODER, _OUTPUT))[1]
    layers, decoder_layers = arrays.count("encoder.layers"), arrays.count("decoder.layers")
    d_ff = arrays.matrix_shape("encoder.layers.0.fc1.weight")[0]
    for side, count in (("encoder", layers), ("decoder", decoder_layers)):
        about.check_size(f"{side}_embed_dim", d)
        about.check_size(f"{side}_ffn_embed_dim", d_ff)
        about.check_size(f"{side}_layers", count)
    shares_all = about("share_all_embeddings", bool, False)
    shares_target = about("share_decoder_input_output_embed", bool, False)
    joined = tokenizers.source.vocabulary == tokenizers.target.vocabulary
    if shares_all and not joined:
        raise about.error("share_all_embeddings is true, and the two dictionaries differ")
    learned = about.alike("*_learned_pos", bool, False)
    return about.configuration(
        vocab_size=tokenizers.target.vocab_size,
        source_vocab_size=None if joined else tokenizers.source.vocab_size,
        layers=layers,
        decoder_layers=None if decoder_layers == layers else decoder_layers,
        d_model=d,
        d_ff=d_ff,
        heads=about.alike("*_attention_heads", int),
        dropout=about("dropout", float, 0.1),
        attention_dropout=about("attention_dropout", float, 0.0),
        ffn_dropout=about("activation_dropout", float, 0.0) or about("relu_dropout", float, 0.0),
        norm="pre" if about.alike("*_normalize_before", bool, False) else "post",
        norm_epsilon=_NORM_EPSILON,
        positions="learned" if learned else "concatenated",
        position_spacing="d/2-1",
        first_position=0 if learned else _FIRST_POSITION,
        max_length=_max_length(about, arrays, learned),
        share_embeddings="all" if shares_all else "target" if shares_target else "none",
        scale_embeddings=not about("no_scale_embedding", bool, False),
        suppressed_ids=(_PAD,),
    )


def _max_length(about: ForeignSettings, arrays: ForeignArrays, learned: bool) -> int:
    """The positions that the model has: where they are learned, as many as both sides have."""
    if not learned:
        return int(about("max_source_positions", int, 1024))
    rows = min(arrays.matrix_shape(f"{name}.weight")[0] for name in _POSITIONS)
    return rows - _FIRST_POSITION


def _parameters(arrays: ForeignArrays, config: TransformerConfig) -> dict[str, np.ndarray]:
    size, d = config.vocab_size, config.d_model
    found = {}
    if config.share_embeddings == "all":
        found["embedding"] = arrays.take_tied([_ENCODER, _DECODER, _OUTPUT], (size, d))
    else:
        found["source_embedding"] = arrays.take(_ENCODER, (config.source_vocab_size or size, d))
        if config.share_embeddings == "target":
            found["embedding"] = arrays.take_tied([_DECODER, _OUTPUT], (size, d))
        else:
            found["embedding"] = arrays.take(_DECODER, (size, d))
            found["projection"] = arrays.take(arrays.first_of(_OUTPUT, _OLD_OUTPUT), (size, d))
    for ours, theirs in zip(("source_positions", "target_positions"), _POSITIONS, strict=True):
        if config.positions == "learned":
            rows = arrays.matrix_shape(f"{theirs}.weight")[0]
            learned = arrays.take(f"{theirs}.weight", (rows, d))
            found[ours] = learned[_FIRST_POSITION:][: config.max_length]
        # What fairseq does not read either.
        arrays.ignore(f"{theirs}.weights", f"{theirs}._float_tensor")
    arrays.ignore("encoder.version", "decoder.version")
    found |= take_layers(arrays, config)
    arrays.check_all_taken()
    return found


def _dictionary(directory: Path, about: ForeignSettings, side: str) -> Path:
    """The dictionary of a language, which the arguments name. side: "source" or "target"."""
    return directory / f"dict.{_language(about, side)}.txt"


def _language(about: ForeignSettings, side: str) -> str:
    language: str = about(f"{side}_lang", str)
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", language):
        raise about.error(f"{side}_lang must be a language such as 'de'; it is {language!r:.40}")
    return language


def _tokenizers(directory: Path, about: ForeignSettings) -> TokenizerPair:
    """Those of both languages; one, where they are alike."""
    patterns = [f"*.{_language(about, side)}.model" for side in ("source", "target")]
    if not any(any(directory.glob(pattern)) for pattern in patterns):
        patterns = ["*.model", "*.model"]  # of both languages
    found = []
    for side, pattern in zip(("source", "target"), patterns, strict=True):
        vocabulary = _vocabulary(_dictionary(directory, about, side))
        path = only_file(directory, pattern, "SentencePiece model, the only kind that is supported")
        found.append(Tokenizer.load(path, vocabulary))
    source, target = found
    alike = source.model == target.model and source.vocabulary == target.vocabulary
    return TokenizerPair(source, source if alike else target)


def _vocabulary(path: Path) -> Vocabulary:
    """The tokens of a dictionary, in which each has a line with its count."""
    pieces = list(_SPECIAL)
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        piece, _, count = line.rstrip().rpartition(" ")
        if not piece or not count.isdecimal():
            raise UserError(
                f"{path}: line {number:,} is not a token and its count: {line.rstrip()!r:.60}"
            )
        pieces.append(piece)
    try:
        return Vocabulary(pieces, begin_id=_END, end_id=_END, unknown_id=_UNKNOWN)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
