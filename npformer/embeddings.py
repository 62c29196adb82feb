"""Symbols to vectors: embedding, position and their dropout (sections 3.4 and 3.5)."""

from __future__ import annotations

import math

import numpy as np

from autograd import DropoutStream, Parameter, Tensor, ops
from autograd.backend import Array, backend_of
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.positions import sinusoids


class Embedding:
    """Dropout(E[ids] · √d_model + PE[places]), for one of the two languages.

    `table` [vocabulary, d_model]; `learned` are its learned positions [max_length, d_model], or
    None for sines and cosines.
    """

    def __init__(
        self, table: Parameter, learned: Parameter | None, config: TransformerConfig, site: int
    ) -> None:
        self.table = table
        self.learned = learned
        self.config = config
        self.site = site
        self._waves: Array = np.empty((0, config.d_model), np.float32)

    def __call__(
        self, ids: Array, places: Array, longest: int, dropout: DropoutStream | None = None
    ) -> Tensor:
        """The vectors [tokens, d_model] of `ids` [tokens] that stand at `places` [tokens].

        Places are below `longest`, which is said because nobody may look at a device's array.
        """
        owner = backend_of(self.table.value)
        return ops.embedding(
            self.table,
            self._positions(longest),
            ids=owner.asarray(ids),
            places=owner.asarray(places),
            scale=math.sqrt(self.config.d_model),
            site=dropout.site(self.site, self.config.dropout) if dropout else None,
        )

    def _positions(self, longest: int) -> Parameter | Array:
        """A table of at least `longest` positions, where and in the dtype that E is."""
        if self.learned is not None:
            if longest > self.config.max_length:
                raise UserError(
                    f"a sentence of {longest} tokens is longer than the {self.config.max_length} "
                    "positions that the model has learned (model.max_length); shorten it, or use "
                    "positions: interleaved"
                )
            return self.learned
        owner = backend_of(self.table.value)
        waves = self._waves
        if (
            len(waves) < longest
            or backend_of(waves) is not owner
            or waves.dtype != self.table.value.dtype
        ):
            config = self.config
            length = max(256, 1 << (longest - 1).bit_length())
            waves = sinusoids(length, config.d_model, config.positions, config.position_spacing)
            # Returned as it is, for another thread may put a shorter one in its place.
            waves = self._waves = owner.asarray(waves.astype(self.table.dtype))
        return waves
