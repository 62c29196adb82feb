"""Our models in the form of Hugging Face's Marian architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.formats.hugging_face import (
    CONFIG,
    EMBEDDINGS,
    GENERATION,
    NORM_EPSILON,
    TARGET_VOCABULARY,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
)
from npformer.formats.layer_names import foreign_layers, sides
from npformer.formats.outgoing import OutgoingModel, write_json
from npformer.vocabulary import Vocabulary

_FORMAT = "Hugging Face's Marian"


def write_marian(model: OutgoingModel, directory: Path) -> list[str]:
    """Write a directory that `MarianMTModel` and `MarianTokenizer` load.

    Returns notes on what is not quite the same there. Raises UserError for a model that the
    architecture cannot express.
    """
    model.require(_FORMAT, norm="post", decoder_start="token", position_spacing="d/2")
    model.require(_FORMAT, first_position=0)
    if model.config.positions == "learned":
        model.require(_FORMAT, positions="interleaved")
    model.require(_FORMAT, attention_window=None)
    model.require_activation(_FORMAT, ("relu", "swish"))
    model.require_even_heads(_FORMAT)
    model = model.with_concatenated_positions()
    source, target = model.vocabularies
    if (source.end_id, source.unknown_id) != (target.end_id, target.unknown_id):
        raise UserError(
            f"{_FORMAT} cannot hold vocabularies with different ids for </s> or <unk>, "
            f"{source.end_id} and {source.unknown_id} in the source, {target.end_id} and "
            f"{target.unknown_id} in the target"
        )

    separate = list(source.pieces) != list(target.pieces)
    write_json(directory / VOCABULARY, source.ids)
    if separate:
        write_json(directory / TARGET_VOCABULARY, target.ids)
    model.write_sentencepiece(directory)
    write_json(directory / TOKENIZER_CONFIG, _tokenizer_config(model.config, target, separate))
    ids = {
        "decoder_start_token_id": target.begin_id,
        "eos_token_id": target.end_id,
        "pad_token_id": target.begin_id,
        "forced_eos_token_id": None,
    }
    write_json(directory / CONFIG, {**_config(model), **ids})
    suppressed = [[i] for i in model.config.suppressed_ids]
    search = {"bad_words_ids": suppressed} if suppressed else {}
    write_json(
        directory / GENERATION,
        {
            **ids,
            **search,
            "max_length": model.positions,
            "num_beams": 4,
            "renormalize_logits": True,
        },
    )
    with atomic_write(directory / WEIGHTS) as file:
        file.write(safetensors.numpy.save(_arrays(model), metadata={"format": "pt"}))
    epsilon = model.config.norm_epsilon
    if epsilon == NORM_EPSILON:
        return []
    return [f"norm_epsilon is {NORM_EPSILON:g} there, in place of {epsilon:g}"]


def _config(model: OutgoingModel) -> dict[str, Any]:
    config = model.config
    sizes: dict[str, int] = {}
    for side, layers in sides(config):
        sizes |= {
            f"{side}_layers": layers,
            f"{side}_attention_heads": config.heads,
            f"{side}_ffn_dim": config.d_ff,
        }
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": config.source_vocab_size or config.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "share_encoder_decoder_embeddings": config.share_embeddings == "all",
        "tie_word_embeddings": config.share_embeddings != "none",
        "d_model": config.d_model,
        **sizes,
        "num_hidden_layers": config.layers,
        "max_position_embeddings": model.positions,
        "static_position_embeddings": True,
        "activation_function": config.activation,
        "scale_embedding": config.scale_embeddings,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.ffn_dropout,
        "torch_dtype": "float32",
    }


def _tokenizer_config(
    config: TransformerConfig, vocabulary: Vocabulary, separate: bool
) -> dict[str, Any]:
    return {
        "tokenizer_class": "MarianTokenizer",
        "separate_vocabs": separate,
        "unk_token": vocabulary.pieces[vocabulary.unknown_id],
        "eos_token": vocabulary.pieces[vocabulary.end_id],
        "pad_token": vocabulary.pieces[vocabulary.begin_id],
        "model_max_length": config.longest_source + 1,  # with the end
    }


def _arrays(model: OutgoingModel) -> dict[str, np.ndarray]:
    config, own = model.config, model.parameters
    found = foreign_layers(own, config, "model.")
    if config.share_embeddings == "all":
        found[EMBEDDINGS[0]] = own["embedding"]
    else:
        found[EMBEDDINGS[1]], found[EMBEDDINGS[2]] = own["source_embedding"], own["embedding"]
    if config.share_embeddings == "none":
        found["lm_head.weight"] = own["projection"]
    bias = own.get("output_bias", np.zeros(config.vocab_size, np.float32))
    found["final_logits_bias"] = bias[None]
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}
