"""The experiment of Table 1: what it counts, what its fits find, and its page."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from train.__main__ import main
from train.experiments.compared_layers import (
    ATTENTION,
    CONVOLUTION,
    DILATED,
    LAYERS,
    PROJECTED,
    RECURRENT,
    RESTRICTED,
    STACKS,
    Size,
    cost,
    dependence,
    path_length,
)
from train.experiments.power_law import crossing, exponent
from train.experiments.table1 import EXPERIMENT
from train.experiments.table1_findings import (
    Costs,
    paths_hold,
    steps_hold,
    wins_where_said,
    wrong_exponents,
)
from train.experiments.table1_page import _cell

SIZE = Size(n=12, d=4, k=3, r=4, heads=2)


def test_an_exponent_is_that_of_the_power_law() -> None:
    sizes = [2, 4, 8, 16]
    slope, error = exponent(sizes, [5 * n**1.5 for n in sizes])
    assert slope == pytest.approx(1.5)
    assert error == pytest.approx(0, abs=1e-9)
    # By hand: y = 0, 1, 1 over x = 0, 1, 2 has the slope 1/2; the squares of what is left over are
    # 1/36, 4/36 and 1/36, so the error is √(1/6 / 2).
    slope, error = exponent([1, math.e, math.e**2], [1, math.e, math.e])
    assert (slope, error) == (pytest.approx(0.5), pytest.approx(math.sqrt(1 / 12)))


def test_costs_cross_where_their_ratio_reaches_1() -> None:
    assert crossing([1, 4, 16], [0.1, 0.5, 2.0]) == pytest.approx(8)
    assert crossing([1, 4], [0.1, 0.5]) is None
    assert crossing([1, 4], [2.0, 4.0]) is None


def test_costs_cross_where_they_stay_above() -> None:
    """Times are not smooth: a single high or low one is no crossing."""
    assert crossing([1, 2, 4, 16], [0.5, 1.5, 0.5, 2.0]) == pytest.approx(8)
    assert crossing([1, 4, 16], [2.0, 0.5, 2.0]) == pytest.approx(8)
    assert crossing([1, 4, 16], [0.5, 2.0, 0.5]) is None
    assert _cell([(1, 0.5), (4, 2.0), (16, 0.8)]) == "none: less again at 16 (0.8 times there)"
    assert _cell([(1, 2.0), (4, 0.8)]) == "none: less again at 4 (0.8 times there)"
    assert _cell([(1, 0.5), (4, 0.8)]) == "never up to 4 (0.8 times there)"
    assert _cell([(1, 1.5), (4, 2.0)]) == "always from 1 (1.5 times there)"


def test_outputs_depend_on_the_inputs_in_reach() -> None:
    places = np.arange(SIZE.n)
    distance = places - places[:, None]
    expected = {
        PROJECTED.make: distance == distance,
        RECURRENT.make: distance <= 0,
        STACKS[RECURRENT.name](SIZE)[0]: (distance == 0) | (distance == -1),
        CONVOLUTION.make: abs(distance) <= 1,
        RESTRICTED.make: (distance >= -2) & (distance <= 1),
        STACKS[DILATED](SIZE)[1]: np.isin(distance, (-3, 0, 3)),
    }
    for make, seen in expected.items():
        np.testing.assert_array_equal(dependence(make, SIZE, seed=0), seen)


@pytest.mark.parametrize(
    ("name", "length"),
    [(ATTENTION.name, 1), (RECURRENT.name, 11), (CONVOLUTION.name, 11), (RESTRICTED.name, 11)],
)
def test_paths_are_as_long_as_the_farthest_way(name: str, length: int) -> None:
    assert path_length(STACKS[name](SIZE), SIZE, seed=0) == length


def test_dilated_convolutions_have_logarithmic_paths() -> None:
    for n in (4, 9, 10, 27, 40):
        size = SIZE._replace(n=n)
        assert path_length(STACKS[DILATED](size), size, 0) <= 2 * math.ceil(math.log(2 * n - 1, 3))


@pytest.mark.parametrize(
    ("n", "dilations"),
    [(2, 1), (3, 1), (4, 2), (10, 4), (27, 4), (28, 6), (243, 8), (244, 10), (729, 10)],
)
def test_dilations_grow_to_the_largest_that_a_sentence_has_room_for(n: int, dilations: int) -> None:
    """1, 3, 9, and again 3, for 10 to 27 positions."""
    assert len(STACKS[DILATED](SIZE._replace(n=n))) == dilations


def test_a_cost_is_that_of_a_pass_in_both_directions() -> None:
    n, d, k = SIZE.n, SIZE.d, SIZE.k
    found = cost(CONVOLUTION, SIZE, timed=0.0, seed=0)
    taps = k * n - 2  # two have no neighbour on one side
    assert found["forward"] == 2 * taps * d * d + taps * d + n * d  # products, sums and bias
    assert found["backward"] == 4 * taps * d * d + taps * d + n * d
    assert found["steps"] == 1
    assert found["seconds"] > 0
    assert found["bytes"] >= 3 * n * d * 4  # y, dy and dx at the least


def test_the_experiment_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["experiment", "table1", "--scale", "toy", "--out", str(out)]) == 0
    page = capsys.readouterr().out
    for layer in LAYERS:
        assert f"| {layer.name} | O({layer.complexity}) |" in page
    assert "| O(n) | n + 3 | O(n) | 15 |" in page
    names = {path.name for path in out.glob("*.svg")}
    assert names == {f"table1-{name}.svg" for name in ("operations", "time", "wins", "paths")}
    assert all(f"]({name})" in page for name in names)
    measured = json.loads((out / "table1.json").read_text())["measured"]
    assert measured["recurrent, n = 64, d = 16"]["steps"] == 67


def test_the_verdict_is_that_of_the_measurements() -> None:
    """Each finding turns with the figures that it is about."""

    def costs(power: float, chain: int) -> dict:
        sizes = [SIZE._replace(n=n) for n in (16, 32, 64)]

        def figures(size: Size) -> dict[str, float]:
            return {"forward": size.n**power, "backward": 0, "steps": chain * size.n + 1}

        return {(layer.name, v): [(s, figures(s)) for s in sizes] for layer in LAYERS for v in "n"}

    only_n = costs(power=1.0, chain=1)
    flat = costs(power=1.0, chain=0)
    mixed = {**flat, (RECURRENT.name, "n"): only_n[RECURRENT.name, "n"]}
    assert steps_hold(mixed)
    assert not steps_hold(flat)
    assert not steps_hold(only_n)

    right = {
        "n": [4, 10],
        "k": 3,
        "r": 5,
        "paths": {
            **dict.fromkeys(["recurrent", "convolution", "separable convolution"], (3, 9)),
            "self-attention": (1, 1),
            "restricted self-attention": (2, 5),
            DILATED: (2, 3),
        },
    }
    right["paths"] = {name: list(path) for name, path in right["paths"].items()}
    assert paths_hold(right)
    for name in right["paths"]:
        longer = {**right["paths"], name: [3, 20]}
        assert not paths_hold({**right, "paths": longer})

    def attention_takes(*ratios: float) -> Costs:
        """The operations of attention over those of recurrence, at n = d / 2, d and 2 d."""
        sizes = [SIZE._replace(n=n, d=8) for n in (4, 8, 16)][: len(ratios)]
        figures = [{"forward": ratio, "backward": 0} for ratio in ratios]
        one = [{"forward": 1, "backward": 0}] * len(sizes)
        return {
            (ATTENTION.name, "grid"): [*zip(sizes, figures, strict=True)],
            (RECURRENT.name, "grid"): [*zip(sizes, one, strict=True)],
        }

    assert wins_where_said(attention_takes(0.5, 1.2, 2.0)) is True
    assert wins_where_said(attention_takes(1.1, 1.2, 2.0)) is False
    assert wins_where_said(attention_takes(0.5, 0.7, 0.9)) is False
    assert wins_where_said(attention_takes(0.5, 0.7)) is None

    sweeps = {
        (layer.name, v): [
            (s := SIZE._replace(**{v: value}), {"forward": layer.formula(s), "backward": 0})
            for value in (4, 8, 16)
        ]
        for layer in LAYERS
        for v in layer.variables
    }
    assert wrong_exponents(sweeps) == []
    sweeps[RECURRENT.name, "d"] = sweeps[ATTENTION.name, "d"]
    assert wrong_exponents(sweeps) == ["those of recurrent as d^1.00 in place of 2.00"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lengths", "8", "16"], "--lengths must be 3 different numbers or more"),
        (["--widths", "6", "9", "12"], "--widths must be divisible by --heads, 2"),
        (["--path-kernel", "4"], "--path-kernel must be odd"),
        (["--path-window", "2"], "--path-window must be 3 or more"),
        (["--windows", "0", "1", "2"], "--windows must be 3 different numbers or more, 1 at least"),
        (["--lengths", "1", "2", "4"], "--lengths must be 3 different numbers or more, 2 at least"),
        (
            ["--path-lengths", "1", "2", "4"],
            "--path-lengths must be 3 different numbers or more, 2",
        ),
    ],
)
def test_sizes_that_show_nothing_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment", "table1", "--scale", "toy", "--out", str(tmp_path / "out"), *flags]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_the_default_has_the_widths_of_the_model() -> None:
    assert 512 in EXPERIMENT.scales["small"].widths
