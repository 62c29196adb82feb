"""One step of training."""

import numpy as np
import pytest

from autograd import DropoutSite, DropoutStream, Tape, to_host
from npformer import Batch, Transformer, TransformerConfig
from train.adam import Adam
from train.step import read_steps, train_step


def tiny() -> tuple[Transformer, list[Batch]]:
    model = Transformer(
        TransformerConfig(vocab_size=9, layers=1, d_model=8, d_ff=8, heads=2), 0, np.float64
    )
    pairs = ([[3, 4], [5], [6, 7, 8]], [[3], [4, 5, 6], [7]])
    return model, [Batch.of([s], [t], begin_id=1, end_id=2) for s, t in zip(*pairs, strict=True)]


def test_a_step_is_an_adam_step_on_the_mean_loss_per_token() -> None:
    (model, batches), (other, _) = tiny(), tiny()
    dropout = DropoutStream(0, 1)
    result = train_step(model, Adam(model.buffer), batches[:1], 0.1, dropout)
    adam = Adam(other.buffer)
    with Tape() as tape:
        loss = other.loss(batches[0], dropout)
    tape.backward(loss)
    norm = adam.gradient_norm()
    adam.step(0.1)
    np.testing.assert_allclose(model.buffer.values, other.buffer.values, rtol=1e-9, atol=1e-12)
    assert result.loss_sum / result.target_tokens == pytest.approx(float(loss))
    assert result.gradient_norm == pytest.approx(norm)
    assert result.target_tokens == 2


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clipping_scales_down_a_gradient_that_is_too_large(share: float) -> None:
    (model, batches), (other, _) = tiny(), tiny()
    norm = train_step(other, Adam(other.buffer), batches, 0.0).gradient_norm
    adam, plain = Adam(model.buffer), Adam(other.buffer)
    found = train_step(model, adam, batches, 0.1, clip_norm=share * norm)
    assert found.gradient_norm == pytest.approx(norm)  # before clipping
    train_step(other, plain, batches, 0.1)
    np.testing.assert_allclose(adam.first, min(share, 1.0) * plain.first, rtol=1e-9, atol=1e-15)


def test_losses_and_token_counts_are_summed_over_the_batches_of_a_step() -> None:
    model, batches = tiny()
    adam = Adam(model.buffer)
    each = [train_step(model, adam, [b], 0.0) for b in batches]
    whole = train_step(model, adam, batches, 0.0)
    for name in ("loss_sum", "nll_sum", "target_tokens"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(r, name) for r in each))
    shares = [r.target_tokens / whole.target_tokens for r in each]
    assert whole.gradient_norm <= sum(
        s * r.gradient_norm for s, r in zip(shares, each, strict=True)
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_step_that_is_not_finite_changes_nothing_and_is_reported_when_read() -> None:
    model, batches = tiny()
    adam = Adam(model.buffer)
    model.parameters()["embedding"].value[3] = np.nan
    before = to_host(model.buffer.values).copy()
    result = train_step(model, adam, batches, 0.1)
    assert not np.isfinite(read_steps([result])).any()
    np.testing.assert_array_equal(model.buffer.values, before)
    assert not adam.first.any()
    assert not adam.second.any()


@pytest.mark.parametrize(
    "parts", [[(0, 2), (2, 4)], [(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 3), (3, 4)]]
)
def test_accumulated_batches_give_the_step_of_the_large_batch(
    parts: list[tuple[int, int]],
) -> None:
    """With dropout, clipping and several steps: the same masks, the same mean over all tokens."""
    sources = [[3, 4, 5], [6], [7, 8, 3, 4, 5], [8, 8]]
    targets = [[5, 6], [7, 8, 3, 4], [3], [6, 5, 4]]
    config = TransformerConfig(
        vocab_size=9, layers=1, d_model=8, d_ff=8, heads=2, dropout=0.3, smoothing=0.1
    )

    def trained(cuts: list[tuple[int, int]]) -> tuple[Transformer, list[float]]:
        model = Transformer(config, 0, np.float64)
        optimizer, losses = Adam(model.buffer), []
        batches = [Batch.of(sources[a:b], targets[a:b], begin_id=1, end_id=2) for a, b in cuts]
        for step in (1, 2, 3):
            result = train_step(model, optimizer, batches, 0.01, DropoutStream(5, step), 0.5)
            losses.append(float(result.loss_sum) / result.target_tokens)
        return model, losses

    (whole, expected), (accumulated, losses) = trained([(0, 4)]), trained(parts)
    np.testing.assert_allclose(losses, expected, rtol=1e-11)
    # Adam divides by its second moment: where a gradient is zero but for rounding, so is the step.
    np.testing.assert_allclose(accumulated.buffer.values, whole.buffer.values, atol=1e-9)
    assert not np.allclose(whole.buffer.values, Transformer(config, 0, np.float64).buffer.values)


class Half(DropoutStream):
    """A stream that drops half of everything, whatever the model says."""

    def site(self, site: int, rate: float) -> DropoutSite | None:
        return super().site(site, 0.5)


def test_a_step_takes_its_masks_from_the_stream_that_it_is_given() -> None:
    model, batches = tiny()
    adam, dropout = Adam(model.buffer), Half(0, 1)
    loss = train_step(model, adam, batches[:1], 0.0, dropout).loss_sum
    assert loss == pytest.approx(float(model.losses(batches[0], dropout)[0]))
    assert loss != train_step(model, adam, batches[:1], 0.0, DropoutStream(0, 1)).loss_sum
