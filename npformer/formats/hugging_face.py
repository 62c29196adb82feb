"""Models of Hugging Face's Marian architecture, such as OPUS-MT's.

config.json  generation_config.json  model.safetensors (or pytorch_model.bin)
source.spm  target.spm  vocab.json (and target_vocab.json)  tokenizer_config.json
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.formats.foreign import ForeignArrays, ImportedModel, read_safetensors
from npformer.formats.foreign_settings import ForeignSettings, read_object
from npformer.formats.layer_names import take_layers
from npformer.formats.state_dict import read_state_dict
from npformer.model_card import language_code
from npformer.positions import sinusoids
from npformer.reading import read_json
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.vocabulary import Vocabulary

CONFIG, GENERATION, TOKENIZER_CONFIG = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
)
WEIGHTS, PICKLED_WEIGHTS = "model.safetensors", "pytorch_model.bin"
VOCABULARY, TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
EMBEDDINGS = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
)

NORM_EPSILON = 1e-5  # PyTorch's, which no configuration names
_WAVES_WITHIN = 2e-3  # of sines whose angles were computed, or that were kept, in few bits

# What the configurations of converted models may name, and what it must be.
_FIXED = {
    "normalize_before": False,
    "add_final_layer_norm": False,
    "normalize_embedding": False,
    "static_position_embeddings": True,
    "is_encoder_decoder": True,
}
_ACTIVATIONS = {"relu": "relu", "swish": "swish", "silu": "swish"}


def is_marian(directory: Path) -> bool:
    """Whether a directory has the configuration of a model of Hugging Face's."""
    try:
        values = read_json(directory / CONFIG, large=True)
    except OSError:
        return False
    return isinstance(values, dict) and "model_type" in values


def read_marian(directory: Path) -> ImportedModel:
    """Read a model of the Marian architecture.

    Raises UserError if the directory is incomplete, or has something that we cannot compute.
    """
    generation = read_object(directory / GENERATION, optional=True)
    values = read_object(directory / CONFIG)
    values |= {name: value for name, value in generation.items() if value is not None}
    about = ForeignSettings(directory / CONFIG, values)
    config = _configuration(about)
    tokenizer_values = read_object(directory / TOKENIZER_CONFIG, optional=True)
    config = dataclasses.replace(config, longest=_longest(config, tokenizer_values))
    arrays = ForeignArrays(*_weights(directory))
    # First, because a vocabulary has as many pieces as the configuration says, however many.
    parameters = _parameters(arrays, config, bool(values.get("tie_word_embeddings", True)))
    tokenizers = _tokenizers(directory, config, about, tokenizer_values)
    languages = [
        language_code(tokenizer_values.get(f"{side}_lang")) for side in ("source", "target")
    ]
    return ImportedModel(config, parameters, tokenizers, "Hugging Face's Marian", *languages)


def _configuration(about: ForeignSettings) -> TransformerConfig:
    path, values = about.path, about.values
    if values.get("model_type") != "marian":
        raise UserError(
            f"{path} is of a model of the kind {values.get('model_type')!r:.40}; only 'marian' can "
            "be imported"
        )
    for name, needed in _FIXED.items():
        if values.get(name, needed) != needed:
            raise UserError(f"{path}: a model with {name} = {values[name]!r:.40} is not supported")
    activation = about("activation_function", str)
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{path}: the activation_function {activation!r:.40} is not supported, only "
            f"{', '.join(_ACTIVATIONS)}"
        )
    layers, decoder_layers = about("encoder_layers", int), about("decoder_layers", int)
    shared = about("share_encoder_decoder_embeddings", bool, True)
    tied = about("tie_word_embeddings", bool, True)
    vocab_size = about("vocab_size", int)
    target_size = values.get("decoder_vocab_size") or vocab_size
    if shared and target_size != vocab_size:
        raise UserError(
            f"{path}: decoder_vocab_size is {target_size!r:.20} and vocab_size {vocab_size}, but "
            "the embeddings are shared"
        )
    share = "none" if not tied else "all" if shared else "target"
    return about.configuration(
        vocab_size=target_size,
        source_vocab_size=None if shared else vocab_size,
        layers=layers,
        decoder_layers=None if decoder_layers == layers else decoder_layers,
        d_model=about("d_model", int),
        d_ff=about.alike("*_ffn_dim", int),
        heads=about.alike("*_attention_heads", int),
        dropout=about("dropout", float, 0.1),
        attention_dropout=about("attention_dropout", float, 0.0),
        ffn_dropout=about("activation_dropout", float, 0.0),
        activation=_ACTIVATIONS[activation],
        norm_epsilon=NORM_EPSILON,
        positions="concatenated",
        max_length=about("max_position_embeddings", int, 512),
        share_embeddings=share,
        scale_embeddings=about("scale_embedding", bool, False),
        output_bias=True,
        suppressed_ids=_suppressed(path, values),
    )


