"""Names of a layer's parameters in fairseq, which Hugging Face's Marian has taken over.

Where we keep several projections in one matrix, they have one each; and their matrices are
transposed, [d_out, d_in].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

import numpy as np

from npformer.config import TransformerConfig
from npformer.formats.foreign import ForeignArrays

_NORM = {"gain": "weight", "bias": "bias"}


def _linears(config: TransformerConfig) -> Iterator[tuple[str, list[tuple[str, int]], int]]:
    """Of each of our linear maps: its name, theirs with their widths, and d_in."""
    assert config.d_k is not None
    assert config.d_v is not None
    d, keys, values = config.d_model, config.heads * config.d_k, config.heads * config.d_v
    for side, count in _sides(config):
        for i in range(count):
            ours, theirs = f"{side}.{i}", f"{side}.layers.{i}"
            own, cross = f"{theirs}.self_attn", f"{theirs}.encoder_attn"
            widths = [(f"{own}.q_proj", keys), (f"{own}.k_proj", keys), (f"{own}.v_proj", values)]
            yield f"{ours}.self_attention.qkv", widths, d
            yield f"{ours}.self_attention.output", [(f"{own}.out_proj", d)], values
            if side == "decoder":
                yield f"{ours}.cross_attention.q", [(f"{cross}.q_proj", keys)], d
                both = [(f"{cross}.k_proj", keys), (f"{cross}.v_proj", values)]
                yield f"{ours}.cross_attention.kv", both, d
                yield f"{ours}.cross_attention.output", [(f"{cross}.out_proj", d)], values
            yield f"{ours}.feed_forward.inner", [(f"{theirs}.fc1", config.d_ff)], d
            yield f"{ours}.feed_forward.outer", [(f"{theirs}.fc2", d)], config.d_ff


def _norms(config: TransformerConfig) -> Iterator[tuple[str, str]]:
    """The name of each norm, ours and theirs."""
    for side, count in _sides(config):
        for i in range(count):
            ours, theirs = f"{side}.{i}", f"{side}.layers.{i}"
            yield f"{ours}.self_attention.norm", f"{theirs}.self_attn_layer_norm"
            if side == "decoder":
                yield f"{ours}.cross_attention.norm", f"{theirs}.encoder_attn_layer_norm"
            yield f"{ours}.feed_forward.norm", f"{theirs}.final_layer_norm"
        if config.norm == "pre":
            yield f"{side}.norm", f"{side}.layer_norm"


def _sides(config: TransformerConfig) -> list[tuple[str, int]]:
    return [("encoder", config.layers), ("decoder", config.decoder_layers or config.layers)]


def take_layers(
    arrays: ForeignArrays, config: TransformerConfig, prefix: str = ""
) -> dict[str, np.ndarray]:
    """The parameters of all layers, by our names. Raises UserError if some are missing."""
    found = {}
    for ours, parts, d_in in _linears(config):
        weights = [arrays.take(f"{prefix}{name}.weight", (width, d_in)).T for name, width in parts]
        biases = [arrays.take(f"{prefix}{name}.bias", (width,)) for name, width in parts]
        found[f"{ours}.weight"] = np.concatenate(weights, axis=1)
        found[f"{ours}.bias"] = np.concatenate(biases)
    for ours, theirs in _norms(config):
        for mine, its in _NORM.items():
            found[f"{ours}.{mine}"] = arrays.take(f"{prefix}{theirs}.{its}", (config.d_model,))
    return found


def given_layers(
    parameters: Mapping[str, np.ndarray], config: TransformerConfig, prefix: str = ""
) -> dict[str, np.ndarray]:
    """The parameters of all layers, by their names."""
    found = {}
    for ours, parts, _ in _linears(config):
        ends = list(accumulate(width for _, width in parts))[:-1]
        weights = np.split(parameters[f"{ours}.weight"], ends, axis=1)
        biases = np.split(parameters[f"{ours}.bias"], ends)
        for (name, _), weight, bias in zip(parts, weights, biases, strict=True):
            found[f"{prefix}{name}.weight"] = weight.T
            found[f"{prefix}{name}.bias"] = bias
    for ours, theirs in _norms(config):
        for mine, its in _NORM.items():
            found[f"{prefix}{theirs}.{its}"] = parameters[f"{ours}.{mine}"]
    return found
