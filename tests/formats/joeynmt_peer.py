"""What JoeyNMT leaves behind, and what it computes, from its facts."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.formats.network import Network, Shape, State, own_pieces, random, spms


def write_joeynmt(
    directory: Path, shape: Shape, seed: int = 0, *, swish: bool = False, tied: bool | None = None
) -> State:
    """Write a directory for the import, and return the arrays.

    tied: whether the embeddings of both languages are one, by default where all is shared.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tied = shape.shared == "all" if tied is None else tied
    sizes = []
    for side, short in (("source", "src"), ("target", "trg")):
        model = spms(shape.joined)[side]
        (directory / (f"{short}.model")).write_bytes(model)
        pieces = ["<unk>", "<pad>", "<s>", "</s>", *own_pieces(model)]
        (directory / f"{short}_vocab.txt").write_text("".join(f"{p}\n" for p in pieces))
        sizes.append(len(pieces))
    (directory / "config.yaml").write_text(joeynmt_config(shape, swish, tied))
    rng = np.random.default_rng(seed)
    state = dict(_joeynmt_state(shape, (sizes[0], sizes[1]), rng, tied))
    save_file(state, directory / "best.safetensors")
    return state


def joeynmt_config(shape: Shape, swish: bool, tied: bool) -> str:
    """The configuration, in the form of those that come with JoeyNMT."""

    def language(short: str, name: str) -> str:
        return f"""\
    {short}:
        lang: "{name}"
        max_length: 100
        lowercase: False
        normalize: False
        level: "bpe"
        voc_limit: 32000
        voc_file: "elsewhere/sp.vocab"
        tokenizer_type: "sentencepiece"
        tokenizer_cfg:
            model_file: "elsewhere/{short}.model"
            model_type: "unigram"
            pretokenizer: "none"
"""

    def side(name: str, layers: int) -> str:
        return f"""\
    {name}:
        type: "transformer"
        num_layers: {layers}
        num_heads: {shape.heads}
        embeddings:
            embedding_dim: {shape.d}
            scale: {shape.scaled}
            dropout: 0.
        # typically ff_size = 4 x hidden_size
        hidden_size: {shape.d}
        ff_size: {shape.d_ff}
        dropout: 0.1
        layer_norm: "{"pre" if shape.pre else "post"}"
        activation: "{"swish" if swish else "relu"}"
"""

    return f"""\
name: "random"
joeynmt_version: "2.3.0"
model_dir: "models/random"
use_cuda: False

data:
    train: "train"
    dataset_type: "plain"
{language("src", "en")}{language("trg", "de")}\
    special_symbols:
        unk_token: "<unk>"
        unk_id: 0
        pad_token: "<pad>"
        pad_id: 1
        bos_token: "<s>"
        bos_id: 2
        eos_token: "</s>"
        eos_id: 3

testing:
    beam_size: 5
    beam_alpha: 1.0

training:
    batch_size: 8
    learning_rate: 0.0002
    adam_betas: [0.9, 0.98]

model:
    initializer: "xavier_uniform"
    bias_initializer: "zeros"
    init_gain: 1.0
    embed_initializer: "xavier_uniform"
    embed_init_gain: 1.0
    tied_embeddings: {tied}
    tied_softmax: {shape.shared != "none"}
{side("encoder", shape.layers)}{side("decoder", shape.decoder_layers)}"""


def _joeynmt_state(
    shape: Shape, sizes: tuple[int, int], rng: np.random.Generator, tied: bool
) -> Iterator[tuple[str, np.ndarray]]:
    def linear(name: str, d_in: int, d_out: int) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", random(rng, d_out, d_in)
        yield f"{name}.bias", random(rng, d_out)

    def norm(name: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", 1 + random(rng, shape.d)
        yield f"{name}.bias", random(rng, shape.d)

    source, target, output = shape.embeddings(rng, sizes)
    yield "src_embed.lut.weight", source
    yield "trg_embed.lut.weight", source if tied else target
    yield "decoder.output_layer.weight", output
    for side, count in (("encoder", shape.layers), ("decoder", shape.decoder_layers)):
        yield f"{side}.pe.pe", _joeynmt_positions(5000, shape.d)[None].astype(np.float32)
        attentions = {"encoder": ["src_src_att"], "decoder": ["trg_trg_att", "src_trg_att"]}[side]
        norms = {"encoder": ["layer_norm"], "decoder": ["x_layer_norm", "dec_layer_norm"]}[side]
        for i in range(count):
            layer = f"{side}.layers.{i}"
            for attention in attentions:
                for part in "kvq":
                    yield from linear(f"{layer}.{attention}.{part}_layer", shape.d, shape.d)
                yield from linear(f"{layer}.{attention}.output_layer", shape.d, shape.d)
            for name in norms:
                yield from norm(f"{layer}.{name}")
            yield from norm(f"{layer}.feed_forward.layer_norm")
            yield from linear(f"{layer}.feed_forward.pwff_layer.0", shape.d, shape.d_ff)
            yield from linear(f"{layer}.feed_forward.pwff_layer.3", shape.d_ff, shape.d)
        if shape.pre:
            yield from norm(f"{side}.layer_norm")


def _joeynmt_positions(length: int, d: int) -> np.ndarray:
    frequencies = np.exp(np.arange(0, d, 2) * -(math.log(10000) / d))
    angles = np.arange(length)[:, None] * frequencies
    pe = np.zeros((length, d))
    pe[:, 0::2], pe[:, 1::2] = np.sin(angles), np.cos(angles)
    return pe


def joeynmt_logits(
    state: State, shape: Shape, source: list[int], target: list[int], *, swish: bool = False
) -> np.ndarray:
    """What JoeyNMT computes. target: what the decoder reads. Returns [tokens, vocabulary]."""
    net = Network(state, shape, epsilon=1e-6)

    def embedded(side: str, ids: list[int]) -> np.ndarray:
        x = net[f"{side}_embed.lut.weight"][ids] * net.scale
        return x + _joeynmt_positions(len(ids), shape.d)

    def names(layer: str, attention: str) -> list[str]:
        return [f"{layer}.{attention}.{part}_layer" for part in ("q", "k", "v", "output")]

    def feed_forward(layer: str, x: np.ndarray) -> np.ndarray:
        stem = f"{layer}.feed_forward"

        def inner(x: np.ndarray) -> np.ndarray:
            y = net.linear(f"{stem}.pwff_layer.0", x)
            return net.linear(f"{stem}.pwff_layer.3", net.swish(y) if swish else net.relu(y))

        return net.around(f"{stem}.layer_norm", x, inner)

    x = embedded("src", source)
    for i in range(shape.layers):
        layer = f"encoder.layers.{i}"
        own = names(layer, "src_src_att")
        x = net.attend(f"{layer}.layer_norm", own, x)
        x = feed_forward(layer, x)
    memory = net.norm("encoder.layer_norm", x) if shape.pre else x
    x = embedded("trg", target)
    for i in range(shape.decoder_layers):
        layer = f"decoder.layers.{i}"
        own, cross = names(layer, "trg_trg_att"), names(layer, "src_trg_att")
        x = net.attend(f"{layer}.x_layer_norm", own, x, causal=True)
        x = net.attend(f"{layer}.dec_layer_norm", cross, x, memory)
        x = feed_forward(layer, x)
    x = net.norm("decoder.layer_norm", x) if shape.pre else x
    return x @ net["decoder.output_layer.weight"].T
