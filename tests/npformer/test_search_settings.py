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


def test_the_defaults_are_the_papers() -> None:
    chosen = SearchSettings()
    assert (chosen.beam, chosen.length_penalty, chosen.extra_length) == (4, 0.6, 50)
    assert chosen.penalty == "gnmt"


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
