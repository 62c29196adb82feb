"""The Transformer: encoder, decoder, embeddings and the projection to the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from autograd import (
    DropoutStream,
    Parameter,
    ParameterBuffer,
    Sentences,
    Tensor,
    array_module,
    ops,
    using,
)
from autograd.backend import Array, BackendError, backend_of, current
from autograd.int8 import Int8Matrix
from autograd.ops.large.cross_entropy import smoothed_target
from autograd.ops.large.top_k import add_bias
from autograd.widened import is_bfloat16
from npformer.batch import Batch
from npformer.config import TransformerConfig
from npformer.decoder import Decoder, DecoderState, Empty, Room
from npformer.embeddings import Embedding
from npformer.encoder import Encoder
from npformer.errors import UserError
from npformer.kept import Kept
from npformer.layers import Residual
from npformer.packed import Packed
from npformer.parameters import Scope, normal, zeros
from npformer.parts import PAPER_PARTS, Parts
from npformer.projection import Projection
from npformer.shortlist import Candidates

Weights = Literal["float32", "int8"]
"""What a model's matrices are held in."""

_CPU_ALONE = "weights in 8 bits are for the CPU, in float32: give the backend numpy; bf16 for a GPU"
_ROWS_AT_A_TIME = 512  # of log-probabilities of the whole vocabulary
_MOST_SEARCHES = 16  # whose arrays and recordings are kept


