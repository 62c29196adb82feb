"""Looking up embeddings and adding position embeddings."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.checks import are_rows, are_whole, has_shape, is_matrix, shape_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp, function, op
from autograd.ops.large.norm import dropout


@op
def embedding(
    table: Array,
    positions: Array | None = None,
    *,
    ids: Array,
    position_ids: Array | None = None,
    order: Array | None = None,
    position_order: Array | None = None,
    scale: float = 1.0,
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    """Dropout(table[ids] · scale + positions[position_ids]) (sections 3.4, 3.5 and 5.4).

    table: [vocabulary, d]; positions: [length, d], fixed or learned; ids and position_ids:
    [tokens], integers. An id below 0 stands for no token; its embedding is zero. order and
    position_order: [tokens], the tokens in a stable sort by id and by position id, where they are
    known: a gradient that is summed along them need not sort then. Returns [tokens, d].
    """
    xp = array_module(table)
    known = (ids >= 0).astype(table.dtype)[:, None] * scale  # [tokens, 1]
    rows = xp.maximum(ids, 0)
    y = table[rows] * known
    if positions is not None:
        y += positions[position_ids]
    y, dropout_vjp = dropout.reference(y, site=site)

    def vjp(dy: Array) -> Any:
        dy = dropout_vjp(dy)
        dtable = xp.zeros_like(table)
        xp.add.at(dtable, rows, dy * known)  # an id that occurs twice gets both gradients
        if positions is None:
            return dtable
        dpositions = xp.zeros_like(positions)
        xp.add.at(dpositions, position_ids, dy)
        return dtable, dpositions

    return y, vjp


@embedding.checked
def _check(
    table: Array,
    positions: Array | None = None,
    *,
    ids: Array,
    position_ids: Array | None = None,
    order: Array | None = None,
    position_order: Array | None = None,
    **_: Any,
) -> None:
    is_matrix("embedding: table", table, "[vocabulary, d]")
    tokens = (getattr(ids, "size", 0),)
    if not table.shape[0] and tokens[0]:  # an id below 0 still reads row 0
        raise IndexError("embedding: table has no rows, but there are ids")
    are_rows("embedding: ids", ids, tokens, "[tokens]", table.shape[0], or_negative=True)
    for name, x in (("order", order), ("position_order", position_order)):
        if x is not None:
            are_rows(f"embedding: {name}", x, tokens, "[tokens]", *tokens)
    if positions is not None:
        is_matrix("embedding: positions", positions, "[length, d]")
        if positions.shape[1] != table.shape[1]:
            raise ValueError(
                f"embedding: positions {positions.shape} and table {table.shape} differ in their "
                "columns, [length, d] and [vocabulary, d]"
            )
        are_rows("embedding: position_ids", position_ids, tokens, "[tokens]", positions.shape[0])


@function
def no_token_first(ids: Array, position_ids: Array) -> Array:
    """The ids, but -1, which stands for no token, at position 0.

    ids and position_ids: [tokens], integers. Returns [tokens].
    """
    return array_module(ids).where(position_ids == 0, -1, ids)


@no_token_first.checked
def _check_first(ids: Array, position_ids: Array) -> None:
    are_whole("no_token_first: ids", ids)
    are_whole("no_token_first: position_ids", position_ids)
    has_shape("no_token_first: position_ids", position_ids, shape_of(ids), "[tokens]")
