"""The peer CTranslate2: converts a model of ours to its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import TransformerSpec, common_spec

from npformer import Transformer
from npformer.positions import sinusoids

MAX_LENGTH = 512


def save(model: Transformer, directory: Path) -> None:
    """Write `model` to a directory, with tokens called "0", "1", ..."""
    config = model.config
    activation = getattr(common_spec.Activation, config.activation.upper())
    spec = TransformerSpec.from_config(
        config.layers, config.heads, pre_norm=False, activation=activation
    )
    weights = {name: p.numpy() for name, p in model.parameters().items()}
    waves = sinusoids(MAX_LENGTH, config.d_model, config.positions, config.position_spacing)
    for side in (spec.encoder, spec.decoder):
        side.scale_embeddings = True
        side.position_encodings.encodings = waves.astype(np.float32)
    spec.encoder.embeddings[0].weight = weights["embedding"]
    spec.decoder.embeddings.weight = weights["embedding"]
    spec.decoder.projection.weight = weights["embedding"]
    if config.output_bias:
        spec.decoder.projection.bias = weights["output_bias"]
    for i, layer in enumerate(spec.encoder.layer):
        _sublayers(layer, f"encoder.{i}", weights)
    for i, layer in enumerate(spec.decoder.layer):
        _sublayers(layer, f"decoder.{i}", weights)
        name = f"decoder.{i}.cross_attention"
        for linear, part in zip(layer.attention.linear, ("q", "kv", "output"), strict=True):
            _linear(linear, f"{name}.{part}", weights)
        _norm(layer.attention.layer_norm, name, weights)
    tokens = [str(i) for i in range(config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "1", "2", "0"
    spec.config.decoder_start_token = "1"
    spec.validate()
    spec.optimize(quantization=None)
    directory.mkdir(parents=True, exist_ok=True)
    spec.save(str(directory))


def _sublayers(layer: Any, name: str, weights: Mapping[str, np.ndarray]) -> None:
    """The sub-layers that encoder and decoder layers have in common."""
    for linear, part in zip(layer.self_attention.linear, ("qkv", "output"), strict=True):
        _linear(linear, f"{name}.self_attention.{part}", weights)
    _norm(layer.self_attention.layer_norm, f"{name}.self_attention", weights)
    _linear(layer.ffn.linear_0, f"{name}.feed_forward.inner", weights)
    _linear(layer.ffn.linear_1, f"{name}.feed_forward.outer", weights)
    _norm(layer.ffn.layer_norm, f"{name}.feed_forward", weights)


def _linear(spec: Any, name: str, weights: Mapping[str, np.ndarray]) -> None:
    spec.weight = np.ascontiguousarray(weights[f"{name}.weight"].T)
    spec.bias = weights[f"{name}.bias"]


def _norm(spec: Any, name: str, weights: Mapping[str, np.ndarray]) -> None:
    spec.gamma = weights[f"{name}.norm.gain"]
    spec.beta = weights[f"{name}.norm.bias"]
