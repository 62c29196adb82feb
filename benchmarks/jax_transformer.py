"""The JAX peer: the paper's Transformer under `jit`, as its users write it, and a training step.

    run = steps(config, rows_of(batches), weights=model)
    loss, norm = run(k)         # one step on batch k; arrays of the device

`jit` compiles for fixed sizes, so sentences are packed into rows of one length, several in each, as
in Flax's WMT example: attention is masked to the tokens of the same sentence. So batches have few
sizes, and little of them is padding. Parameters have our names and shapes.

Optimizer and gradients are in the same compiled function, whose buffers are donated. In bfloat16
the parameters stay float32, as do norms, softmax and loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.shapes import alike
from npformer import Batch, Transformer, TransformerConfig
from npformer.positions import sinusoids

# Dropout by the hardware's generator: the default one takes a good part of a step.
jax.config.update("jax_default_prng_impl", "rbg")

Parameters = dict[str, jax.Array]
_ROW, _LEAST = 64, 256  # rows have multiples of so many tokens, and at least so many


class Side(NamedTuple):
    """Sentences of one language in rows: [rows, tokens] each.

    sentences: the sentence of each token within its row, from 1; 0 where there is none
    """

    ids: Any
    positions: Any
    sentences: Any


class Rows(NamedTuple):
    """A batch: the sentences of a pair are in the same row. output: [rows, tokens] ids."""

    source: Side
    target: Side
    output: Any


def longest_of(batches: Sequence[Batch]) -> int:
    return max(int(p.lengths.max()) for b in batches for p in (b.source, b.target_input))


def rows_of(batches: Sequence[Batch], length: int | None = None, shapes: int = 1) -> list[Rows]:
    """The batches in rows, filled up to at most `shapes` numbers of rows.

    length: tokens of a row, by default one for a GPU
    """
    if length is None:
        length = max(_LEAST, -(-longest_of(batches) // _ROW) * _ROW)
    places = [_places(batch, length) for batch in batches]
    counts = [int(rows.max()) + 1 for rows, *_ in places]
    order = sorted(range(len(batches)), key=counts.__getitem__)
    found: dict[int, Rows] = {}
    for run in alike([counts[k] for k in order], lambda group: len(group) * max(group), shapes):
        shape = max(counts[order[i]] for i in run), length
        for k in (order[i] for i in run):
            found[k] = _in_rows(batches[k], shape, *places[k])
    return [found[k] for k in range(len(batches))]


def _places(batch: Batch, length: int) -> tuple[np.ndarray, ...]:
    """The row of each pair, and where its source and its target begin there: [pairs] each.

    A pair goes to the first row that has room for it.
    """
    lengths = np.stack([batch.source.lengths, batch.target_input.lengths], axis=1)
    used = np.zeros((len(batch), 2), np.int64)
    rows, begins = np.zeros(len(batch), np.int64), np.zeros((len(batch), 2), np.int64)
    first, shortest = 0, lengths.min(axis=0)  # rows before the first have no room for any pair
    for i, size in enumerate(lengths):
        fits = ((used[first:] + size) <= length).all(axis=1)
        row = first + int(np.argmax(fits))
        rows[i], begins[i] = row, used[row]
        used[row] += size
        while first < row and (used[first] + shortest > length).any():
            first += 1
    return rows, begins[:, 0], begins[:, 1]


def _in_rows(
    batch: Batch,
    shape: tuple[int, int],
    rows: np.ndarray,
    source_begins: np.ndarray,
    target_begins: np.ndarray,
) -> Rows:
    number = np.zeros(len(rows), np.int64)  # of each pair within its row, from 1
    for row in np.unique(rows):
        pairs = np.flatnonzero(rows == row)
        number[pairs] = 1 + np.arange(len(pairs))

    def placed(packed: Any, begins: np.ndarray, values: np.ndarray) -> np.ndarray:
        lengths = packed.lengths
        found = np.zeros(shape, np.int32)
        place = np.repeat(begins, lengths) + packed.position_ids
        found[np.repeat(rows, lengths), place] = values
        return found

    def side(packed: Any, begins: np.ndarray) -> Side:
        values = packed.tokens, packed.position_ids, np.repeat(number, packed.lengths)
        return Side(*(placed(packed, begins, x) for x in values))

    return Rows(
        side(batch.source, source_begins),
        side(batch.target_input, target_begins),
        placed(batch.target_output, target_begins, batch.target_output.tokens),
    )


class _Model:
    """The forward pass of one step: parameters in the dtype of the computation, and dropout."""

    def __init__(
        self,
        parameters: Parameters,
        config: TransformerConfig,
        key: jax.Array | None,
        dtype: Any,
        attention: str,
    ) -> None:
        self.parameters, self.config, self.key = parameters, config, key
        self.dtype, self.attention = dtype, attention
        waves = sinusoids(512, config.d_model, config.positions, config.position_spacing)
        self.waves = jnp.asarray(waves, dtype)

    def linear(self, x: jax.Array, name: str) -> jax.Array:
        weight, bias = (self.parameters[f"{name}.{part}"] for part in ("weight", "bias"))
        return x @ weight.astype(self.dtype) + bias.astype(self.dtype)

    def dropout(self, x: jax.Array) -> jax.Array:
        rate = self.config.dropout
        if self.key is None or not rate:
            return x
        self.key, key = jax.random.split(self.key)
        keep = jax.random.bernoulli(key, 1 - rate, x.shape)
        return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)

    def add_norm(self, x: jax.Array, y: jax.Array, name: str) -> jax.Array:
        z = (x + self.dropout(y)).astype(jnp.float32)
        mean = z.mean(-1, keepdims=True)
        variance = jnp.square(z - mean).mean(-1, keepdims=True)
        z = (z - mean) * jax.lax.rsqrt(variance + self.config.norm_epsilon)
        gain, bias = (self.parameters[f"{name}.norm.{part}"] for part in ("gain", "bias"))
        return (z * gain + bias).astype(self.dtype)

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, causal: bool = False
    ) -> jax.Array:
        heads = self.config.heads
        q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
        y = jax.nn.dot_product_attention(
            q, k, v, mask=mask, is_causal=causal, implementation=self.attention
        )
        return y.reshape(*y.shape[:2], -1)

    def embed(self, side: Side) -> jax.Array:
        scale = math.sqrt(self.config.d_model)
        x = self.parameters["embedding"].astype(self.dtype)[side.ids] * scale
        return self.dropout((x + self.waves[side.positions]).astype(self.dtype))

    def self_attention(
        self, x: jax.Array, name: str, mask: jax.Array, causal: bool = False
    ) -> jax.Array:
        name = f"{name}.self_attention"
        widths = self.config.heads * self.config.d_k
        q, k, v = jnp.split(self.linear(x, f"{name}.qkv"), [widths, 2 * widths], axis=-1)
        y = self.linear(self.attend(q, k, v, mask, causal), f"{name}.output")
        return self.add_norm(x, y, name)

    def feed_forward(self, x: jax.Array, name: str) -> jax.Array:
        name = f"{name}.feed_forward"
        y = self.linear(jax.nn.relu(self.linear(x, f"{name}.inner")), f"{name}.outer")
        return self.add_norm(x, y, name)

    def loss(self, batch: Rows) -> jax.Array:
        """The smoothed cross-entropy per target token."""
        source, target, output = batch

        def same(queries: Side, keys: Side) -> jax.Array:  # [rows, 1, queries, keys]
            return (queries.sentences[:, :, None] == keys.sentences[:, None, :])[:, None]

        memory, mask = self.embed(source), same(source, source)
        for i in range(self.config.layers):
            memory = self.self_attention(memory, f"encoder.{i}", mask)
            memory = self.feed_forward(memory, f"encoder.{i}")
        x, mask, across = self.embed(target), same(target, target), same(target, source)
        for i in range(self.config.layers):
            x = self.self_attention(x, f"decoder.{i}", mask, causal=True)
            name = f"decoder.{i}.cross_attention"
            q, kv = self.linear(x, f"{name}.q"), self.linear(memory, f"{name}.kv")
            k, v = jnp.split(kv, [self.config.heads * self.config.d_k], axis=-1)
            x = self.add_norm(x, self.linear(self.attend(q, k, v, across), f"{name}.output"), name)
            x = self.feed_forward(x, f"decoder.{i}")
        logits = x @ self.parameters["embedding"].astype(self.dtype).T
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        chosen = jnp.take_along_axis(log_p, output[..., None], axis=-1)[..., 0]
        smoothing = self.config.smoothing
        losses = -(1 - smoothing) * chosen - smoothing * log_p.mean(-1)
        real = target.sentences > 0
        return jnp.where(real, losses, 0).sum() / real.sum()


def steps(
    config: TransformerConfig,
    batches: Sequence[Rows],
    weights: Transformer,
    precision: str = "bfloat16",
    attention: str = "xla",
    rate: float = 1e-4,
    with_dropout: bool = True,
) -> Callable[[int], tuple[jax.Array, jax.Array]]:
    """Adam from these weights; the result is a function that takes a step on batch k.

    attention: the implementation of `jax.nn.dot_product_attention`, "xla" or "cudnn"
    """
    assert (config.norm, config.share_embeddings, config.d_k) == ("post", "all", config.d_v)
    assert (config.positions != "learned", config.decoder_start) == (True, "token")
    dtype = jnp.dtype(precision)
    state: tuple[Any, ...] = (
        {name: jnp.asarray(p.numpy()) for name, p in weights.parameters().items()},
    )
    state += tuple(jax.tree.map(jnp.zeros_like, state[0]) for _ in range(2))
    on_device = [jax.device_put(batch) for batch in batches]

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Rows, number: jax.Array) -> Any:
        parameters, first, second = state
        key = jax.random.fold_in(jax.random.key(0), number) if with_dropout else None

        def loss_of(parameters: Parameters) -> jax.Array:
            return _Model(parameters, config, key, dtype, attention).loss(batch)

        loss, grads = jax.value_and_grad(loss_of)(parameters)
        norm = jnp.sqrt(sum(jnp.square(g).sum() for g in grads.values()))
        b1, b2, epsilon = 0.9, 0.98, 1e-9
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, grads)
        second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, grads)
        c1, c2 = 1 - b1**number, 1 - b2**number
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * (m / c1) / (jnp.sqrt(v / c2) + epsilon),
            *(parameters, first, second),
        )
        return (parameters, first, second), loss, norm

    number = 0
    # All sizes at once: XLA's compiler lets other threads run.
    shapes = {batch.output.shape: batch for batch in on_device}
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda b: step.lower(state, b, jnp.float32(1)).compile(), shapes.values())
        compiled = dict(zip(shapes, made, strict=True))

    def run(k: int) -> tuple[jax.Array, jax.Array]:
        nonlocal state, number
        number += 1
        batch = on_device[k]
        state, loss, norm = compiled[batch.output.shape](state, batch, jnp.float32(number))
        return loss, norm

    return run
