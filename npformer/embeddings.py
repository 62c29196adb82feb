"""Token ids to vectors: embedding, positional encoding and dropout (sections 3.4, 3.5, 5.4)."""

from __future__ import annotations

import math

from autograd import DropoutStream, Parameter, Sentences, Tensor, ops
from autograd.backend import Array, backend_of
from npformer.parameters import Dropout
from npformer.positions import Positions


class Embedding:
    """Dropout(E[ids] · √d_model + PE[position_ids]), for one of the two languages.

    table: E, [vocabulary, d_model]. Without `scaled`, there is no √d_model.
    """

    def __init__(
        self, table: Parameter, positions: Positions, dropout: Dropout, scaled: bool = True
    ) -> None:
        self.table = table
        self.positions = positions
        self.dropout = dropout
        self.scale = math.sqrt(table.shape[1]) if scaled else 1.0

    def __call__(
        self,
        ids: Array,
        sentences: Sentences,
        dropout: DropoutStream | None = None,
        order: Array | None = None,
    ) -> Tensor:
        """ids: [tokens], packed as `sentences`; order: that of `Packed`.

        Returns [tokens, d_model].
        """
        backend = backend_of(self.table.value)
        positions = self.positions.table(sentences.longest, self.table)
        learned = isinstance(positions, Tensor)
        return ops.embedding(
            self.table,
            positions,
            ids=backend.asarray(ids),
            position_ids=sentences.position_ids(backend),
            order=order,
            position_order=sentences.position_order(backend) if learned else None,
            scale=self.scale,
            site=self.dropout.site(dropout),
        )

    def at(self, ids: Array, position_ids: Array, length: int) -> Tensor:
        """ids and position_ids: [tokens]. Returns [tokens, d_model].

        All position ids are below `length`. It is an argument because computing it from an array
        on a GPU would wait for the GPU.
        """
        backend = backend_of(self.table.value)
        return ops.embedding(
            self.table,
            self.positions.table(length, self.table),
            ids=backend.asarray(ids),
            position_ids=position_ids,
            scale=self.scale,
        )
