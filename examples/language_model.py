"""A language model: an encoder whose attention does not look ahead (Radford et al., 2018).

It samples from the k likeliest tokens (Fan et al., 2018), with a temperature.

    python -m examples.language_model [TEXT]    # a sentence a line; or the grammar's English
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from autograd import DropoutStream, Tape, Tensor, ops
from examples.text import mistakes_in_a_line, sentences
from npformer import Batch, Parts, Tokenizer, TransformerConfig
from npformer.attention import SelfAttention
from npformer.embeddings import Embedding
from npformer.encoder import Encoder
from npformer.parameters import Scope, normal
from npformer.positions import Sinusoids
from train.adam import Adam


class LanguageModel:
    def __init__(self, config: TransformerConfig, dtype: type = np.float32) -> None:
        scope, shape, p_drop = Scope(), (config.vocab_size, config.d_model), config.dropout
        self.table = scope.parameter("embedding", shape, normal(config.d_model**-0.5))
        self.embedding = Embedding(self.table, Sinusoids(scope, config), scope.dropout("", p_drop))
        causal = Parts(self_attention=lambda scope, config, _: SelfAttention(scope, config, True))
        self.decoder = Encoder(scope / "decoder", config, causal)
        self.buffer = scope.allocate(seed=0, dtype=dtype)

    def loss(self, batch: Batch, dropout: DropoutStream | None = None) -> Tensor:
        """The mean cross-entropy of each next token of the target sentences, in nats."""
        read, said = batch.target_input, batch.target_output.tokens
        x = self.embedding(read.tokens, read.sentences, dropout)
        x = self.decoder(x, read.sentences, dropout)  # [tokens, d_model]
        return ops.projected_cross_entropy(x, self.table, targets=said)[0] / len(said)

    def sample(self, first: int, shape: tuple[int, int], temperature: float, k: int) -> np.ndarray:
        """Token ids of the shape [sentences, length], each sentence beginning with `first`."""
        rng, rows, layers = np.random.default_rng(0), np.arange(shape[0]), self.decoder.layers
        caches = [np.empty((*shape, x.attention.cached_columns), self.table.dtype) for x in layers]
        ids, slots = np.full(shape, first), np.broadcast_to(rows[:, None], shape)
        for i in range(shape[1] - 1):
            x = self.embedding.at(ids[:, i], np.full_like(rows, i), length=i + 1)
            for layer, cache in zip(layers, caches, strict=True):
                attend = partial(layer.attention.step, cache=cache, slots=rows, token_slots=slots)
                x = layer.around_attention(x, partial(attend, lengths=0 * rows + i + 1), None)
                x = layer.around_feed_forward(x, layer.feed_forward, None)
            x = self.decoder.norm(x) if self.decoder.norm else x
            log_p, top = ops.top_k(x.value, self.table.value, k=k)
            noisy = log_p / temperature + rng.gumbel(size=log_p.shape)  # the largest is a sample
            ids[:, i + 1] = top[rows, noisy.argmax(axis=1)]
        return ids


def train(model: LanguageModel, tokenizer: Tokenizer, lines: list[str], steps: int) -> None:
    optimizer, rng = Adam(model.buffer), np.random.default_rng(0)
    for step in range(1, steps + 1):
        chosen = tokenizer.encode_lines(rng.choice(lines, size=48).tolist())
        batch = Batch.of(chosen, chosen, begin_id=tokenizer.begin_id, end_id=tokenizer.end_id)
        with Tape() as tape:
            loss = model.loss(batch, DropoutStream(seed=0, step=step))
        tape.backward(loss)
        optimizer.step(rate=3e-3 * min(step / 100, 1 - step / (steps + 1)))
        if step % 100 == 0:
            print(f"step {step}: perplexity {np.exp(loss.item()):.1f}")


if __name__ == "__main__":
    with mistakes_in_a_line():
        text = sentences(sys.argv[1:])
        tokenizer = Tokenizer.train(text, vocab_size=1000)
    model = LanguageModel(TransformerConfig(1000, layers=2, d_model=96, d_ff=384, heads=6))
    train(model, tokenizer, text, steps=1000)
    for ids in model.sample(tokenizer.begin_id, (10, 30), temperature=0.8, k=50).tolist():
        print(tokenizer.decode(ids[: [*ids, tokenizer.end_id].index(tokenizer.end_id)]))
