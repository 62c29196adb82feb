"""The learning rate: the paper's formula, and the usual alternatives."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from npformer.errors import UserError
from train.schedule import Schedule
from train.settings import TrainSettings

steps = st.integers(1, 1_000_000)
warmups = st.integers(1, 20_000)
rates = st.floats(1e-6, 1.0)


@given(steps, warmups, st.sampled_from([128, 512, 1024]), st.floats(0.1, 10))
def test_the_papers_rate_matches_equation_3(
    step: int, warmup: int, d_model: int, factor: float
) -> None:
    rate = Schedule("paper", warmup=warmup, d_model=d_model, factor=factor)(step)
    expected = factor / math.sqrt(d_model) * min(1 / math.sqrt(step), step / warmup**1.5)
    assert rate == pytest.approx(expected, rel=1e-12)


def test_the_papers_rates_for_base_and_big() -> None:
    base, big = Schedule(d_model=512), Schedule(d_model=1024)
    assert base(1) == pytest.approx(1.7469e-7, rel=1e-4)
    assert base(4000) == pytest.approx(6.9877e-4, rel=1e-4)
    assert base(100_000) == pytest.approx(1.3975e-4, rel=1e-4)
    assert big(4000) == pytest.approx(4.9411e-4, rel=1e-4)


def schedule(kind: Any, warmup: int, peak: float, total: int, final: float = 0.0) -> Schedule:
    return Schedule(kind, warmup=warmup, peak=peak, steps=total, final=final)


@given(
    st.sampled_from(["paper", "inverse_sqrt", "cosine", "constant"]), warmups, rates, steps, steps
)
def test_every_rate_rises_linearly_during_warmup_and_never_afterwards(
    kind: str, warmup: int, peak: float, one: int, other: int
) -> None:
    rate = schedule(kind, warmup, peak, total=warmup + 50_000)
    first, second = sorted((one, other))
    if second <= warmup:
        assert rate(first) / first == pytest.approx(rate(second) / second, rel=1e-9)
    if first >= warmup:
        assert rate(second) <= rate(first) * (1 + 1e-12)
    assert 0 <= rate(one) <= rate(warmup) * (1 + 1e-12)
    if kind != "paper":
        assert rate(warmup) == peak


@given(warmups, rates, steps)
def test_after_warmup_the_rate_is_constant_or_decays_with_the_inverse_square_root(
    warmup: int, peak: float, step: int
) -> None:
    assume(step >= warmup)
    assert schedule("constant", warmup, peak, 1)(step) == peak
    inverse = schedule("inverse_sqrt", warmup, peak, 1)
    assert inverse(step) == pytest.approx(peak * math.sqrt(warmup / step))
    assert inverse(4 * step) == pytest.approx(inverse(step) / 2)


@given(st.integers(1, 5000), st.integers(1, 5000), rates, st.floats(0, 1))
def test_a_cosine_is_halfway_in_the_middle_and_stays_at_its_final_rate(
    warmup: int, half: int, peak: float, share: float
) -> None:
    final = share * peak
    end = warmup + 2 * half
    rate = schedule("cosine", warmup, peak, end, final)
    assert rate(warmup + half) == pytest.approx((peak + final) / 2)
    assert rate(end) == pytest.approx(final)
    assert rate(end + 1000) == rate(end)


def test_inverse_sqrt_with_the_papers_peak_is_the_papers_rate() -> None:
    paper = Schedule("paper", warmup=400, d_model=64)
    inverse = Schedule("inverse_sqrt", warmup=400, peak=64**-0.5 * 400**-0.5)
    for step in (1, 7, 399, 400, 401, 5000):
        assert inverse(step) == pytest.approx(paper(step), rel=1e-12)


def test_the_settings_of_a_run_determine_its_schedule() -> None:
    settings = TrainSettings(
        schedule="cosine", warmup=10, peak_rate=0.5, max_steps=110, final_rate=0.1
    )
    rate = settings.learning_rate(512)
    assert (rate(5), rate(10), rate(60), rate(110)) == pytest.approx((0.25, 0.5, 0.3, 0.1))
    assert TrainSettings(rate_factor=2).learning_rate(64)(4000) == pytest.approx(2 / 8 / 4000**0.5)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("schedule must be paper, inverse_sqrt, cosine or constant; it is 'linear'", "linear"),
        ("warmup must be at least 1 step; it is 0", {"warmup": 0}),
        ("needs more steps", {"kind": "cosine", "warmup": 100, "steps": 100}),
    ],
)
def test_an_impossible_schedule_is_refused(message: str, wrong: Any) -> None:
    with pytest.raises(UserError, match=message):
        Schedule(**(wrong if isinstance(wrong, dict) else {"kind": wrong}))


@pytest.mark.parametrize("name", ["warmup", "d_model", "steps", "peak", "factor", "final"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -1])
def test_invalid_numbers_are_refused(name: str, number: float) -> None:
    with pytest.raises(UserError, match=f"^{name} must be"):
        Schedule(**{name: number})  # type: ignore[arg-type]


def test_the_defaults_are_the_papers() -> None:
    assert Schedule() == Schedule(
        "paper", warmup=4000, peak=1e-3, factor=1.0, d_model=512, steps=100_000, final=0.0
    )
