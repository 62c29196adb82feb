"""A model of ours on its way to another program, and the refusals that the formats share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.shortlist import Shortlist
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.vocabulary import Vocabulary


@dataclass(frozen=True)
class OutgoingModel:
    """A model that is written in another format, and its shortlist, if it has one."""

    config: TransformerConfig
    parameters: Mapping[str, np.ndarray]
    tokenizers: TokenizerPair
    shortlist: Shortlist | None = None

    @property
    def vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """Those of the source and of the target."""
        source, target = self.tokenizers.source, self.tokenizers.target
        return _vocabulary(source), _vocabulary(target)

    @property
    def positions(self) -> int:
        """Positions that sentences as long as those of training need, and at least max_length."""
        config = self.config
        return max(config.max_length, config.longest_source + 1)

    def require(self, format: str, **needed: object) -> None:
        """Raise UserError unless the fields of the configuration have these values."""
        for name, value in needed.items():
            own = getattr(self.config, name)
            if own != value:
                raise UserError(
                    f"{format} cannot hold a model with {name} = {own!r}, only with {value!r}"
                )

    def require_activation(self, format: str, held: Container[str]) -> None:
        """Raise UserError unless the format can hold the activation."""
        activation = self.config.activation
        if activation not in held:
            raise UserError(f"{format} cannot hold a model with activation = {activation!r}")

    def require_even_heads(self, format: str) -> None:
        """Raise UserError unless d_k and d_v are d_model / heads."""
        config = self.config
        if not config.d_k == config.d_v == config.d_model / config.heads:
            raise UserError(
                f"{format} cannot hold a model with d_k = {config.d_k} and d_v = {config.d_v}: "
                f"both are d_model / heads there, {config.d_model / config.heads:g}"
            )

    def with_concatenated_positions(self) -> OutgoingModel:
        """The same function, with all sines of the positions before all cosines.

        Nothing in a Transformer depends on the order of the channels of its activations, but for
        the positions that are added to them. So the channels of all parameters can be permuted.
        """
        if self.config.positions != "interleaved":
            return self
        d = self.config.d_model
        order = np.concatenate([np.arange(0, d, 2), np.arange(1, d, 2)])
        permuted = {name: _permuted(name, array, order) for name, array in self.parameters.items()}
        config = dataclasses.replace(self.config, positions="concatenated")
        return dataclasses.replace(self, config=config, parameters=permuted)

    def write_sentencepiece(self, directory: Path) -> None:
        """Write source.spm and target.spm."""
        for side in ("source", "target"):
            with atomic_write(directory / f"{side}.spm") as file:
                file.write(getattr(self.tokenizers, side).model)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file."""
    with atomic_write(path) as file:
        file.write(json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n")


# The parameters with d_model rows, those with d_model columns, and vectors [d_model].
_ROWS = (".qkv.weight", ".q.weight", ".kv.weight", ".inner.weight")
_COLUMNS = ("embedding", "projection", ".output.weight", ".outer.weight")
_VECTORS = (".output.bias", ".outer.bias", ".gain", ".norm.bias")


def _permuted(name: str, array: np.ndarray, order: np.ndarray) -> np.ndarray:
    if name.endswith(_ROWS) or name.endswith(_VECTORS):
        return array[order]
    return array[:, order] if name.endswith(_COLUMNS) else array


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    if tokenizer.vocabulary:
        return tokenizer.vocabulary
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    return Vocabulary(pieces, tokenizer.begin_id, tokenizer.end_id, tokenizer.unknown_id)