def _suppressed(path: Path, values: dict[str, Any]) -> tuple[int, ...]:
    """The tokens that translations never have, usually the padding alone."""
    words = values.get("bad_words_ids") or []
    if not isinstance(words, list) or not all(isinstance(w, list) and len(w) == 1 for w in words):
        raise UserError(
            f"{path}: bad_words_ids must be a list of single tokens, such as [[58100]]; it is "
            f"{words!r:.60}"
        )
    return tuple(word[0] for word in words)


def _longest(config: TransformerConfig, tokenizer_values: dict[str, Any]) -> int:
    """The most tokens of a sentence, without the end; without a limit, there are huge numbers."""
    most = tokenizer_values.get("model_max_length")
    if type(most) is not int or not 1 < most < config.max_length:
        most = config.max_length
    return max(1, most - 1)


def _tokenizers(
    directory: Path, config: TransformerConfig, about: ForeignSettings, given: dict[str, Any]
) -> TokenizerPair:
    begin = about("decoder_start_token_id", int)
    end = about("eos_token_id", int)
    unknown = given.get("unk_token", "<unk>")
    if isinstance(unknown, dict):  # with details of how it is found in text
        unknown = unknown.get("content")
    separate = given.get("separate_vocabs") is True
    files = (VOCABULARY, TARGET_VOCABULARY if separate else VOCABULARY)
    sizes = (config.source_vocab_size or config.vocab_size, config.vocab_size)
    found = []
    for side, file, size in zip(("source", "target"), files, sizes, strict=True):
        path = directory / file
        ids = read_object(path)
        try:
            # The encoder reads no begin token, and a source vocabulary of its own need not have it.
            first = end if side == "source" and separate else begin
            vocabulary = Vocabulary.of_ids(
                ids, size, begin_id=first, end_id=end, unknown=str(unknown)
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if ids.get("</s>") != end:  # in a source vocabulary of its own, too
            raise UserError(
                f"{path} does not fit the model: </s> has the id {ids.get('</s>')!r:.20} there, "
                f"and the model ends sentences with {end}"
            )
        found.append(Tokenizer.load(directory / f"{side}.spm", vocabulary))
    return TokenizerPair(*found)


def _weights(directory: Path) -> tuple[dict[str, np.ndarray], Path]:
    for file, read in ((WEIGHTS, read_safetensors), (PICKLED_WEIGHTS, read_state_dict)):
        path = directory / file
        if path.exists():
            return read(path), path
        if (directory / f"{file}.index.json").exists():
            raise UserError(f"{directory}: weights in several files are not supported")
    raise UserError(
        f"{directory} holds no weights: there is neither {WEIGHTS} nor {PICKLED_WEIGHTS}"
    )


def _parameters(
    arrays: ForeignArrays, config: TransformerConfig, tied: bool
) -> dict[str, np.ndarray]:
    d, target_size = config.d_model, config.vocab_size
    found: dict[str, np.ndarray] = {}
    apart = config.share_embeddings == "none" and EMBEDDINGS[1] in arrays
    if config.source_vocab_size is None and not apart:
        found["embedding"] = arrays.take(arrays.first_of(*EMBEDDINGS), (target_size, d))
        if config.share_embeddings == "none":
            found["source_embedding"] = found["embedding"]
    else:
        sizes = (config.source_vocab_size or target_size, target_size)
        for ours, theirs, size in zip(
            ("source_embedding", "embedding"), EMBEDDINGS[1:], sizes, strict=True
        ):
            found[ours] = arrays.take(theirs, (size, d))
    arrays.ignore(*EMBEDDINGS)
    if tied:
        arrays.ignore("lm_head.weight")
    else:
        found["projection"] = arrays.take("lm_head.weight", (target_size, d))
    bias = "final_logits_bias"
    found["output_bias"] = (
        arrays.take(bias, (1, target_size))[0]
        if bias in arrays
        else np.zeros(target_size, np.float32)
    )
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        if name in arrays:
            waves = arrays.take(name, (config.max_length, d))
            right = sinusoids(config.max_length, d, config.positions, config.position_spacing)
            if np.abs(waves - right).max() > _WAVES_WITHIN:
                raise UserError(
                    f"{arrays.path}: {name} holds other numbers than the sines and cosines of a "
                    "Marian model; this is not supported"
                )
    found |= take_layers(arrays, config, "model.")
    arrays.check_all_taken()
    return found