class Transformer:
    """The model of "Attention Is All You Need", for any TransformerConfig.

        model = Transformer(TransformerConfig.preset("base", vocab_size=37_000), seed=0)
        with Tape() as tape:
            loss = model.loss(batch, dropout=DropoutStream(seed=1, step=1))
        tape.backward(loss)

    Dropout happens where a DropoutStream is passed, and nowhere else. Batches are packed: every
    activation is a matrix [tokens, d_model].
    """

    def __init__(
        self,
        config: TransformerConfig,
        seed: int = 0,
        dtype: Any = np.float32,
        *,
        parts: Parts = PAPER_PARTS,
        allocate: bool = True,
    ) -> None:
        """A new model, with random parameters that depend on the seed alone.

        parts: the classes to build it from. Without `allocate`, the parameters have names and
        shapes but no memory. Raises UserError if they need more memory than the machine has.
        """
        self.config, self.parts = config, parts
        scope = Scope()

        def table(name: str, vocabulary: int) -> Parameter:
            deviation = 1 / math.sqrt(config.d_model)
            shape = vocabulary, config.d_model
            return scope.parameter(name, shape, normal(deviation), int8="rows")

        # One matrix for both embeddings and the projection before the softmax (section 3.4).
        target = source = self.projection = table("embedding", config.vocab_size)
        if config.share_embeddings != "all":
            source = table("source_embedding", config.source_vocab_size or config.vocab_size)
        if config.share_embeddings == "none":
            self.projection = table("projection", config.vocab_size)
        self.output_bias = None
        if config.output_bias:
            self.output_bias = scope.parameter(
                "output_bias", (config.vocab_size,), zeros, float32=True
            )
        self.source_embedding = Embedding(
            source,
            parts.positions(scope / "source_positions", config),
            scope.dropout("source_embedding", config.dropout),
            config.scale_embeddings,
        )
        self.target_embedding = Embedding(
            target,
            parts.positions(scope / "target_positions", config),
            scope.dropout("target_embedding", config.dropout),
            config.scale_embeddings,
        )
        self.encoder = Encoder(scope / "encoder", config, parts)
        self.decoder = Decoder(scope / "decoder", config, parts)
        self._parameters, self._in_8_bits = scope.parameters, scope.in_8_bits
        self.weights: Weights = "float32"
        self.searches: Kept[Any] = Kept(_MOST_SEARCHES, current().most_kept_bytes)
        if allocate:
            self.buffer = scope.allocate(seed, dtype)

    def parameters(self) -> dict[str, Parameter]:
        """Every Parameter, by name."""
        return dict(self._parameters)

    def arrays(self) -> list[Array]:
        """The arrays that hold the model: one of all parameters, and those that are in 8 bits."""
        values = (p.value for p in self._parameters.values())
        return [self.buffer.values, *(v.packed for v in values if isinstance(v, Int8Matrix))]

    def position_tables(self, batch: Batch) -> list[Parameter | Array | None]:
        """The tables of positions that a batch needs, of the source and of the target."""
        sides = (self.source_embedding, batch.source), (self.target_embedding, batch.target_input)
        return [e.positions.table(packed.sentences.longest, e.table) for e, packed in sides]

    def to(self, backend: str, precision: str = "float32") -> Transformer:
        """Move the parameters to a backend, "numpy" or "cupy"; returns the model itself.

        With the precision "bf16", the model computes with bfloat16 copies of its matrices. The
        float32 parameters are still what is trained and saved. Raises BackendError if the backend,
        or bfloat16 on it, is not available.
        """
        if precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be 'float32' or 'bf16', got {precision!r}")
        if self.weights == "int8" and (backend, precision) != ("numpy", "float32"):
            raise BackendError(_CPU_ALONE)
        before = self.buffer.values
        self.buffer.to(backend, rounded=precision == "bf16")
        if self.buffer.values is not before:  # which recordings would keep
            self.searches = Kept(_MOST_SEARCHES, backend_of(self.buffer.values).most_kept_bytes)
        return self

    def quantize(self) -> Transformer:
        """Hold the matrices in 8 bits in place of float32; returns the model itself.

        That is for translation on a CPU, where it takes a quarter of the memory and of the time to
        read it. Such a model is not trained, and not saved: its directory has the float32 weights.
        Biases, norms and learned positions stay float32. Raises BackendError for a model that is
        elsewhere, and UserError if a weight is not a finite number.
        """
        if self.weights == "int8":
            return self
        if backend_of(self.buffer.values).name != "numpy" or self.buffer.rounded is not None:
            raise BackendError(_CPU_ALONE)
        matrices = {}
        for name, axis in self._in_8_bits.items():
            weight = self._parameters[name].value
            try:
                matrices[name] = (
                    Int8Matrix.of(weight) if axis == "columns" else Int8Matrix.of(weight.T).T
                )
            except ValueError as error:
                raise UserError(
                    f"the parameter {name} has numbers that are not finite, which 8 bits cannot "
                    "hold; take an earlier checkpoint"
                ) from error
        others = {n: p for n, p in self._parameters.items() if n not in matrices}
        with using("numpy"):
            self.buffer = ParameterBuffer(others, self.buffer.values.dtype)
        for name, matrix in matrices.items():
            parameter = self._parameters[name]
            parameter.value = parameter.master = matrix
            parameter.grad = parameter.buffer = None
        self.weights = "int8"
        self.searches.clear()
        return self

    @property
    def recorded_from(self) -> list[Any]:
        """The objects that recorded steps of a search were recorded from: others need others.

        Of a part, no more than its parameters is among them. Whoever changes something else in one
        that has translated, such as the epsilon of a norm, calls `searches.clear()`.
        """
        values = (parameter.value for parameter in self._parameters.values())
        of_embedding = self.target_embedding.table, self.target_embedding.scale
        return [self.config, *self.parts_of_a_step, *of_embedding, self.projection, *values]

    @property
    def multiplied_by_a_row(self) -> int:
        """How many numbers of matrices a step of a search multiplies each row by, nearly."""
        of_decoder = (p.shape for n, p in self._parameters.items() if n.startswith("decoder"))
        return sum(map(math.prod, of_decoder)) + math.prod(self.projection.shape)

    @property
    def parts_of_a_step(self) -> list[Any]:
        """What a step of a search calls: the embedding, the decoder's layers, what they have."""
        of_layers = [part for layer in self.decoder.layers for part in vars(layer).values()]
        norms = (part.norm for part in of_layers if isinstance(part, Residual))
        embedding, last = self.target_embedding, self.decoder.norm
        return [embedding, embedding.positions, *self.decoder.layers, *of_layers, *norms, last]

    def prepared(self, batch: Batch) -> Batch:
        """`batch` on the model's device, with everything that depends only on its lengths.

        The model accepts any batch; a prepared one saves it the copying.
        """
        self._check_source(batch.source)
        self._check_target(batch.target_input)
        self._check_targets(batch)
        return batch.to(backend_of(self.buffer.values).name)

    def encode(self, source: Packed, dropout: DropoutStream | None = None) -> Tensor:
        """The memory of packed source sentences, [source tokens, d_model].

        Raises ValueError if ids on the host are outside the vocabulary, as do `decode` and
        `losses`.
        """
        self._check_source(source)
        x = self.source_embedding(source.tokens, source.sentences, dropout, source.order)
        return self.encoder(x, source.sentences, dropout)

    def decode(
        self,
        target: Packed,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None = None,
    ) -> Tensor:
        """The decoder's output for each target token, [target tokens, d_model].

        memory: [source tokens, d_model]. Row t of a sentence depends on its tokens 0 to t and on
        its memory; the projection turns it into the logits of token t + 1.
        """
        self._check_target(target)
        ids = self._inputs(target.tokens, target.position_ids)
        order = target.order if ids is target.tokens else None
        x = self.target_embedding(ids, target.sentences, dropout, order)
        return self.decoder(x, target.sentences, memory, memory_sentences, dropout)

    def logits(self, batch: Batch) -> Tensor:
        """The unnormalised scores of each next token, [target tokens, vocabulary]."""
        memory = self.encode(batch.source)
        x = self.decode(batch.target_input, memory, batch.source.sentences)
        return self._logits(x)

    def losses(
        self,
        batch: Batch,
        dropout: DropoutStream | None = None,
        first_rows: tuple[int, int] = (0, 0),
    ) -> tuple[Tensor, Array]:
        """The smoothed cross-entropy and the unsmoothed one, summed over target tokens, in nats.

        Both are scalars. The unsmoothed one is a plain array, without a gradient.
        first_rows: where a step's batch is computed in parts, the indices of this part's first
        source token and first target token in the whole. Dropout masks depend on them.
        """
        if self.weights == "int8":
            return self._losses_in_8_bits(batch)
        self._check_targets(batch)
        source_dropout = dropout.at_row(first_rows[0]) if dropout else None
        target_dropout = dropout.at_row(first_rows[1]) if dropout else None
        memory = self.encode(batch.source, source_dropout)
        x = self.decode(batch.target_input, memory, batch.source.sentences, target_dropout)
        projection: Tensor = self.projection
        if self.output_bias is not None:  # as a column of the projection, and of x the number 1
            one = array_module(x.value).ones((len(x.value), 1), x.dtype)
            x = ops.concatenate(x, one, axis=1)
            bias = self.output_bias.astype(projection.dtype)
            projection = ops.concatenate(projection, bias[:, None], axis=1)
        loss, nll = ops.projected_cross_entropy(
            x,
            projection,
            targets=backend_of(x.value).asarray(batch.target_output.tokens),
            smoothing=self.config.smoothing,
            smoothing_over=self.config.smoothing_over,
        )
        return loss, nll

    def loss(self, batch: Batch, dropout: DropoutStream | None = None) -> Tensor:
        """The smoothed cross-entropy (section 5.4), in nats per target token."""
        return self.losses(batch, dropout)[0] / batch.target_tokens

    def target_log_p(self, batch: Batch) -> Array:
        """The log-probability of each target token, [target tokens], in at least float32."""
        found = [
            array_module(log_p).take_along_axis(log_p, targets[:, None], axis=1)[:, 0]
            for log_p, targets in self._some_log_p(batch, self.log_p_of)
        ]
        return array_module(found[0]).concatenate(found)

    def _some_log_p(
        self, batch: Batch, log_p_of: Callable[[Array], Array]
    ) -> Iterator[tuple[Array, Array]]:
        """Log-probabilities [tokens, vocabulary] and the targets [tokens], some at a time."""
        self._check_targets(batch)
        memory = self.encode(batch.source)
        y = self.decode(batch.target_input, memory, batch.source.sentences).value
        targets = backend_of(y).asarray(batch.target_output.tokens)
        for first in range(0, batch.target_tokens, _ROWS_AT_A_TIME):
            some = slice(first, min(first + _ROWS_AT_A_TIME, batch.target_tokens))
            yield log_p_of(y[some]), targets[some]

    def _losses_in_8_bits(self, batch: Batch) -> tuple[Tensor, Array]:
        """As `losses`; there is no gradient, and so no need to do it in one operation."""
        config, loss, nll = self.config, 0.0, 0.0
        a, b = smoothed_target(config.smoothing, config.vocab_size, config.smoothing_over)
        for log_p, targets in self._some_log_p(
            batch, lambda y: ops.log_softmax(self._logits(Tensor(y)).value)
        ):
            of_targets = np.take_along_axis(log_p, targets[:, None], axis=1).sum(dtype=np.float64)
            nll -= of_targets
            loss -= a * of_targets + b * log_p.sum(dtype=np.float64)
        return Tensor(np.array(loss, np.float32)), np.array(nll, np.float32)

    def start(self, source: Packed, beam: int, capacity: int) -> DecoderState:
        """Encode `source`, to decode `beam` hypotheses per sentence of up to `capacity` tokens."""
        room = Room(len(source), beam, capacity, source.sentences.longest)
        state = self.state_for(room, backend_of(self.buffer.values).empty)
        self.begin(state, source)
        return state

    def state_for(self, room: Room, empty: Empty) -> DecoderState:
        """A state for sentences that `begin` brings; empty: makes its large arrays."""
        dtype, backend = self.projection.value.dtype, backend_of(self.buffer.values)
        return DecoderState(room, self.cache_shapes(room), dtype, backend, empty)

    def cache_shapes(self, room: Room) -> list[tuple[int, int]]:
        """For each layer, the tokens and the columns that the cache of a hypothesis has."""
        attentions = (layer.attention for layer in self.decoder.layers)
        return [
            (min(a.window or room.capacity, room.capacity), a.cached_columns) for a in attentions
        ]

    def begin(
        self, state: DecoderState, source: Packed, candidates: Candidates | None = None
    ) -> None:
        """Encode `source`, to decode it with a state that has room for it.

        candidates: the only tokens that may be chosen; the others then have no probability.
        """
        memory = self.encode(source)
        projection = self._search_projection()
        if candidates is not None:
            projection = projection.restricted(candidates, state.room.sentences)
        attentions = [layer.cross_attention for layer in self.decoder.layers]
        state.begin(
            (attention.keys_values(memory, source.sentences) for attention in attentions),
            backend_of(memory.value).asarray(source.lengths.astype(np.int32)),
            projection,
        )

    def step(self, ids: Array, state: DecoderState) -> Tensor:
        """Append one token to every row; returns the decoder's output for it, [rows, d_model].

        ids: [rows], the begin id at first, and then the tokens that the search has chosen.
        """
        positions = state.lengths  # of the new tokens
        x = self.target_embedding.at(self._inputs(ids, positions), positions, state.capacity)
        return self.decoder.step(x, state)

    def top_k(self, ids: Array, state: DecoderState, k: int) -> tuple[Array, Array]:
        """Append one token to every row; the k likeliest next tokens, or the whole vocabulary.

        ids: [rows]. Returns log-probabilities and token ids, [rows, k] each, best first.
        """
        y, (weight, bias, names) = self.step(ids, state).value, state.projection
        k = min(k, len(weight))
        log_p, next_ids = ops.top_k(y, weight, bias, k=k, ids=names, packed=state.packed)
        return log_p, next_ids

    def next_log_p(self, ids: Array, state: DecoderState) -> Array:
        """Append one token to every row; the log-probability of every next token.

        ids: [rows]. Returns [rows, vocabulary], in at least float32.
        """
        log_p = self.log_p_of(self.step(ids, state).value, state.projection)
        return state.projection.of_all(log_p, self.config.vocab_size)

    def log_p_of(self, y: Array, projection: Projection | None = None) -> Array:
        """The log-probability of every next token, given the decoder's output y [rows, d_model].

        projection: to tokens, by default to the whole vocabulary. Returns [rows, tokens], in at
        least float32.
        """
        weight, bias, _ = projection or self._search_projection()
        logits = ops.matmul(Tensor(y), weight.T).value
        if is_bfloat16(logits.dtype):  # in which probabilities would be too coarse to add up
            logits = logits.astype(np.float32)
        if bias is not None:
            add_bias(logits, bias)
        log_p: Array = ops.log_softmax(logits)
        return log_p

    def _search_projection(self) -> Projection:
        """The projection to the whole vocabulary, as a search needs it."""
        return Projection(self.projection.value, self._search_bias())

    def _logits(self, x: Tensor) -> Tensor:
        """The unnormalised scores of each next token; x: [tokens, d_model]."""
        logits: Tensor = ops.matmul(x, self._to_vocabulary)
        return logits if self.output_bias is None else logits + self.output_bias

    @property
    def _to_vocabulary(self) -> Tensor | Int8Matrix:
        """The transposed projection, [d_model, vocabulary]."""
        held = self.projection.value
        return held.T if isinstance(held, Int8Matrix) else self.projection.T

    def _search_bias(self) -> Array | None:
        """What a search adds to the logits, [vocabulary]: -inf for suppressed tokens."""
        suppressed = list(self.config.suppressed_ids)
        if self.output_bias is None and not suppressed:
            return None
        if self.output_bias is None:
            value = self.projection.value
            bias = array_module(value).zeros(self.config.vocab_size, value.dtype)
        else:
            bias = self.output_bias.value.copy()
        bias[suppressed] = -math.inf
        return bias

    def _check_source(self, source: Packed) -> None:
        count = self.config.source_vocab_size or self.config.vocab_size
        source.check_ids(count, "a source sentence")

    def _check_target(self, target: Packed, rows: int | None = None) -> None:
        target.check_ids(self.config.vocab_size, "a target sentence", rows)

    def _check_targets(self, batch: Batch) -> None:
        if isinstance(batch.target_output.tokens, np.ndarray):  # fillers have none
            self._check_target(batch.target_output, batch.target_tokens)

    def _inputs(self, ids: Array, positions: Array) -> Array:
        """The decoder's input ids: with decoder_start "zero", -1 at position 0 (a zero vector)."""
        if self.config.decoder_start == "token":
            return ids
        found: Array = ops.no_token_first(ids, positions)
        return found
