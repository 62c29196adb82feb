"""The Transformer: encoder, decoder, embeddings and the projection to the vocabulary."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from autograd import DropoutStream, Parameter, ParameterBuffer, Tensor, array_module, ops
from autograd.backend import Array, backend_of
from npformer.batch import Batch
from npformer.config import TransformerConfig
from npformer.decoder import Decoder, DecoderState
from npformer.embeddings import Embedding
from npformer.encoder import Encoder
from npformer.initialisation import initial_values
from npformer.packed import Packed, unpack


class Transformer:
    """The model of "Attention Is All You Need", for any TransformerConfig.

        model = Transformer(TransformerConfig.preset("base", vocab_size=37_000), seed=0)
        with Tape() as tape:
            loss = model.loss(batch, dropout=DropoutStream(seed=1, step=1))
        tape.backward(loss)

    Dropout happens where a DropoutStream is passed, and nowhere else. Batches are packed: every
    activation is a matrix [tokens, d_model].
    """

    def __init__(self, config: TransformerConfig, seed: int = 0, dtype: Any = np.float32) -> None:
        self.config = config
        values = initial_values(config, seed)
        # A norm's gain and bias act on what was normalised in float32.
        exact = [name for name in values if "norm." in name]
        self.buffer = ParameterBuffer(values, dtype, exact)
        p = self.buffer.parameters
        sites = itertools.count()
        embedding = p["embedding"]
        self.source_embedding = Embedding(
            p.get("source_embedding", embedding), p.get("source_positions"), config, next(sites)
        )
        self.target_embedding = Embedding(embedding, p.get("target_positions"), config, next(sites))
        self.projection = p.get("projection", embedding)
        self.encoder = Encoder(p, config, sites)
        self.decoder = Decoder(p, config, sites)

    def parameters(self) -> dict[str, Parameter]:
        """Every Parameter, by name."""
        return dict(self.buffer.parameters)

    def to(self, backend: str, precision: str = "float32") -> Transformer:
        """Move the parameters to a backend, "numpy" or "cupy"; returns the model itself.

        With the precision "bf16" it computes there with bfloat16 matrices: copies of the float32
        parameters, which stay what is trained and saved. Raises BackendError where a backend or
        its bfloat16 cannot be used.
        """
        if precision not in ("float32", "bf16"):
            raise ValueError(f"precision is 'float32' or 'bf16', not {precision!r}")
        self.buffer.to(backend, rounded=precision == "bf16")
        return self

    def prepared(self, batch: Batch) -> Batch:
        """`batch` moved to where the model is, with all else that depends on its lengths alone.

        The model takes any batch; with this, it need not stop to copy what it gets.
        """
        self._check_source(batch.source)
        self._check_target(batch.target_input)
        self._check_target(batch.target_output)
        batch = batch.to(backend_of(self.buffer.values).name)
        source, target = batch.source, batch.target_input
        _ = source.places, target.places  # copied now, and kept
        ops.plan_attention(source.tokens, lengths=source.lengths)
        ops.plan_attention(target.tokens, lengths=target.lengths)
        ops.plan_attention(target.tokens, lengths=target.lengths, key_lengths=source.lengths)
        return batch

    def encode(self, source: Packed, dropout: DropoutStream | None = None) -> Tensor:
        """The memory of packed source sentences, [source tokens, d_model].

        Raises ValueError where ids on the host are not of the vocabulary, as `decode` and `losses`
        do.
        """
        self._check_source(source)
        x = self.source_embedding(source.tokens, source.places, source.longest, dropout)
        return self.encoder(x, source.lengths, dropout)

    def decode(
        self,
        target: Packed,
        memory: Tensor,
        memory_lengths: np.ndarray,
        dropout: DropoutStream | None = None,
    ) -> Tensor:
        """What the decoder makes of the symbols so far, [target tokens, d_model].

        Row t of a sentence depends on its symbols up to t, and on its memory; the projection turns
        it into the logits of the symbol after.
        """
        self._check_target(target)
        ids = self._inputs(target.tokens, target.places)
        x = self.target_embedding(ids, target.places, target.longest, dropout)
        return self.decoder(x, target.lengths, memory, memory_lengths, dropout)

    def logits(self, batch: Batch) -> Tensor:
        """The unnormalised scores of every next symbol, [target tokens, vocabulary]."""
        memory = self.encode(batch.source)
        x = self.decode(batch.target_input, memory, batch.source.lengths)
        return x @ self.projection.T

    def losses(
        self,
        batch: Batch,
        dropout: DropoutStream | None = None,
        first_rows: tuple[int, int] = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """The smoothed cross-entropy and the unsmoothed one, summed over target tokens, in nats.

        `first_rows` are the numbers of this batch's first source and target token within the
        step's whole batch, where that is computed in parts: dropout depends on them.
        """
        self._check_target(batch.target_output)
        source_dropout = dropout.at_row(first_rows[0]) if dropout else None
        target_dropout = dropout.at_row(first_rows[1]) if dropout else None
        memory = self.encode(batch.source, source_dropout)
        x = self.decode(batch.target_input, memory, batch.source.lengths, target_dropout)
        loss, nll = ops.projected_cross_entropy(
            x,
            self.projection,
            targets=backend_of(x.value).asarray(batch.target_output.tokens),
            smoothing=self.config.smoothing,
            spread=self.config.smoothing_spread,
        )
        return loss, nll

    def loss(self, batch: Batch, dropout: DropoutStream | None = None) -> Tensor:
        """The smoothed cross-entropy (section 5.4), in nats a target token."""
        return self.losses(batch, dropout)[0] / batch.target_tokens

    def start(self, source: Packed, beam: int, capacity: int) -> DecoderState:
        """Encode `source`, for `beam` hypotheses a sentence of up to `capacity` symbols."""
        memory = self.encode(source)
        keys_values = [
            unpack(Packed(layer.cross_attention.kv(memory).value, source.lengths))[0]
            for layer in self.decoder.layers
        ]
        lengths = backend_of(memory.value).asarray(source.lengths.astype(np.int32))
        return DecoderState(keys_values, lengths, beam, capacity)

    def step(self, ids: Array, state: DecoderState) -> Tensor:
        """Append one symbol to every row; the decoder's output for it, [rows, d_model].

        ids [rows]: the begin symbol first, then what was chosen.
        """
        positions = array_module(ids).full(len(ids), state.length, np.int32)
        x = self.target_embedding(self._inputs(ids, positions), positions, state.length + 1)
        return self.decoder.step(x, state)

    def likeliest(self, ids: Array, state: DecoderState, count: int) -> tuple[Array, Array]:
        """Append one symbol to every row; the `count` likeliest next ones.

        Returns their log-probabilities and the symbols, each [rows, count], best first.
        """
        y = self.step(ids, state)
        count = min(count, self.config.vocab_size)
        log_p, symbols = ops.likeliest_symbols(y.value, self.projection.value, count=count)
        return log_p, symbols

    def _check_source(self, source: Packed) -> None:
        count = self.config.source_vocab_size or self.config.vocab_size
        source.check_ids(count, "a source sentence")

    def _check_target(self, target: Packed) -> None:
        target.check_ids(self.config.vocab_size, "a target sentence")

    def _inputs(self, ids: Array, positions: Array) -> Array:
        """The decoder's inputs: with decoder_start "zero" nothing stands at the first place."""
        if self.config.decoder_start == "symbol":
            return ids
        return array_module(ids).where(positions == 0, -1, ids)
