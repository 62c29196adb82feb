"""Greedy search of one sentence at a time in PyTorch: eager, compiled, or as a CUDA graph.

    greedy = Greedy(model, "graph")     # a TorchTransformer, on a GPU in eval mode
    ids = greedy(source, limit)

All sizes are fixed, as compiled code and graphs need it: the cache has room for the longest
translation, of which a step reads what is filled, by a mask. Sources are filled up to a few sizes.
Each token stays on the device, where the next step finds it; the host looks for the end now and
then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name)

from benchmarks.torch_decoding import LOOK_EVERY
from benchmarks.torch_transformer import TorchTransformer

How = Literal["eager", "compiled", "graph"]

_SIZES = 64  # sources, and caches, have multiples of so many tokens


class Greedy:
    """Searches with one model, which are prepared at the first source of each size."""

    def __init__(
        self, model: TorchTransformer, how: How, begin_id: int = 1, end_id: int = 2
    ) -> None:
        assert not model.training
        self._model, self._how = model, how
        self._begin_id, self._end_id = begin_id, end_id
        self._searches: dict[tuple[int, int], _Search] = {}
        torch._dynamo.config.recompile_limit = 64  # each search has its own code

    @torch.inference_mode()
    def __call__(self, source: Sequence[int], limit: int) -> list[int]:
        """The token ids of a translation of at most `limit`, without its end.

        source: ids, with the end
        """
        size, room = (-(-n // _SIZES) * _SIZES for n in (len(source), limit))
        if (size, room) not in self._searches:
            self._searches[size, room] = _Search(self._model, self._how, size, room)
        search = self._searches[size, room]
        search.begin(source, self._begin_id)
        for length in range(1, limit + 1):
            search.step()
            if length % LOOK_EVERY == 0 or length == limit:
                ids: list[int] = search.found[:length].tolist()
                if self._end_id in ids:
                    return ids[: ids.index(self._end_id)]
        return ids


class _Search:
    """A search whose arrays stay where they are."""

    def __init__(self, model: TorchTransformer, how: How, size: int, room: int) -> None:
        weight, config = model.embedding.weight, model.config
        self._model, self._size, self._heads = model, size, config.heads
        new = partial(torch.zeros, device=weight.device)
        d_k = config.d_k
        self._memory = new((config.layers, 2, 1, config.heads, size, d_k), dtype=weight.dtype)
        self._mask = new((1, 1, 1, size), dtype=torch.bool)
        self._cache = new((config.layers, 2, 1, config.heads, room, d_k), dtype=weight.dtype)
        self._places = torch.arange(room, device=weight.device)
        self._id, self._length = new(1, dtype=torch.int64), new(1, dtype=torch.int64)
        self.found = new(room, dtype=torch.int64)
        self.step: Callable[[], None] = self._step
        if how == "compiled":
            self.step = torch.compile(self._step, fullgraph=True)
        elif how == "graph":
            self.step = self._captured()

    def begin(self, source: Sequence[int], begin_id: int) -> None:
        ids = torch.tensor([[*source, *[0] * (self._size - len(source))]])
        real = torch.arange(self._size) < len(source)
        self._mask.copy_(real[None, None, None])
        x = self._model.encode(ids.to(self._mask.device), self._mask)
        for i, layer in enumerate(self._model.decoder):
            for j, y in enumerate(layer.cross.keys_values(x)):
                self._memory[i, j].copy_(y.unflatten(-1, (self._heads, -1)).transpose(1, 2))
        self._id.fill_(begin_id)
        self._length.zero_()

    def _step(self) -> None:
        model = self._model
        x = model.embed(self._id, model.positions[self._length])  # [1, d_model]
        for i, layer in enumerate(model.decoder):
            memory = self._memory[i, 0], self._memory[i, 1]
            x = layer(x, partial(self._attend, layer=i), memory, self._attend_memory)
        self._id.copy_(F.linear(x, model.embedding.weight).argmax(dim=-1))
        self.found.index_copy_(0, self._length, self._id)
        self._length.add_(1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int) -> Tensor:
        q, k, v = (x.view(1, self._heads, 1, -1) for x in (q, k, v))
        keys, values = self._cache[layer, 0], self._cache[layer, 1]
        keys.index_copy_(2, self._length, k)
        values.index_copy_(2, self._length, v)
        mask = (self._places <= self._length)[None, None, None]
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).flatten(1)

    def _attend_memory(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q = q.view(1, self._heads, 1, -1)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=self._mask).flatten(1)

    def _captured(self) -> Callable[[], None]:
        """The step as a CUDA graph."""
        self._mask.fill_(True)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up outside of the graph
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay
