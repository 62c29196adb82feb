"""Several ranks train as a single process does: 2 and 4 of them, connected by MPI."""

import pickle
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.mpi import needs_mpi, run_on_ranks
from tests.train.ranks_alike import (
    CASES,
    LAST,
    SPOILT,
    STEPS,
    Trained,
    key_biases,
    new_model,
    resumed,
    started,
    trained,
)
from tests.train.runs import assert_same_run, timeless
from tests.train.small_corpus import make_corpus
from train.corpora.corpus import Corpus
from train.ranks.ranks import ALONE
from train.runs.metrics import read_metrics

pytestmark = [
    needs_mpi,
    pytest.mark.limit(600),  # the first test trains on 1, 2 and 4 ranks
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # a spoilt step
]
SIZES = (2, 4)


class Ran(NamedTuple):
    """What the ranks of each number have trained, and the folder of their runs."""

    size: int
    cases: dict[str, Trained]
    drifted: list[str]
    folder: Path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), keep_text=True)


@pytest.fixture(scope="module")
def alone() -> dict[str, Trained]:
    return {name: trained(case, ALONE) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def both(
    corpus: Corpus, alone: dict[str, Trained], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Ran]:
    """First 2 ranks, and then 4, which go on with a run of theirs."""
    out = tmp_path_factory.mktemp("ranks")
    ran = {}
    for size in SIZES:
        folder = out / str(size)
        folder.mkdir()
        run_on_ranks(size, "tests.train.ranks_alike", corpus.directory, folder)
        cases, drifted = pickle.loads((folder / "found.pickle").read_bytes())
        made = {name: Trained(**found) for name, found in cases.items()}
        ran[size] = Ran(size, made, drifted, folder)
    return ran


@pytest.fixture(params=SIZES, ids=lambda size: f"{size} ranks")
def ran(request: pytest.FixtureRequest, both: dict[int, Ran]) -> Ran:
    return both[request.param]


@pytest.fixture(scope="module")
def run_alone(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    started(corpus, out, ALONE).train()
    return out


@pytest.mark.parametrize("name", CASES)
def test_losses_gradients_and_parameters_are_those_of_one_process(
    ran: Ran, alone: dict[str, Trained], name: str
) -> None:
    one, several, case = alone[name], ran.cases[name], CASES[name]
    tolerance = 1e-9 if case.dtype == np.float64 else 1e-5
    assert one.numbers.shape == (STEPS, 3)
    np.testing.assert_allclose(several.numbers, one.numbers, rtol=tolerance)
    for step in range(STEPS):
        if np.isfinite(one.numbers[step]).all():
            difference = np.linalg.norm(several.gradients[step] - one.gradients[step])
            assert difference < tolerance * np.linalg.norm(one.gradients[step])
    compared = ~key_biases(new_model(case.dtype))
    for found, expected in [(several.parameters, one.parameters), (several.average, one.average)]:
        if expected is not None:
            assert found is not None
            np.testing.assert_allclose(
                found[..., compared], expected[..., compared], rtol=0, atol=tolerance
            )


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(ran: Ran) -> None:
    """The script has seen that all ranks have the same parameters after every step."""
    (found,) = (ran.cases[name] for name, case in CASES.items() if case.spoilt)
    finite = np.isfinite(found.numbers).all(axis=1)
    assert np.flatnonzero(~finite).tolist() == [SPOILT - 1]
    np.testing.assert_array_equal(found.parameters[SPOILT - 1], found.parameters[SPOILT - 2])
    assert (found.parameters[SPOILT] != found.parameters[SPOILT - 1]).any()


def assert_alike(one: Path, other: Path) -> None:
    """Assert that two runs have the same metrics but for rounding, and the same translations."""
    logs = [timeless(read_metrics(run)) for run in (one, other)]
    assert len(logs[0]) == len(logs[1]) == LAST + 2
    for found, expected in zip(*logs, strict=True):
        for values in (found, expected):
            assert values.get("signature", "").startswith("nrefs:1") == ("bleu" in values)
            values.pop("signature", None)
        assert found == pytest.approx(expected, rel=1e-5)
        assert found.get("bleu") == expected.get("bleu")
    translations = [(run / "translations.jsonl").read_text() for run in (one, other)]
    assert translations[0] == translations[1]


def test_a_run_has_the_metrics_of_one_process(ran: Ran, run_alone: Path) -> None:
    assert_alike(ran.folder / "whole", run_alone)


def test_a_run_repeats_to_the_last_bit(ran: Ran) -> None:
    assert_same_run(ran.folder / "repeated", ran.folder / "whole")


@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_a_run_is_resumed_to_the_last_bit(both: dict[int, Ran], name: str) -> None:
    """By as many ranks."""
    folder = both[2].folder
    assert_same_run(folder / name, folder / "whole")


def test_a_run_goes_on_with_other_numbers_of_ranks(
    both: dict[int, Ran], corpus: Corpus, run_alone: Path
) -> None:
    """2 ranks have begun it, 4 have gone on, and one ends it."""
    shared = both[SIZES[0]].folder.parent / "shared"
    trainer = resumed(corpus, shared, ALONE)
    assert trainer.position.step == 6
    trainer.train()
    assert_alike(shared, run_alone)


def test_parameters_that_differ_are_not_saved(ran: Ran) -> None:
    """Every rank says so, and the state of the run's start stays."""
    last = ran.size - 1
    assert len(ran.drifted) == ran.size
    for words in ran.drifted:
        found = re.match(r"AgreedError: after step 5 rank (\d+) on .* has other parameters", words)
        assert found, words
        assert int(found[1]) == last
        assert words.endswith("saved: 0")
