"""What holds for every part of one's own: those of the examples, and another cross-attention."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autograd import DropoutStream, Sentences, Tape, Tensor, check_gradients, to_host
from examples.adamw import adamw
from examples.gated_feed_forward import GatedFeedForward
from examples.relative_positions import RelativeSelfAttention
from npformer import (
    Batch,
    Packed,
    Parts,
    SearchSettings,
    Transformer,
    Translator,
    UserError,
    search,
)
from npformer.attention import CrossAttention, SelfAttention
from npformer.attention_maps import attention_maps
from npformer.checkpoint import load_arrays, load_model
from npformer.positions import NoPositions
from tests.examples.small import (
    BEGIN,
    END,
    SETTINGS,
    small_batch,
    small_config,
    trained,
    write_text,
)
from tests.examples.tied_values import TiedValues
from train.average import write_average
from train.corpora.preparation import prepare
from train.runs.run import Run
from train.step import train_step
from train.trainer import Trainer

PARTS = {
    "gated_feed_forward": Parts(feed_forward=GatedFeedForward),
    "relative_positions": Parts(self_attention=RelativeSelfAttention, positions=NoPositions),
    "tied_values": Parts(cross_attention=TiedValues),
}
every_part = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())


@every_part
def test_it_memorises_a_batch(parts: Parts) -> None:
    _, losses = trained(parts)
    assert losses[0] > 2  # nats, of ln 11 = 2.4 at random
    assert losses[-1] < 0.7


@every_part
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_gradient_of_the_whole_model_is_right(parts: Parts, norm: str) -> None:
    config = small_config(layers=1, norm=norm)
    model = Transformer(config, dtype=np.float64, parts=parts)
    rng = np.random.default_rng(1)
    parameters = model.parameters()
    for parameter in parameters.values():  # the biases and gains too
        parameter.assign(rng.standard_normal(parameter.shape) * 0.5)
    batch = small_batch()
    check_gradients(lambda *_: model.loss(batch), *parameters.values())


@every_part
def test_decoding_with_the_cache_is_recomputation(parts: Parts) -> None:
    model = Transformer(small_config(), dtype=np.float64, parts=parts)
    source = small_batch(seed=2, pairs=3).source
    state = model.start(source, beam=1, capacity=8)
    memory = model.encode(source)
    read = [[BEGIN] for _ in range(3)]
    for _ in range(8):
        y = model.step(np.array([ids[-1] for ids in read]), state)
        again = model.decode(Packed.of(read), memory, source.sentences)
        last = again.value[np.cumsum([len(ids) for ids in read]) - 1]
        np.testing.assert_allclose(y.value, last, rtol=1e-10, atol=1e-12)
        scores = y.value @ model.projection.value.T
        for ids, chosen in zip(read, scores.argmax(axis=1).tolist(), strict=True):
            ids.append(chosen)


@every_part
def test_beam_search_scores_what_the_model_says(parts: Parts) -> None:
    """Rows are reordered and sentences end: their cache must follow."""
    model, _ = trained(parts)
    source = small_batch().source
    settings = SearchSettings(beam=3, length_penalty=0)
    found = search(model, source, settings, BEGIN, END)
    assert all(best.ids for best, *_ in found)
    for sentence, [best, *_] in zip(source, found, strict=True):
        alone = Packed.of([sentence])
        read = Packed.of([[BEGIN, *best.ids]])
        x = model.decode(read, model.encode(alone), alone.sentences).value
        logits = (x @ model.projection.value.T).astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        said = [log_p[i, token] for i, token in enumerate([*best.ids, END])]
        assert best.score == pytest.approx(sum(said), abs=1e-4)


@every_part
def test_attention_weights_can_be_inspected(parts: Parts) -> None:
    config = small_config()
    batch = small_batch()
    maps = attention_maps(Transformer(config, parts=parts), batch)
    lengths = zip(batch.source.lengths, batch.target_input.lengths, strict=True)
    for of_pair, (n, m) in zip(maps, lengths, strict=True):
        assert of_pair.encoder.shape == (2, 2, n, n)
        assert of_pair.decoder.shape == (2, 2, m, m)
        assert of_pair.cross.shape == (2, 2, m, n)
        for weights in (of_pair.encoder, of_pair.decoder, of_pair.cross):
            np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
        assert not np.triu(of_pair.decoder, 1).any()


def test_an_attention_that_records_no_weights_is_named() -> None:
    class Silent(SelfAttention):
        def __call__(
            self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None
        ) -> Tensor:
            return self.attend(x, sentences, dropout)

    class SilentToo(CrossAttention):
        def __call__(self, x: Tensor, *arguments: Any) -> Tensor:
            return self.attend(x, *arguments)

    for parts, name in (
        (Parts(self_attention=Silent), "Silent"),
        (Parts(cross_attention=SilentToo), "SilentToo"),
        (Parts(self_attention=Silent, cross_attention=SilentToo), "Silent"),
    ):
        with pytest.raises(TypeError, match=f"^{name} has recorded no .* leave __call__"):
            attention_maps(Transformer(small_config(), parts=parts), small_batch())


@every_part
def test_it_runs_where_arrays_are_not_numpys(parts: Parts) -> None:
    """On a stand-in for a device: one step of training, translation and attention maps."""
    results = []
    for backend in ("numpy", "strict"):
        model = Transformer(small_config(), parts=parts).to(backend)
        optimizer, batch = adamw(model.buffer, SETTINGS), model.prepared(small_batch())
        step = train_step(model, optimizer, [batch], 1e-2, DropoutStream(0, 1), clip_norm=1.0)
        found = search(model, small_batch().source, SearchSettings(beam=2), BEGIN, END)
        ids = [best.ids for best, *_ in found]
        maps = attention_maps(model, batch)
        results.append((to_host(step.loss_sum), to_host(model.buffer.values), ids, maps[0].encoder))
    (loss, values, ids, seen), (same_loss, same_values, same_ids, seen_too) = results
    np.testing.assert_allclose(same_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(same_values, values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen_too, seen, rtol=1e-5)
    assert same_ids == ids


@every_part
def test_a_run_is_resumed_and_its_model_read_again(parts: Parts, tmp_path: Path) -> None:
    a, b, c, d = write_text(tmp_path)
    corpus = prepare(a, b, c, d, tmp_path / "corpus", vocab_size=300)
    straight = Trainer.start(SETTINGS, corpus, Run(tmp_path / "straight"), parts)
    straight.train()

    stopped = Trainer.start(SETTINGS, corpus, Run(tmp_path / "stopped"), parts)
    stopped.stop_requested = True
    assert stopped.train().step == 1
    resumed = Trainer.resume(SETTINGS, corpus, Run(tmp_path / "stopped"), parts)
    resumed.train()
    np.testing.assert_array_equal(resumed.model.buffer.values, straight.model.buffer.values)

    sources = ["one two three", "five four"]
    with pytest.raises(UserError, match="belongs to another model"):
        Translator.load(tmp_path / "straight")
    loaded = Translator.load(tmp_path / "straight", parts=parts).translate(sources)
    assert loaded == Translator(straight.model, corpus.tokenizers).translate(sources)


@every_part
@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_a_batch_may_have_no_tokens(parts: Parts, lengths: list[int]) -> None:
    model = Transformer(small_config(), dtype=np.float64, parts=parts)
    nothing = Packed(np.zeros(0, np.int32), Sentences(lengths))
    batch = Batch(nothing, nothing, nothing)
    with Tape() as tape:
        loss, _ = model.losses(batch, DropoutStream(0, 1))
    tape.backward(loss)
    assert loss.item() == 0
    for parameter in model.parameters().values():
        assert parameter.grad is None or not parameter.grad.any()
    maps = attention_maps(model, batch)
    assert [of_pair.encoder.shape for of_pair in maps] == [(2, 2, 0, 0)] * len(lengths)
    assert search(model, nothing, SearchSettings(beam=2, extra_length=1)) == [[]] * len(lengths)


@every_part
def test_checkpoints_are_averaged(parts: Parts, tmp_path: Path) -> None:
    a, b, c, d = write_text(tmp_path)
    corpus = prepare(a, b, c, d, tmp_path / "corpus", vocab_size=300)
    Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"), parts).train()
    checkpoints = [load_arrays(path)[0] for path in Run(tmp_path / "run").checkpoints.paths()]
    assert len(checkpoints) == 2
    with pytest.raises(UserError, match="belongs to another model"):
        write_average(tmp_path / "run", 2, tmp_path / "mean")
    write_average(tmp_path / "run", 2, tmp_path / "mean", parts=parts)
    for name, p in load_model(tmp_path / "mean", parts).parameters().items():
        mean = np.mean([arrays[name] for arrays in checkpoints], axis=0)
        np.testing.assert_allclose(p.numpy(), mean, rtol=1e-6, atol=1e-9)


def test_the_parts_differ_from_one_another() -> None:
    losses = [trained(parts, steps=2)[1][-1] for parts in [Parts(), *PARTS.values()]]
    assert all(a != b for a, b in itertools.pairwise(losses))
