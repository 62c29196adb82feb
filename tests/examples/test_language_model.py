"""A decoder-only language model."""

from __future__ import annotations

import numpy as np
import pytest

from autograd import DropoutStream, check_gradients
from examples.language_model import LanguageModel, train
from npformer import Batch, Packed, Tokenizer, TransformerConfig
from tests.examples.small import BEGIN, END, VOCABULARY, small_batch, small_config


def next_token_log_p(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """log P of every token after `ids`, by computing all of them anew."""
    read = Packed.of([ids])
    x = model.decoder(model.embedding(read.tokens, read.sentences), read.sentences)
    logits = (x.value[-1] @ model.table.value.T).astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


def a_model(norm: str = "post", scale: float = 3.0) -> LanguageModel:
    """A model that finds some tokens much likelier than others."""
    model = LanguageModel(small_config(norm=norm))
    model.table.assign(model.table.numpy() * scale)
    return model


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_likeliest_tokens_are_those_of_recomputation(norm: str) -> None:
    """With k = 1 it is greedy, and the noise changes nothing."""
    model = a_model(norm)
    sampled = model.sample(BEGIN, (2, 12), temperature=1.0, k=1)
    for ids in sampled.tolist():
        assert ids[0] == BEGIN
        for i in range(1, len(ids)):
            assert ids[i] == next_token_log_p(model, ids[:i]).argmax()


@pytest.mark.parametrize(("temperature", "k"), [(1.0, VOCABULARY), (0.5, 4)])
def test_tokens_are_sampled_as_often_as_they_are_likely(temperature: float, k: int) -> None:
    model = a_model()
    sampled = model.sample(BEGIN, (20_000, 2), temperature, k)[:, 1]
    log_p = next_token_log_p(model, [BEGIN])
    p = np.exp(log_p / temperature)
    p[np.argsort(log_p)[:-k]] = 0
    shares = np.bincount(sampled, minlength=VOCABULARY) / len(sampled)
    np.testing.assert_allclose(shares, p / p.sum(), atol=0.015)


def test_no_token_is_told_of_those_after_it() -> None:
    model = a_model()
    one, other = [BEGIN, 5, 6, 7], [BEGIN, 5, 8, 9]
    outputs = []
    for ids in (one, other):
        read = Packed.of([ids])
        x = model.decoder(model.embedding(read.tokens, read.sentences), read.sentences)
        outputs.append(x.value)
    np.testing.assert_allclose(outputs[0][:2], outputs[1][:2], rtol=1e-5)
    assert not np.allclose(outputs[0][2], outputs[1][2])


def test_the_loss_is_the_mean_log_likelihood() -> None:
    model = a_model()
    sentences = [[3, 4, 5], [6]]
    batch = Batch.of(sentences, sentences, begin_id=BEGIN, end_id=END)
    said = [
        next_token_log_p(model, [BEGIN, *sentence[:i]])[token]
        for sentence in sentences
        for i, token in enumerate([*sentence, END])
    ]
    assert model.loss(batch).item() == pytest.approx(-np.mean(said), rel=1e-5)


def test_its_gradient_is_right() -> None:
    model = LanguageModel(small_config(layers=1), np.float64)
    parameters = model.buffer.parameters.values()
    dropout = DropoutStream(0, 1)
    check_gradients(lambda *_: model.loss(small_batch(), dropout), *parameters)


def test_it_learns_some_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["one", "two", "three", "four"]
    lines = [f"{a} and {b} are {c}" for a in words for b in words for c in words]
    tokenizer = Tokenizer.train(lines, 290)
    model = LanguageModel(TransformerConfig(290, layers=1, d_model=16, d_ff=32, heads=2))
    batch = Batch.of(
        *2 * [tokenizer.encode_lines(lines)],
        begin_id=tokenizer.begin_id,
        end_id=tokenizer.end_id,
    )
    before = model.loss(batch).item()
    train(model, tokenizer, lines, steps=200)
    assert before > 5  # nats, of ln 290 = 5.7 at random
    assert model.loss(batch).item() < 1.5
    assert "step 200: perplexity " in capsys.readouterr().out
    sampled = model.sample(tokenizer.begin_id, (20, 30), temperature=0.5, k=20)
    texts = [tokenizer.decode(ids).split(" ") for ids in sampled.tolist()]
    assert sum(text[0] in words and text[1] == "and" for text in texts) > 10
