"""A second Transformer, a sentence at a time in float64, and what its random models share."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from npformer import Batch, Tokenizer, Translator
from tests.formats.foreign import sentencepiece

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A model to write. shared: "all", "target" or "none" of the three matrices of words."""

    layers: int = 2
    decoder_layers: int = 1
    d: int = 12
    d_ff: int = 20
    heads: int = 3
    pre: bool = False
    shared: str = "all"
    joined: bool = True
    scaled: bool = True
    learned: bool = False
    positions: int = 30

    def embeddings(self, rng: np.random.Generator, sizes: tuple[int, int]) -> list[np.ndarray]:
        """Those of the source, of the target and of the output."""
        source, target, output = (random(rng, n, self.d) for n in (*sizes, sizes[1]))
        if self.shared == "all":
            return [source, source, source]
        return [source, target, target if self.shared == "target" else output]


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (0.4 * rng.standard_normal(shape)).astype(np.float32)


@functools.cache
def spm(side: str) -> bytes:
    """A SentencePiece model of a language, or of both."""
    return sentencepiece(*{"source": (1,), "target": (2, 48), "both": (3, 56)}[side])


def spms(joined: bool) -> dict[str, bytes]:
    return {side: spm("both" if joined else side) for side in ("source", "target")}


def own_pieces(model: bytes) -> list[str]:
    """The pieces that text is made of, one of them left out."""
    tokenizer = Tokenizer(model)
    return [p for p in tokenizer.pieces(range(3, tokenizer.vocab_size)) if p != "▁the"]


class Network:
    """The parts of a Transformer, for one sentence."""

    def __init__(self, state: State, shape: Shape, epsilon: float) -> None:
        self.state, self.heads, self.pre, self.epsilon = state, shape.heads, shape.pre, epsilon
        self.scale = math.sqrt(shape.d) if shape.scaled else 1.0

    def __getitem__(self, name: str) -> np.ndarray:
        return self.state[name].astype(np.float64)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return centred / deviation * self[f"{name}.weight"] + self[f"{name}.bias"]

    def around(
        self, norm: str, x: np.ndarray, sublayer: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        if self.pre:
            return x + sublayer(self.norm(norm, x))
        return self.norm(norm, x + sublayer(x))

    def attend(
        self,
        norm: str,
        names: list[str],
        x: np.ndarray,
        memory: np.ndarray | None = None,
        causal: bool = False,
    ) -> np.ndarray:
        """The sub-layer of an attention, to itself unless there is a memory."""
        return self.around(
            norm, x, lambda y: self.attention(names, y, y if memory is None else memory, causal)
        )

    def attention(
        self, names: list[str], x: np.ndarray, memory: np.ndarray, causal: bool
    ) -> np.ndarray:
        inputs = (x, memory, memory)
        q, k, v = (
            np.split(self.linear(name, one), self.heads, axis=1)
            for name, one in zip(names, inputs, strict=False)
        )
        found = []
        for one in range(self.heads):
            scores = q[one] @ k[one].T / math.sqrt(q[one].shape[1])
            if causal:
                scores[np.triu_indices(len(scores), 1)] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            found.append(weights / weights.sum(axis=1, keepdims=True) @ v[one])
        return self.linear(names[3], np.concatenate(found, axis=1))

    @staticmethod
    def relu(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    @staticmethod
    def swish(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))


def logits_of_pairs(
    ours: Translator, sentences: list[str]
) -> Iterator[tuple[list[int], list[int], np.ndarray]]:
    """For sentences and their reverse as translations: what both sides read, and our logits."""
    sources = ours.tokenizers.source.encode_lines(sentences)
    targets = ours.tokenizers.target.encode_lines(sentences[::-1])
    begin, end = ours.tokenizers.target.begin_id, ours.tokenizers.target.end_id
    batch = Batch.of(sources, targets, begin_id=begin, end_id=end)
    found = np.split(ours.model.logits(batch).value, batch.target_input.offsets[1:-1])
    for source, target, logits in zip(sources, targets, found, strict=True):
        yield [*source, end], [begin, *target], logits


@st.composite
def shapes(draw: st.DrawFn, learned: bool = False) -> Shape:
    """A small model with random options. learned: whether its positions may be."""
    heads = draw(st.integers(1, 3))
    shared = draw(st.sampled_from(["all", "target", "none"]))
    return Shape(
        layers=draw(st.integers(1, 2)),
        decoder_layers=draw(st.integers(1, 2)),
        d=heads * draw(st.sampled_from([4, 6])),
        d_ff=draw(st.integers(1, 20)),
        heads=heads,
        pre=draw(st.booleans()),
        shared=shared,
        joined=shared == "all" or draw(st.booleans()),
        scaled=draw(st.booleans()),
        learned=learned and draw(st.booleans()),
        positions=80,
    )
