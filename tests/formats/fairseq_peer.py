"""What fairseq leaves behind, and what it computes, from its facts."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.formats.network import Network, Shape, State, own_pieces, random, spms


def write_fairseq(directory: Path, shape: Shape, seed: int = 0, **changes: Any) -> State:
    """Write a directory for the import, and return the arrays. changes: of its arguments."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = []
    for side, language in (("source", "en"), ("target", "de")):
        model = spms(shape.joined)[side]
        if shape.joined:
            (directory / "sentencepiece.bpe.model").write_bytes(model)
        else:
            (directory / f"spm.{language}.model").write_bytes(model)
        pieces = own_pieces(model)
        pieces += [f"madeupword{i:04}" for i in range(-(len(pieces) + 4) % 8)]
        lines = [f"{piece} {100 - i if i < 100 else 0}\n" for i, piece in enumerate(pieces)]
        (directory / f"dict.{language}.txt").write_text("".join(lines))
        sizes.append(4 + len(pieces))
    arguments = {
        "arch": "transformer_iwslt_de_en",
        "task": "translation",
        "source_lang": "en",
        "target_lang": "de",
        "encoder_embed_dim": shape.d,
        "decoder_embed_dim": shape.d,
        "encoder_layers": shape.layers,
        "decoder_layers": shape.decoder_layers,
        "encoder_ffn_embed_dim": shape.d_ff,
        "decoder_ffn_embed_dim": shape.d_ff,
        "encoder_attention_heads": shape.heads,
        "decoder_attention_heads": shape.heads,
        "encoder_normalize_before": shape.pre,
        "decoder_normalize_before": shape.pre,
        "encoder_learned_pos": shape.learned,
        "decoder_learned_pos": shape.learned,
        "share_all_embeddings": shape.shared == "all",
        "share_decoder_input_output_embed": shape.shared != "none",
        "no_scale_embedding": not shape.scaled,
        "activation_fn": "relu",
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "adaptive_softmax_cutoff": None,
        "max_source_positions": shape.positions,
        "max_target_positions": shape.positions,
        "lr": [0.0005],
    }
    (directory / "args.json").write_text(json.dumps({**arguments, **changes}))
    state = dict(_fairseq_state(shape, (sizes[0], sizes[1]), np.random.default_rng(seed)))
    save_file(state, directory / "model.safetensors")
    return state


def _fairseq_state(
    shape: Shape, sizes: tuple[int, int], rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    def linear(name: str, d_in: int, d_out: int) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", random(rng, d_out, d_in)
        yield f"{name}.bias", random(rng, d_out)

    def norm(name: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", 1 + random(rng, shape.d)
        yield f"{name}.bias", random(rng, shape.d)

    source, target, output = shape.embeddings(rng, sizes)
    yield "encoder.embed_tokens.weight", source
    yield "decoder.embed_tokens.weight", target
    yield "decoder.output_projection.weight", output
    for side, count in (("encoder", shape.layers), ("decoder", shape.decoder_layers)):
        yield f"{side}.version", np.array([3], np.float32)
        if shape.learned:
            yield f"{side}.embed_positions.weight", random(rng, shape.positions + 2, shape.d)
        else:
            yield f"{side}.embed_positions._float_tensor", np.zeros(1, np.float32)
        for i in range(count):
            layer = f"{side}.layers.{i}"
            for attention in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield from linear(f"{layer}.{attention}.{part}", shape.d, shape.d)
                yield from norm(f"{layer}.{attention}_layer_norm")
            yield from linear(f"{layer}.fc1", shape.d, shape.d_ff)
            yield from linear(f"{layer}.fc2", shape.d_ff, shape.d)
            yield from norm(f"{layer}.final_layer_norm")
        if shape.pre:
            yield from norm(f"{side}.layer_norm")


def fairseq_logits(state: State, shape: Shape, source: list[int], target: list[int]) -> np.ndarray:
    """What fairseq computes. target: what the decoder reads. Returns [tokens, vocabulary]."""
    net = Network(state, shape, epsilon=1e-5)

    def embedded(side: str, ids: list[int]) -> np.ndarray:
        x = net[f"{side}.embed_tokens.weight"][ids] * net.scale
        if shape.learned:
            return x + net[f"{side}.embed_positions.weight"][2:][: len(ids)]
        half = shape.d // 2
        for row, position in zip(x, range(2, 2 + len(ids)), strict=True):
            for i in range(half):
                angle = position * math.exp(-i * math.log(10000) / (half - 1))
                row[i] += math.sin(angle)
                row[half + i] += math.cos(angle)
        return x

    def names(layer: str, attention: str) -> list[str]:
        return [f"{layer}.{attention}.{part}_proj" for part in ("q", "k", "v", "out")]

    def feed_forward(layer: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: net.linear(f"{layer}.fc2", net.relu(net.linear(f"{layer}.fc1", x)))

    x = embedded("encoder", source)
    for i in range(shape.layers):
        layer = f"encoder.layers.{i}"
        own = names(layer, "self_attn")
        x = net.attend(f"{layer}.self_attn_layer_norm", own, x)
        x = net.around(f"{layer}.final_layer_norm", x, feed_forward(layer))
    memory = net.norm("encoder.layer_norm", x) if shape.pre else x
    x = embedded("decoder", target)
    for i in range(shape.decoder_layers):
        layer = f"decoder.layers.{i}"
        own, cross = names(layer, "self_attn"), names(layer, "encoder_attn")
        x = net.attend(f"{layer}.self_attn_layer_norm", own, x, causal=True)
        x = net.attend(f"{layer}.encoder_attn_layer_norm", cross, x, memory)
        x = net.around(f"{layer}.final_layer_norm", x, feed_forward(layer))
    x = net.norm("decoder.layer_norm", x) if shape.pre else x
    return x @ net["decoder.output_projection.weight"].T
