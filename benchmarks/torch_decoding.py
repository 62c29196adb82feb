"""Greedy and beam search in eager PyTorch on a GPU, the peer of npformer.beam_search.

    model = TorchTransformer(config).to("cuda", torch.bfloat16).eval()
    translate(model, sentences, SearchSettings(beam=4))

The KV caches are allocated once, and a step reads the part that is filled. Hypotheses are
reordered by `index_select` from one cache into the other, and their tokens are traced back at the
end. All decisions are made on the device. Every few tokens the host asks which sentences have
ended, and removes those.

cuDNN's attention is excluded, because it prepares a plan for every new length. PyTorch's
FlashAttention is used without a mask, and its memory-efficient attention for padded keys. The
latter copies the mask in every call unless it has the queries' type and rows of a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name)
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.torch_transformer import TorchTransformer
from npformer import Packed, SearchSettings, unpack
from npformer.batch import batches_of_similar_length
from npformer.beam_search import Hypothesis

LOOK_EVERY = 8  # tokens

_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class DecoderState:
    """The keys and values that decoding keeps, for `beam` hypotheses per sentence.

    memory [layers, 2, sentences, heads, longest, d_k]: keys and values of the encoder's output,
    padded; mask [sentences, 1, 1, longest] is added to their scores.
    cache [capacity, layers, 2, rows, heads · d_k]: keys and values of the `length` tokens so far.
    """

    def __init__(self, model: TorchTransformer, source: Packed, beam: int, capacity: int) -> None:
        config = model.config
        weight = model.embedding.weight
        ids, lengths = unpack(source)
        ids = np.pad(ids.astype(np.int64), ((0, 0), (0, -ids.shape[1] % 8)))
        real = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).to(weight.device)
        x = model.encode(torch.from_numpy(ids).to(weight.device), real[:, None, None])
        self.heads, self.beam = config.heads, beam
        self.memory = torch.stack(
            [
                torch.stack([self._heads(y) for y in layer.cross.keys_values(x)])
                for layer in model.decoder
            ]
        )
        mask = torch.zeros_like(real, dtype=weight.dtype).masked_fill(~real, -torch.inf)
        self.mask = mask[:, None, None]
        shape = (capacity, config.layers, 2, len(source) * beam, config.heads * config.d_k)
        self.cache, self._other_cache = (weight.new_empty(shape) for _ in range(2))
        self.length = 0

    def _heads(self, x: Tensor) -> Tensor:
        """[sentences, n, heads · d_k] to [sentences, heads, n, d_k]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int) -> Tensor:
        """Attention of a new token per row to itself and earlier ones; it is added to the cache."""
        torch.stack((k, v), out=self.cache[self.length, layer])
        cached = self.cache[: self.length + 1, layer].unflatten(-1, (self.heads, -1))
        keys, values = cached.permute(1, 2, 3, 0, 4)  # [rows, heads, tokens, d_k]
        q = q.unflatten(-1, (self.heads, 1, -1))
        return F.scaled_dot_product_attention(q, keys, values).flatten(1)

    def attend_memory(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Cross-attention; the rows of a sentence share its memory, as several queries."""
        q = self._heads(q.unflatten(0, (-1, self.beam)))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=self.mask)
        return y.transpose(1, 2).flatten(2).flatten(0, 1)

    def select(self, rows: Tensor, sentence_ids: Tensor | None = None) -> None:
        """Let row i continue the hypothesis of row `rows[i]`; keep only these sentences, if any."""
        old, new = (cache[..., : len(rows), :] for cache in (self.cache, self._other_cache))
        so_far = slice(self.length)
        torch.index_select(self.cache[so_far], 3, rows, out=new[so_far])
        self.cache, self._other_cache = new, old
        if sentence_ids is not None:
            self.memory = self.memory.index_select(2, sentence_ids)
            self.mask = self.mask.index_select(0, sentence_ids)


def step(model: TorchTransformer, ids: Tensor, state: DecoderState) -> Tensor:
    """Append one token to every row; returns the logits of the next, [rows, vocabulary]."""
    x = model.embed(ids, model.positions[state.length])
    for i, layer in enumerate(model.decoder):
        attend = partial(state.attend, layer=i)
        x = layer(x, attend, tuple(state.memory[i]), state.attend_memory)
    state.length += 1
    return F.linear(x, model.embedding.weight)


@torch.inference_mode()
def search(
    model: TorchTransformer,
    source: Packed,
    settings: SearchSettings,
    begin_id: int = 1,
    end_id: int = 2,
) -> list[Hypothesis]:
    """The best translation of each packed source sentence, which includes its end token."""
    assert not model.training
    assert settings.alternatives == 1
    with sdpa_kernel(_BACKENDS):
        find = _greedy if settings.beam == 1 else _beam
        return find(model, source, settings, begin_id, end_id)


def translate(
    model: TorchTransformer,
    sentences: Sequence[Sequence[int]],
    settings: SearchSettings,
    begin_id: int = 1,
    end_id: int = 2,
    batch_tokens: int = 4096,
) -> list[Hypothesis]:
    """The best translation of each sentence, in order; sentences are given without end tokens.

    A batch has at most `batch_tokens` source tokens, including padding.
    """
    found: dict[int, Hypothesis] = {}
    for batch in batches_of_similar_length(sentences, batch_tokens):
        source = Packed.of([[*sentences[i], end_id] for i in batch])
        found |= zip(batch, search(model, source, settings, begin_id, end_id), strict=True)
    return [found[i] if i in found else Hypothesis([], 0.0) for i in range(len(sentences))]


class _Running:
    """The sentences that are still being translated, and the results of the others.

    Tensors on the device, [running]: `number`, the index of each sentence; `limit`, the most tokens
    of its translation; `going`, false once it has ended; and the `score` of its best hypothesis
    with the step and the row where it is in the `history`.
    """

    def __init__(self, source: Packed, settings: SearchSettings, device: torch.device) -> None:
        n = len(source)
        self.limits = source.lengths - 1 + settings.extra_length  # of all sentences, on the host
        self.last = int(self.limits.max(initial=1))
        self.number = torch.arange(n, device=device)
        self.limit = torch.from_numpy(self.limits).to(device)
        self.divisor_at_limit = settings.divisor(self.limit)
        self.going = torch.ones(n, dtype=torch.bool, device=device)
        self.score = torch.full((n,), -torch.inf, device=device)
        self.steps = torch.zeros_like(self.number)
        self.row = torch.zeros_like(self.number)
        # At each step, of each row: the token id, and the row that it continues.
        self.history = self.number.new_zeros((self.last, n, 2, settings.beam))
        self._found = np.zeros((3, n))  # score, steps, row

    def record(self, step: int, ids: Tensor, rows: Tensor) -> None:
        """ids and rows [running, beam]."""
        self.history[step].index_copy_(0, self.number, torch.stack((ids, rows), dim=1))

    def improve(self, better: Tensor, score: Tensor, steps: int, row: Tensor) -> None:
        """Where `better` [running], this is the best hypothesis now."""
        self.score = torch.where(better, score, self.score)
        self.steps = self.steps.masked_fill(better, steps)
        self.row = torch.where(better, row, self.row)

    def take_out_ended(self, step: int) -> Tensor | None:
        """Every few steps, drop ended sentences; returns the indices of the others.

        None if no sentence is dropped. This is the only place where the host waits.
        """
        if (step + 1) % LOOK_EVERY and step + 1 < self.last:
            return None
        going = self.going.cpu().numpy()
        if going.all():
            return None
        best = torch.stack((self.score.double(), self.steps.double(), self.row.double()))
        numbers = self.number.cpu().numpy()
        self._found[:, numbers[~going]] = best.cpu().numpy()[:, ~going]
        self.last = int(self.limits[numbers[going]].max(initial=0))
        stay = torch.from_numpy(np.flatnonzero(going)).to(self.number.device)
        for name in ("number", "limit", "divisor_at_limit", "going", "score", "steps", "row"):
            setattr(self, name, getattr(self, name)[stay])
        return stay

    def hypotheses(self) -> Iterator[Hypothesis]:
        """The best hypothesis of each sentence, traced back from its last token."""
        score, (steps, row) = self._found[0], self._found[1:].astype(np.int64)
        longest = int(steps.max(initial=0))
        history = self.history[:longest].cpu().numpy()
        ids = np.zeros((len(score), longest), np.int64)
        sentence_ids = np.arange(len(score))
        for step in reversed(range(longest)):
            ids[:, step], rows = history[step, sentence_ids, :, row].T
            row = np.where(step < steps, rows, row)
        for i in range(len(score)):
            yield Hypothesis(ids[i, : steps[i]].tolist(), float(score[i]))


def _greedy(
    model: TorchTransformer, source: Packed, settings: SearchSettings, begin_id: int, end_id: int
) -> list[Hypothesis]:
    running = _Running(source, settings, model.positions.device)
    state = DecoderState(model, source, 1, running.last)
    ids = torch.full_like(running.number, begin_id)
    log_p = torch.zeros_like(running.score)
    length = 0
    while len(running.number):
        length += 1
        logits = step(model, ids, state)
        best, ids = F.log_softmax(logits, dim=-1, dtype=torch.float32).max(dim=-1)
        log_p = log_p + best
        running.record(length - 1, ids[:, None], torch.zeros_like(ids)[:, None])
        ends = ids == end_id
        over = running.going & (ends | (length >= running.limit))
        score = log_p / settings.divisor(length)
        running.improve(over & ends, score, length - 1, running.row)
        running.improve(over & ~ends, score, length, running.row)
        running.going = running.going & ~over
        stay = running.take_out_ended(length - 1)
        if stay is not None:
            ids, log_p = ids[stay], log_p[stay]
            state.select(stay, stay)
    return list(running.hypotheses())


def _beam(
    model: TorchTransformer, source: Packed, settings: SearchSettings, begin_id: int, end_id: int
) -> list[Hypothesis]:
    beam = settings.beam
    running = _Running(source, settings, model.positions.device)
    state = DecoderState(model, source, beam, running.last)
    ids = torch.full((len(source) * beam,), begin_id, device=running.number.device)
    # At first all rows of a sentence are equal, so only the first may be continued.
    log_p = torch.full((len(source), beam), -torch.inf, device=ids.device)
    log_p[:, 0] = 0
    length = 0
    while len(running.number):
        length += 1
        logits = step(model, ids, state)
        # Twice the beam is enough: at most one continuation of each row is the end.
        next_log_p, next_ids = F.log_softmax(logits, dim=-1, dtype=torch.float32).topk(2 * beam)
        candidates = (log_p.view(-1, 1) + next_log_p).view(-1, beam * 2 * beam)
        scores, indices = candidates.topk(2 * beam)  # [running, 2 beam], best first
        ids = next_ids.view(candidates.shape).gather(1, indices)
        rows = indices // (2 * beam)
        ends = ids == end_id

        ended, index = scores.masked_fill(~ends, -torch.inf).max(dim=1)
        score = ended / settings.divisor(length)
        better = running.going & (score > running.score)
        running.improve(better, score, length - 1, rows.gather(1, index[:, None])[:, 0])

        log_p, alive = scores.masked_fill(ends, -torch.inf).topk(beam)
        rows, ids = rows.gather(1, alive), ids.gather(1, alive)
        running.record(length - 1, ids, rows)

        # As in npformer.beam_search: no live hypothesis of a sentence can do better than this.
        bound = log_p[:, 0] / running.divisor_at_limit
        at_limit = length >= running.limit
        unfinished = running.going & at_limit & running.score.isneginf()
        first = torch.zeros_like(running.row)
        running.improve(unfinished, log_p[:, 0] / settings.divisor(length), length, first)
        running.going = running.going & ~at_limit & (running.score < bound)

        rows = rows + torch.arange(0, len(rows) * beam, beam, device=rows.device)[:, None]
        stay = running.take_out_ended(length - 1)
        if stay is not None:
            rows, ids, log_p = rows[stay], ids[stay], log_p[stay]
        state.select(rows.view(-1), stay)
        ids = ids.view(-1)
    return list(running.hypotheses())
