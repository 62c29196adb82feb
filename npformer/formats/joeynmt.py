"""Transformers of JoeyNMT.

config.yaml  best.ckpt  src_vocab.txt  trg_vocab.txt  sp.model (as the configuration says)

The model_state of best.ckpt may also come as safetensors.
"""

from __future__ import annotations

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
from npformer.formats.foreign_settings import ForeignSettings
from npformer.formats.layer_names import LayerNames, take_layers
from npformer.formats.state_dict import read_state_dict
from npformer.model_card import language_code
from npformer.positions import sinusoids
from npformer.sentencepiece_model import restricted
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.vocabulary import Vocabulary

CONFIG, CHECKPOINT = "config.yaml", "best.ckpt"
_SIDES = {"encoder": "src", "decoder": "trg"}
_NORM_EPSILON = 1e-6
_POSITIONS = 5000  # that JoeyNMT has computed
_WAVES_WITHIN = 2e-3  # of sines and cosines that were kept in few bits
_ACTIVATIONS = ("relu", "swish")

# What may stand about the model, * being the encoder or the decoder.
_KNOWN = {
    "model.tied_embeddings",
    "model.tied_softmax",
    "model.initializer",
    "model.init_gain",
    "model.init_weight",
    "model.bias_initializer",
    "model.embed_initializer",
    "model.embed_init_gain",
    "model.embed_init_weight",
    "model.*.type",
    "model.*.num_layers",
    "model.*.num_heads",
    "model.*.hidden_size",
    "model.*.ff_size",
    "model.*.activation",
    "model.*.layer_norm",
    "model.*.alpha",
    "model.*.dropout",
    "model.*.freeze",
    "model.*.embeddings.embedding_dim",
    "model.*.embeddings.scale",
    "model.*.embeddings.dropout",
    "model.*.embeddings.freeze",
    "model.*.embeddings.load_pretrained",
}

_ATTENTION = ("q_layer", "k_layer", "v_layer", "output_layer")
_LAYERS = {
    side: LayerNames(
        self_attention=attention,
        cross_attention="src_trg_att",
        projections=_ATTENTION,
        inner="feed_forward.pwff_layer.0",
        outer="feed_forward.pwff_layer.3",
        self_attention_norm=norm,
        cross_attention_norm="dec_layer_norm",
        feed_forward_norm="feed_forward.layer_norm",
    )
    for side, attention, norm in (
        ("encoder", "src_src_att", "layer_norm"),
        ("decoder", "trg_trg_att", "x_layer_norm"),
    )
}

_SOURCE, _TARGET = "src_embed.lut.weight", "trg_embed.lut.weight"
_OUTPUT = "decoder.output_layer.weight"


def is_joeynmt(directory: Path) -> bool:
    """Whether a directory has a configuration of JoeyNMT."""
    return (directory / CONFIG).exists()


def read_joeynmt(directory: Path) -> ImportedModel:
    """Read a Transformer that JoeyNMT has trained.

    Raises UserError if the directory is incomplete, or has something that we cannot compute.
    """
    about = _settings(directory / CONFIG)
    _check_supported(about)
    arrays = ForeignArrays(*_weights(directory))
    tokenizers = _tokenizers(directory, about)
    for name, tokenizer, side in (
        (_SOURCE, tokenizers.source, "src"),
        (_TARGET, tokenizers.target, "trg"),
    ):
        path = _vocabulary_path(directory, about, side)
        arrays.check_vocabulary(name, tokenizer.vocab_size, path)
    config = _configuration(about, arrays, tokenizers)
    parameters = _parameters(about, arrays, config)
    languages = [language_code(about.values.get(f"data.{side}.lang")) for side in ("src", "trg")]
    return ImportedModel(config, parameters, tokenizers, "JoeyNMT", *languages)


def _weights(directory: Path) -> tuple[dict[str, np.ndarray], Path]:
    if any(directory.glob("*.safetensors")):
        path = only_file(directory, "*.safetensors", "weights")
        return read_safetensors(path), path
    path = directory / CHECKPOINT
    if not path.exists():
        path = only_file(directory, "*.ckpt", "checkpoint, and no weights in safetensors")
    return read_state_dict(path, within="model_state"), path


