"""What training costs, counted; and Table 2."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from npformer import TransformerConfig
from npformer.errors import UserError
from tests.train.runs import settings, start
from train.corpora.corpus import Corpus
from train.experiments.cost import batch_of_lengths, cost_of, six_times_parameters
from train.experiments.experiment import run
from train.experiments.table2 import _PAPER, EXPERIMENT, _power


def test_products_are_counted_as_section_3_has_them() -> None:
    """All matrix products with parameters, from their shapes, for tokens of either side."""
    config = TransformerConfig.preset(
        "tiny", vocab_size=50, layers=2, d_model=12, d_ff=20, heads=3, d_k=4, d_v=5
    )
    cost = cost_of(config, batch_of_lengths(config, [(7, 5), (3, 4)]))
    source, target = 10, 9
    assert cost["target_tokens"] == target
    d, keys, values = 12, 3 * 4, 3 * 5
    attention = d * (2 * keys + values) + values * d  # Q, K, V and O of one token
    ffn = 2 * d * 20
    encoder = source * (attention + ffn)
    cross = target * (d * keys + values * d) + source * d * (keys + values)
    decoder = target * (attention + ffn) + cross
    products = 2 * 2 * (encoder + decoder)  # two layers; a multiplication and an addition
    biases = 2 * (
        source * (2 * keys + values + d + 20 + d)
        + target * (2 * keys + values + d + keys + d + 20 + d)
        + source * (keys + values)
    )
    relus = 2 * 20 * (source + target)

    def linear_maps(direction: str) -> int:
        return cost[direction]["linear"] + cost[direction]["feed_forward"]

    assert linear_maps("forward") == products + biases + relus
    assert cost["total"] == sum(cost["forward"].values()) + sum(cost["backward"].values())
    # Twice as many products on the way back, for the input and for the weights.
    assert linear_maps("backward") == pytest.approx(2 * products, rel=0.1)


def test_the_usual_estimate_is_close_for_short_sentences_and_a_shared_vocabulary() -> None:
    config = TransformerConfig.preset("small", vocab_size=1000)
    cost = cost_of(config, batch_of_lengths(config, [(20, 20)]))
    assert cost["total"] / six_times_parameters(cost) == pytest.approx(1, abs=0.1)


def test_the_cost_of_attention_grows_with_the_length() -> None:
    config = TransformerConfig.preset("tiny", vocab_size=10)
    short, long = (
        cost_of(config, batch_of_lengths(config, [(n, n)]))["forward"]["attention"] / n
        for n in (10, 100)
    )
    assert long == pytest.approx(10 * short, rel=0.05)


def test_table_2_counts_a_run(corpus: Corpus, tmp_path: Path) -> None:
    start(settings(max_steps=3), corpus, tmp_path / "mine")
    chosen = replace(EXPERIMENT.scales["toy"], run=tmp_path / "mine", data=corpus.directory)
    page = run(EXPERIMENT, chosen, tmp_path / "out", lambda line: None, ["npformer"])
    result = json.loads((tmp_path / "out" / "table2.json").read_text(encoding="utf-8"))["measured"]
    assert "## The run mine\n\n3 steps of" in page
    assert result["run"]["target_tokens"] > 0


@pytest.mark.parametrize("missing", ["run", "data"])
def test_a_run_needs_its_corpus(missing: str, tmp_path: Path) -> None:
    given = {"run": tmp_path, "data": tmp_path, missing: None}
    chosen = replace(EXPERIMENT.scales["toy"], **given)
    with pytest.raises(UserError, match="go together"):
        run(EXPERIMENT, chosen, tmp_path / "out", lambda line: None, ["npformer"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"length": 0}, "--length and --lengths must be 1 or more"),
        ({"lengths": (5, 0)}, "--length and --lengths must be 1 or more"),
        ({"gpus": 0}, "--gpus and --sustained must be positive"),
        ({"sustained": 0.0}, "--gpus and --sustained must be positive"),
    ],
)
def test_what_has_no_cost_is_refused(given: dict, message: str, tmp_path: Path) -> None:
    chosen = replace(EXPERIMENT.scales["toy"], **given)
    with pytest.raises(UserError, match=message):
        run(EXPERIMENT, chosen, tmp_path / "out", lambda line: None, ["npformer"])


def test_a_length_may_be_given_twice(tmp_path: Path) -> None:
    chosen = replace(EXPERIMENT.scales["toy"], lengths=(5, 5))
    page = run(EXPERIMENT, chosen, tmp_path / "out", lambda line: None, ["npformer"])
    assert page.count("\n| 5 |") == 1


def test_the_formula_of_the_paper_gives_its_figures(tmp_path: Path) -> None:
    assert {name: _power(paper.flops) for name, paper in _PAPER.items()} == {
        "base": "3.3e18",
        "big": "2.3e19",
    }
