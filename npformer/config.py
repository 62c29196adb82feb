"""The configuration of a Transformer, with presets, among them every row of Table 3."""

from __future__ import annotations

import reprlib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from npformer.errors import UserError


@dataclass(frozen=True)
class TransformerConfig:
    """The configuration of a Transformer. The defaults are the paper's base model.

    Attributes:
        vocab_size: tokens of the target language, or of both where the vocabulary is shared
        source_vocab_size: tokens of the source language, if it has a separate vocabulary
        layers: N, the number of encoder layers and of decoder layers
        decoder_layers: the number of decoder layers, if it is another one
        d_model: width of every layer's output
        d_ff: inner width of the feed-forward network
        heads: h, the number of attention heads
        d_k, d_v: width of a head's keys and values; d_model / heads unless given
        dropout: P_drop, of each sub-layer's output and of the embeddings
        attention_dropout: of the attention weights (none in the paper)
        ffn_dropout: inside the feed-forward network (none in the paper)
        attention_window: how many positions of its own sequence a token attends to (section 4,
            restricted self-attention): that many around it in the encoder, and the last ones up to
            it in the decoder; or all. Cross-attention is to the whole source
        smoothing: ε_ls, label smoothing
        smoothing_over: ε is spread over the whole "vocabulary", or over all "others" than the
            target
        activation: of the feed-forward network: "relu" (the paper), "gelu", or "swish" (Marian)
        norm: "post", LayerNorm(x + Sublayer(x)), or "pre", x + Sublayer(LayerNorm(x))
        norm_epsilon: added to the variance
        positions: sines and cosines "interleaved" (the paper) or "concatenated" (tensor2tensor,
            fairseq, Marian), or "learned"
        position_spacing: frequencies 10000^(-i / n) with n = "d/2" (the paper, Hugging Face's
            Marian) or "d/2-1" (tensor2tensor, fairseq, Marian)
        first_position: of sines and cosines, the position of a sentence's first token: 0 in the
            paper, 2 in fairseq
        max_length: number of learned positions, in tokens
        share_embeddings: one matrix for "all" of source embedding, target embedding and the
            projection before the softmax (the paper); for the two of the "target"; or for "none"
        initialisation: of the fused projections Q‖K‖V and K‖V: each one "separate", or all of them
            "fused" as one matrix with gain 1/√2 (fairseq)
        decoder_start: what the decoder reads first: the begin "token" (the paper), or "zero", a
            vector of zeros (tensor2tensor)
        scale_embeddings: whether embeddings are multiplied by √d_model
        output_bias: whether the projection before the softmax has a bias (Marian)
        suppressed_ids: the target tokens that no search chooses
        longest: the most tokens of a source sentence that it was trained on, without the end; None
            if that is not known
    """

    vocab_size: int
    source_vocab_size: int | None = None
    layers: int = 6
    decoder_layers: int | None = None
    d_model: int = 512
    d_ff: int = 2048
    heads: int = 8
    d_k: int | None = None
    d_v: int | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.0
    ffn_dropout: float = 0.0
    attention_window: int | None = None
    smoothing: float = 0.1
    smoothing_over: Literal["vocabulary", "others"] = "vocabulary"
    activation: Literal["relu", "gelu", "swish"] = "relu"
    norm: Literal["post", "pre"] = "post"
    norm_epsilon: float = 1e-6
    positions: Literal["interleaved", "concatenated", "learned"] = "interleaved"
    position_spacing: Literal["d/2", "d/2-1"] = "d/2"
    first_position: int = 0
    max_length: int = 1024
    share_embeddings: Literal["all", "target", "none"] = "all"
    initialisation: Literal["separate", "fused"] = "separate"
    decoder_start: Literal["token", "zero"] = "token"
    scale_embeddings: bool = True
    output_bias: bool = False
    suppressed_ids: tuple[int, ...] = ()
    longest: int | None = None

    def __post_init__(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                self._require(name, type(value) is int, "a whole number")
                least = 0 if name == "first_position" else 1
                self._require(name, value >= least, f"at least {least}")
                self._require(name, value <= _LARGEST, f"at most {_LARGEST}")
        for name in ("layers", "decoder_layers"):
            few = (getattr(self, name) or 0) <= _MOST_LAYERS
            self._require(name, few, f"at most {_MOST_LAYERS:,}")
        for name in ("scale_embeddings", "output_bias"):
            self._require(name, type(getattr(self, name)) is bool, "true or false")
        suppressed = self.suppressed_ids
        self._require("suppressed_ids", isinstance(suppressed, list | tuple), "a list of token ids")
        self._require(
            "suppressed_ids",
            all(type(i) is int and 0 <= i < self.vocab_size for i in suppressed),
            f"token ids from 0 to {self.vocab_size - 1:,}",
        )
        object.__setattr__(self, "suppressed_ids", tuple(suppressed))
        for name in _FRACTIONS:
            self._require(name, type(getattr(self, name)) in (int, float), "a number")
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        for name in ("d_k", "d_v"):
            if getattr(self, name) is None:
                self._require(
                    "d_model",
                    self.d_model % self.heads == 0,
                    f"divisible by heads ({self.heads}), unless d_k and d_v are given",
                )
                object.__setattr__(self, name, self.d_model // self.heads)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            self._require(name, value in choices, f"one of {', '.join(choices)}")
        if self.positions != "learned":
            self._require("d_model", self.d_model % 2 == 0, "even, for pairs of sine and cosine")
        if self.smoothing_over == "others":
            self._require("vocab_size", self.vocab_size > 1, "above 1 for smoothing to have others")
        if self.source_vocab_size is not None and self.share_embeddings == "all":
            raise UserError(
                "model.share_embeddings: 'all' needs one vocabulary for both languages, and "
                "source_vocab_size gives the source its own; use 'target' or 'none'"
            )

    @property
    def decoder_depth(self) -> int:
        """The layers of the decoder: `layers`, unless `decoder_layers` says otherwise."""
        return self.decoder_layers or self.layers

    @property
    def longest_source(self) -> int:
        """The most source tokens that are translated together, without the end.

        They are as many as the model was trained on, and never more than it has learned positions.
        """
        learned = self.max_length - 1
        if self.longest is None:
            return learned
        return min(self.longest, learned) if self.positions == "learned" else self.longest

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            value = reprlib.repr(getattr(self, name))
            raise UserError(f"model.{name} must be {what}; it is {value}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TransformerConfig:
        """The preset `name`, with some fields changed; vocab_size must be given.

        Presets are "base", "big", the smaller "small" and "tiny", and the rows of Table 3, such
        as "table3/A/heads=16", "table3/C/d_model=256" and "table3/E". Defaults that depend on
        other fields (d_k on d_model and heads) are computed after the changes.
        """
        if name not in PRESETS:
            known = ", ".join(PRESETS)
            raise UserError(f"there is no model preset {name!r}; choose one of {known}")
        return cls.from_dict({**PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformerConfig:
        """The configuration with these fields, which an earlier version may have written.

        Raises UserError for an unknown one.
        """
        values = current_fields(values)
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(
                f"model.{reprlib.repr(unknown[0])[1:-1]} is not a setting of the model; choose one "
                f"of {', '.join(sorted(known))}"
            )
        if "vocab_size" not in values:
            raise UserError("model.vocab_size must be given")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as plain values."""
        return asdict(self)


def current_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a configuration, those that an earlier version wrote by their present names."""
    found = {_RENAMED.get(name, name): value for name, value in values.items()}
    if found.get("decoder_start") == "symbol":
        found["decoder_start"] = "token"
    return found


_RENAMED = {"smoothing_spread": "smoothing_over"}

_LARGEST = (1 << 31) - 1  # ids and indices are 32-bit integers
_MOST_LAYERS = 10_000  # building a layer takes time, however small it is

_WHOLE = (
    "vocab_size",
    "source_vocab_size",
    "layers",
    "decoder_layers",
    "d_model",
    "d_ff",
    "heads",
    "d_k",
    "d_v",
    "attention_window",
    "max_length",
    "first_position",
    "longest",
)
_OPTIONAL = (
    "source_vocab_size",
    "decoder_layers",
    "d_k",
    "d_v",
    "attention_window",
    "longest",
)
_FRACTIONS = ("dropout", "attention_dropout", "ffn_dropout", "smoothing", "norm_epsilon")
_CHOICES = {
    "smoothing_over": ("vocabulary", "others"),
    "activation": ("relu", "gelu", "swish"),
    "norm": ("post", "pre"),
    "positions": ("interleaved", "concatenated", "learned"),
    "position_spacing": ("d/2", "d/2-1"),
    "share_embeddings": ("all", "target", "none"),
    "initialisation": ("separate", "fused"),
    "decoder_start": ("token", "zero"),
}

_BIG: dict[str, Any] = {"d_model": 1024, "d_ff": 4096, "heads": 16, "dropout": 0.3}

PRESETS: dict[str, dict[str, Any]] = {
    # Table 3, first and last row. (Table 2's English-French big model has dropout 0.1.)
    "paper": {},  # base, as the text describes it
    "base": {},
    "big": _BIG,
    # For corpora of tens of thousands of pairs. Papers on Multi30k use the sizes of tiny.
    "small": {"layers": 3, "d_model": 256, "d_ff": 1024, "heads": 8},
    "tiny": {"layers": 4, "d_model": 128, "d_ff": 256, "heads": 4, "dropout": 0.3},
    # Table 3: variations of base. Only in (B) does d_k differ from d_v.
    **{f"table3/A/heads={h}": {"heads": h} for h in (1, 4, 16, 32)},
    **{f"table3/B/d_k={d}": {"d_k": d, "d_v": 64} for d in (16, 32)},
    **{f"table3/C/layers={n}": {"layers": n} for n in (2, 4, 8)},
    **{f"table3/C/d_model={d}": {"d_model": d} for d in (256, 1024)},
    **{f"table3/C/d_ff={d}": {"d_ff": d} for d in (1024, 4096)},
    **{f"table3/D/dropout={p}": {"dropout": float(p)} for p in ("0", "0.2")},
    **{f"table3/D/smoothing={e}": {"smoothing": float(e)} for e in ("0", "0.2")},
    "table3/E": {"positions": "learned"},
    "table3/big": _BIG,
}