def _settings(path: Path) -> ForeignSettings:
    """The configuration, in which nothing refers to another part."""
    import yaml  # here, because the other formats do without

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent):  # which could expand endlessly
                raise UserError(f"{path}: *{event.anchor}: aliases are not supported")
            return super().compose_node(parent, index)

    text = read_text(path)
    try:
        values = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split()):.200}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no configuration of JoeyNMT's")
    return ForeignSettings(path, values)


def _check_supported(about: ForeignSettings) -> None:
    for name in about.values:
        general = re.sub(r"^model\.(encoder|decoder)\.", "model.*.", name)
        if name.startswith("model.") and general not in _KNOWN:
            raise about.refused(name)
    for side in _SIDES:
        name = f"model.{side}.type"
        if about(name, str, "transformer" if side == "decoder" else None) != "transformer":
            raise about.refused(name)
        if about(f"model.{side}.alpha", float, 1.0) != 1:
            raise about.refused(f"model.{side}.alpha")
    about.require_off("data.special_symbols.sep_token", "data.special_symbols.lang_tags")
    for side in _SIDES.values():
        _check_text(about, f"data.{side}")


def _check_text(about: ForeignSettings, side: str) -> None:
    """Raise UserError if text is divided by anything but SentencePiece, or is changed before."""
    if about(f"{side}.level", str) != "bpe":
        raise about.refused(f"{side}.level", ", only 'bpe'")
    if about(f"{side}.tokenizer_type", str, "sentencepiece") != "sentencepiece":
        raise about.refused(f"{side}.tokenizer_type", ", only 'sentencepiece'")
    advice = "; give it text that is so already, and write {} there"
    for name in ("lowercase", "normalize"):
        if about(f"{side}.{name}", bool, False):
            raise about.refused(f"{side}.{name}", advice.format("false"))
    name = f"{side}.tokenizer_cfg.pretokenizer"
    if about(name, str, "none").lower() != "none":
        raise about.refused(name, advice.format("none"))


def _configuration(
    about: ForeignSettings, arrays: ForeignArrays, tokenizers: TokenizerPair
) -> TransformerConfig:
    d = arrays.matrix_shape(arrays.first_of(_SOURCE, _TARGET, _OUTPUT))[1]
    d_ff = arrays.matrix_shape("encoder.layers.0.feed_forward.pwff_layer.0.weight")[0]
    counts = [arrays.count(f"{side}.layers") for side in _SIDES]
    for side, count in zip(_SIDES, counts, strict=True):
        about.check_size(f"model.{side}.hidden_size", d)
        about.check_size(f"model.{side}.ff_size", d_ff)
        about.check_size(f"model.{side}.num_layers", count)
    tied = about("model.tied_embeddings", bool, False)
    joined = tokenizers.source.vocabulary == tokenizers.target.vocabulary
    if tied and not joined:
        raise about.error("model.tied_embeddings is true, and the two vocabularies differ")
    share = "none"
    if about("model.tied_softmax", bool, False):
        share = "all" if tied else "target"
    scaled = about("model.encoder.embeddings.scale", bool, False)
    if not tied:
        about.alike("model.*.embeddings.scale", bool, False)
    activation = about.alike("model.*.activation", str, "relu")
    if activation not in _ACTIVATIONS:
        raise about.refused("model.encoder.activation", f", only {' and '.join(_ACTIVATIONS)}")
    longest = about("data.src.max_length", int, -1)  # of training, without the end
    target = tokenizers.target.vocabulary
    assert target is not None
    suppressed = [target.begin_id, target.ids[_special(about)["pad"]]]
    if not about("testing.generate_unk", bool, True):
        suppressed.append(target.unknown_id)
    return about.configuration(
        vocab_size=tokenizers.target.vocab_size,
        source_vocab_size=None if joined else tokenizers.source.vocab_size,
        layers=counts[0],
        decoder_layers=None if counts[0] == counts[1] else counts[1],
        d_model=d,
        d_ff=d_ff,
        heads=about.alike("model.*.num_heads", int),
        dropout=about("model.encoder.dropout", float, 0.1),
        attention_dropout=about("model.encoder.dropout", float, 0.1),
        ffn_dropout=about("model.encoder.dropout", float, 0.1),
        activation=activation,
        norm=_norm(about, arrays),
        norm_epsilon=_NORM_EPSILON,
        positions="interleaved",
        max_length=longest + 1 if longest > 0 else _POSITIONS,
        share_embeddings=share,
        scale_embeddings=scaled,
        suppressed_ids=tuple(suppressed),
    )


