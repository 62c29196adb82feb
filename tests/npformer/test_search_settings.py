"""Settings of a search: the paper's by default; invalid ones are refused."""

import math
from typing import Any

import numpy as np
import pytest

from npformer import SearchSettings


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_the_two_penalties_are_different_functions(n: int, alpha: float) -> None:
    gnmt = SearchSettings(length_penalty=alpha)
    power = SearchSettings(length_penalty=alpha, penalty="power")
    assert gnmt.divisor(n) == pytest.approx(((5 + n) / 6) ** alpha)
    assert power.divisor(n) == pytest.approx(n**alpha)


def test_sampling_draws_as_many_as_are_asked_for() -> None:
    assert SearchSettings(beam=2, alternatives=1).rows == 2
    assert SearchSettings(beam=2, alternatives=7, sampling=True).rows == 7


def test_the_defaults_are_the_papers() -> None:
    chosen = SearchSettings()
    assert (chosen.beam, chosen.length_penalty, chosen.extra_length) == (4, 0.6, 50)
    assert chosen.penalty == "gnmt"


@pytest.mark.parametrize("n", [1, 2, 50])
def test_there_may_be_no_penalty(n: int) -> None:
    assert SearchSettings(penalty="none").divisor(n) == 1


def test_each_limit_of_the_length_counts() -> None:
    lengths = np.array([0, 3, 10, 100])
    assert SearchSettings().most_tokens(lengths).tolist() == [50, 53, 60, 150]
    chosen = SearchSettings(max_length=55, max_ratio=1.5, min_length=2, min_ratio=0.25)
    assert chosen.most_tokens(lengths).tolist() == [1, 4, 15, 55]
    assert chosen.fewest_tokens(lengths).tolist() == [2, 2, 3, 25]


@pytest.mark.parametrize("penalty", ["gnmt", "power"])
def test_the_divisor_of_the_largest_penalty_is_finite(penalty: Any) -> None:
    largest = SearchSettings(length_penalty=30, penalty=penalty)
    assert math.isfinite(largest.divisor(2**31))
    assert np.isfinite(largest.divisor(np.array([1, 2**31]))).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam": 0},
        {"length_penalty": -0.1},
        {"penalty": "wu"},
        {"extra_length": 0},
        {"min_length": -1},
        {"min_ratio": -0.5},
        {"min_ratio": math.nan},
        {"max_length": 0},
        {"min_length": 4, "max_length": 4},
        {"max_ratio": 0},
        {"no_repeat_ngram": -1},
        {"groups": 0},
        {"groups": 3},
        {"sampling": True, "groups": 2},
        {"groups": 2, "diversity": -1},
        {"seed": -1},
        {"seed": 2**64},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.9},
        {"seed": 1},
        {"diversity": 0.0},
        {"sampling": True, "alternatives": 0},
        {"min_ratio": 2, "max_ratio": 1.5},
        {"alternatives": 0},
        {"beam": 2, "alternatives": 3},
        *({"length_penalty": number} for number in (math.nan, math.inf, 400, 30.1, "1", True)),
        *({"length_penalty": np.float32(number)} for number in (math.nan, math.inf)),
        *({name: 2.5} for name in ("beam", "extra_length", "alternatives")),
        *({name: True} for name in ("beam", "extra_length", "alternatives")),
        *({name: "4"} for name in ("beam", "extra_length", "alternatives")),
        *({name: 10**30} for name in ("beam", "extra_length", "alternatives")),
        *({name: math.nan} for name in ("beam", "extra_length", "alternatives")),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{list(wrong)[-1]} must"):
        SearchSettings(**wrong)
