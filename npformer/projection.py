"""The projection before the softmax, to the tokens that a search may choose."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, array_module, backend_of
from autograd.int8 import Int8Matrix
from autograd.widened import is_bfloat16
from npformer.shortlist import Candidates


class Projection(NamedTuple):
    """What turns the decoder's output into the logits of tokens.

    Attributes:
        weight: [tokens, d_model], which may be an Int8Matrix
        bias: [tokens], or of a restricted projection [running, tokens], for each running sentence:
            -inf for a token that is never chosen; None if there is none
        ids: [tokens], the id of each token, of a restricted projection; otherwise they are all
            there in their order
    """

    weight: Array | Int8Matrix
    bias: Array | None = None
    ids: Array | None = None

    def restricted(self, candidates: Candidates, sentences: int) -> Projection:
        """The projection to some of the tokens, with a copy of their rows. This one must be to all.

        sentences: as many as the bias has, if more than have candidates; all tokens are allowed for
        those that are not there, so that their numbers remain finite.
        """
        xp, asarray = array_module(self.weight), backend_of(self.weight).asarray
        more = ((0, sentences - len(candidates.allowed)), (0, 0))
        allowed = asarray(np.pad(candidates.allowed, more, constant_values=True))
        ids = asarray(candidates.ids)
        dtype = np.float32 if is_bfloat16(self.weight.dtype) else self.weight.dtype
        own = xp.zeros(len(ids), dtype) if self.bias is None else self.bias[ids].astype(dtype)
        return Projection(self.weight[ids], xp.where(allowed, own, -math.inf).astype(dtype), ids)

    @property
    def of_sentences(self) -> bool:
        """Whether each running sentence has a bias of its own."""
        return self.ids is not None

    @property
    def arrays(self) -> list[Array]:
        """Those that are not the model's."""
        mine = [x for x in (self.bias, self.ids) if x is not None]
        if self.of_sentences:
            held = self.weight
            mine += held.arrays if isinstance(held, Int8Matrix) else [held]
        return mine

    def in_arrays_of(self, earlier: Projection | None) -> Projection:
        """The same in the arrays of an earlier one of this size, which it overwrites."""
        if earlier is None:
            return self
        for old, new in zip(earlier.arrays, self.arrays, strict=True):
            old[...] = new
        return earlier

    def of_all(self, log_p: Array, vocab_size: int) -> Array:
        """[rows, vocabulary]: log_p: [rows, tokens], and -inf for the tokens that are not here."""
        if self.ids is None:
            return log_p
        xp = array_module(log_p)
        everything = xp.full((len(log_p), vocab_size), -math.inf, log_p.dtype)
        everything[:, self.ids] = log_p
        return everything