def _norm(about: ForeignSettings, arrays: ForeignArrays) -> str:
    """Where layers normalise. The first version of JoeyNMT always did so before, and at the end."""
    at_the_end = all(f"{side}.layer_norm.weight" in arrays for side in _SIDES)
    norm: str = about.alike("model.*.layer_norm", str, "pre" if at_the_end else None)
    if norm not in ("pre", "post"):
        raise about.refused("model.encoder.layer_norm", ", only 'pre' and 'post'")
    return norm


def _parameters(
    about: ForeignSettings, arrays: ForeignArrays, config: TransformerConfig
) -> dict[str, np.ndarray]:
    size, d = config.vocab_size, config.d_model
    found = {}
    if config.share_embeddings == "all":
        found["embedding"] = arrays.take_tied([_SOURCE, _TARGET, _OUTPUT], (size, d))
    elif about("model.tied_embeddings", bool, False):
        found["embedding"] = arrays.take_tied([_SOURCE, _TARGET], (size, d))
        found["source_embedding"] = found["embedding"]
        found["projection"] = arrays.take(_OUTPUT, (size, d))
    else:
        found["source_embedding"] = arrays.take(_SOURCE, (config.source_vocab_size or size, d))
        tied = config.share_embeddings == "target"
        found["embedding"] = arrays.take_tied([_TARGET, *[_OUTPUT] * tied], (size, d))
        if not tied:
            found["projection"] = arrays.take(_OUTPUT, (size, d))
    for side in _SIDES:
        name = f"{side}.pe.pe"
        if name in arrays:
            waves = arrays.take(name, (1, _POSITIONS, d))[0]
            right = sinusoids(_POSITIONS, d, config.positions, config.position_spacing)
            if np.abs(waves - right).max() > _WAVES_WITHIN:
                raise UserError(
                    f"{arrays.path}: {name} holds other numbers than JoeyNMT's sines and cosines; "
                    "this is not supported"
                )
    found |= take_layers(arrays, config, names=_LAYERS)
    arrays.check_all_taken()
    return found


def _special(about: ForeignSettings) -> dict[str, str]:
    """The special tokens by their purpose, in the order of the vocabulary."""
    defaults = {"unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>"}
    return {
        name: about(f"data.special_symbols.{name}_token", str, token)
        for name, token in defaults.items()
    }


def _tokenizers(directory: Path, about: ForeignSettings) -> TokenizerPair:
    """Those of both languages; one, where they are alike."""
    found = []
    for side in _SIDES.values():
        vocabulary = _vocabulary(_vocabulary_path(directory, about, side), about)
        model = about(f"data.{side}.tokenizer_cfg.model_file", str)
        tokenizer = Tokenizer.load(directory / Path(model).name, vocabulary)
        # JoeyNMT divides text only into pieces that the vocabulary has.
        own = restricted(tokenizer.model, vocabulary.ids)
        found.append(Tokenizer(own, vocabulary))
    source, target = found
    alike = source.model == target.model and source.vocabulary == target.vocabulary
    return TokenizerPair(source, source if alike else target)


def _vocabulary_path(directory: Path, about: ForeignSettings, side: str) -> Path:
    """The vocabulary that a training has left, or else the one that it was given."""
    path = directory / f"{side}_vocab.txt"
    given = about(f"data.{side}.voc_file", str, path.name)
    return path if path.exists() else directory / Path(given).name


def _vocabulary(path: Path, about: ForeignSettings) -> Vocabulary:
    """The tokens of a file, one a line, after the special ones, each of which may be there, too."""
    special = _special(about)
    pieces = list(dict.fromkeys([*special.values(), *read_text(path).splitlines()]))
    ids = {name: pieces.index(token) for name, token in special.items()}
    for name, i in ids.items():
        setting = f"data.special_symbols.{name}_id"
        if about(setting, int, i) != i:
            raise about.error(f"{setting} is {about.values[setting]}, and the token has the id {i}")
    try:
        return Vocabulary(pieces, begin_id=ids["bos"], end_id=ids["eos"], unknown_id=ids["unk"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
