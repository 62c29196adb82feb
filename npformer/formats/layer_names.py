"""Names of a layer's parameters in PyTorch's programs, such as fairseq.

Where we keep several projections in one matrix, they have one each; and their matrices are
transposed, [d_out, d_in].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from npformer.config import TransformerConfig
from npformer.formats.foreign import ForeignArrays

_NORM = {"gain": "weight", "bias": "bias"}


@dataclass(frozen=True)
class LayerNames:
    """What a program calls the parts of a layer. projections: those of q, k, v and the output."""

    self_attention: str
    cross_attention: str
    projections: tuple[str, str, str, str]
    inner: str
    outer: str
    self_attention_norm: str
    cross_attention_norm: str
    feed_forward_norm: str


_FAIRSEQ = LayerNames(
    self_attention="self_attn",
    cross_attention="encoder_attn",
    projections=("q_proj", "k_proj", "v_proj", "out_proj"),
    inner="fc1",
    outer="fc2",
    self_attention_norm="self_attn_layer_norm",
    cross_attention_norm="encoder_attn_layer_norm",
    feed_forward_norm="final_layer_norm",
)

Names = Mapping[str, LayerNames]  # of a layer of the encoder, and of the decoder
FAIRSEQ: Names = {"encoder": _FAIRSEQ, "decoder": _FAIRSEQ}
"""Those of fairseq, which Hugging Face's Marian has taken over."""


def _linears(
    config: TransformerConfig, names: Names
) -> Iterator[tuple[str, list[tuple[str, int]], int]]:
    """Of each of our linear maps: its name, theirs with their widths, and d_in."""
    assert config.d_k is not None
    assert config.d_v is not None
    d, keys, values = config.d_model, config.heads * config.d_k, config.heads * config.d_v
    for side, count in sides(config):
        own = names[side]
        q, k, v, output = own.projections
        for i in range(count):
            ours, theirs = f"{side}.{i}", f"{side}.layers.{i}"
            attention, cross = f"{theirs}.{own.self_attention}", f"{theirs}.{own.cross_attention}"
            widths = [(f"{attention}.{q}", keys), (f"{attention}.{k}", keys)]
            widths.append((f"{attention}.{v}", values))
            yield f"{ours}.self_attention.qkv", widths, d
            yield f"{ours}.self_attention.output", [(f"{attention}.{output}", d)], values
            if side == "decoder":
                yield f"{ours}.cross_attention.q", [(f"{cross}.{q}", keys)], d
                both = [(f"{cross}.{k}", keys), (f"{cross}.{v}", values)]
                yield f"{ours}.cross_attention.kv", both, d
                yield f"{ours}.cross_attention.output", [(f"{cross}.{output}", d)], values
            yield f"{ours}.feed_forward.inner", [(f"{theirs}.{own.inner}", config.d_ff)], d
            yield f"{ours}.feed_forward.outer", [(f"{theirs}.{own.outer}", d)], config.d_ff


def _norms(config: TransformerConfig, names: Names) -> Iterator[tuple[str, str]]:
    """The name of each norm, ours and theirs."""
    for side, count in sides(config):
        own = names[side]
        for i in range(count):
            ours, theirs = f"{side}.{i}", f"{side}.layers.{i}"
            yield f"{ours}.self_attention.norm", f"{theirs}.{own.self_attention_norm}"
            if side == "decoder":
                yield f"{ours}.cross_attention.norm", f"{theirs}.{own.cross_attention_norm}"
            yield f"{ours}.feed_forward.norm", f"{theirs}.{own.feed_forward_norm}"
        if config.norm == "pre":
            yield f"{side}.norm", f"{side}.layer_norm"


def sides(config: TransformerConfig) -> list[tuple[str, int]]:
    """The two sides of a Transformer, and how many layers each has."""
    return [("encoder", config.layers), ("decoder", config.decoder_depth)]


def take_layers(
    arrays: ForeignArrays, config: TransformerConfig, prefix: str = "", names: Names = FAIRSEQ
) -> dict[str, np.ndarray]:
    """The parameters of all layers, by our names. Raises UserError if some are missing."""
    found = {}
    for ours, parts, d_in in _linears(config, names):
        weights = [arrays.take(f"{prefix}{name}.weight", (width, d_in)).T for name, width in parts]
        biases = [arrays.take(f"{prefix}{name}.bias", (width,)) for name, width in parts]
        found[f"{ours}.weight"] = np.concatenate(weights, axis=1)
        found[f"{ours}.bias"] = np.concatenate(biases)
    for ours, theirs in _norms(config, names):
        for mine, its in _NORM.items():
            found[f"{ours}.{mine}"] = arrays.take(f"{prefix}{theirs}.{its}", (config.d_model,))
    return found


def foreign_layers(
    parameters: Mapping[str, np.ndarray], config: TransformerConfig, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Our parameters of all layers, by the names of fairseq: the reverse of `take_layers`."""
    found = {}
    for ours, parts, _ in _linears(config, FAIRSEQ):
        ends = list(accumulate(width for _, width in parts))[:-1]
        weights = np.split(parameters[f"{ours}.weight"], ends, axis=1)
        biases = np.split(parameters[f"{ours}.bias"], ends)
        for (name, _), weight, bias in zip(parts, weights, biases, strict=True):
            found[f"{prefix}{name}.weight"] = weight.T
            found[f"{prefix}{name}.bias"] = bias
    for ours, theirs in _norms(config, FAIRSEQ):
        for mine, its in _NORM.items():
            found[f"{prefix}{theirs}.{its}"] = parameters[f"{ours}.{mine}"]
    return found
