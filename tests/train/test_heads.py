"""What heads do: statistics, the mask that takes them away, examples and the experiment."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import Transformer, TransformerConfig
from npformer.attention_maps import AttentionMaps
from npformer.batch import Batch
from npformer.translation import Translation
from train.__main__ import main
from train.experiments import head_examples
from train.experiments.experiment import run
from train.experiments.figures import EXPERIMENT
from train.experiments.figures_page import _verdict, page
from train.experiments.head_examples import different_heads, far_example, reference_example
from train.experiments.heads import KINDS, STATISTICS, Head, is_separator, statistics, without
from train.grammar import analyse, generate


def translation_of(weights: np.ndarray, pieces: tuple[str, ...]) -> Translation:
    """A translation whose attentions are all the same, [layers, heads, n, n]."""
    maps = AttentionMaps(weights, weights, weights)
    return Translation("", 0.0, attention=maps, source_pieces=pieces, target_pieces=pieces)


def test_statistics_of_heads_whose_habits_are_known() -> None:
    """Three heads: to itself, to the token before (the first to itself), and to all alike.

    Their entropy, words, distance, itself, previous, next and separators.
    """
    n = 4
    before = np.eye(n, k=-1)
    before[0, 0] = 1
    weights = np.stack([np.eye(n), before, np.full((n, n), 1 / n)])[None]
    found = statistics([translation_of(weights, ("\u2581a", "\u2581b", ",", "</s>"))])
    for kind in KINDS:
        itself, previous, alike = found[kind][0]
        assert itself == pytest.approx([0, 1, 0, 1, 0, 0, 1 / 2])
        assert previous == pytest.approx([0, 1, 3 / 4, 1 / 4, 1, 0, 1 / 4])
        # Distances from each of four places to each other: 6, 4, 4 and 6 in all.
        alike_everywhere = [np.log(4), 4, 20 / 16, 1 / 4, 1 / 4, 1 / 4, 1 / 2]
        assert alike == pytest.approx(alike_everywhere)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 9))
def test_statistics_are_means_over_tokens(lengths: list[int], seed: int) -> None:
    """Of all sentences at once, as of each weighted with its tokens."""
    rng = np.random.default_rng(seed)
    sentences = [
        translation_of(rng.dirichlet(np.ones(n), (2, 3, n)), ("\u2581a",) * n) for n in lengths
    ]
    found = statistics(sentences)["cross"]
    one_by_one = [statistics([s])["cross"] for s in sentences]
    for column, name in enumerate(STATISTICS):
        tokens = [n - (name in ("previous", "next")) for n in lengths]
        mean = sum(n * of[..., column] for n, of in zip(tokens, one_by_one, strict=True))
        assert found[..., column] * max(sum(tokens), 1) == pytest.approx(mean)
    assert (found[..., 1] >= np.exp(found[..., 0]) - 1e-12).all()  # Jensen's inequality


@pytest.mark.parametrize(
    ("piece", "is_one"),
    [(",", True), ("\u2581", True), ("</s>", True), ("\u2581<s>", True), ("\u2581a", False)],
)
def test_punctuation_begin_and_end_are_separators(piece: str, is_one: bool) -> None:
    assert is_separator(piece) is is_one


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_is_taken_away_adds_nothing(kind: str) -> None:
    """The output is that of a model whose head has no values: its columns of V are zero."""
    config = TransformerConfig.preset(
        "tiny", vocab_size=11, layers=2, d_model=12, d_ff=8, heads=3, d_k=2, d_v=5
    )
    model = Transformer(config, seed=1)
    batch = Batch.of([[3, 4, 5], [6]], [[7, 8], [9, 10, 3]], begin_id=1, end_id=2)
    whole = model.losses(batch)[1].copy()
    before = model.buffer.values.copy()
    with without(model, [Head(kind, 1, 2)]):
        masked = model.losses(batch)[1].copy()
    assert np.array_equal(model.buffer.values, before)
    assert masked != pytest.approx(whole)
    layer = {"encoder": model.encoder, "decoder": model.decoder}.get(kind, model.decoder).layers[1]
    projection = layer.cross_attention.kv if kind == "cross" else layer.attention.qkv
    projection.weight.value[:, -5:] = 0  # the third head's values are the last columns
    projection.bias.value[-5:] = 0
    assert model.losses(batch)[1] == pytest.approx(masked, rel=1e-6)


def test_heads_come_back_after_an_error() -> None:
    model = Transformer(
        TransformerConfig.preset("tiny", vocab_size=5, layers=1, d_model=4, d_ff=4, heads=2)
    )
    before = model.buffer.values.copy()
    with pytest.raises(KeyError), without(model, [Head("encoder", 0, 0), Head("cross", 0, 1)]):
        raise KeyError
    assert np.array_equal(model.buffer.values, before)


def test_the_two_heads_that_differ_most() -> None:
    left, right = np.eye(3), np.eye(3)[::-1]
    nearly = 0.9 * left + 0.1 * right
    first, second, apart = different_heads(np.stack([nearly, left, right]))
    assert (first, second) == (1, 2)
    assert apart == pytest.approx(2 / 3)  # the middle row is the same


SPLITS = generate(pairs=400, held_out=20, seed=0)


def seen(source: str, query: int, key: int) -> Translation:
    """A translation in whose second layer the first of two heads sees one word from another."""
    pieces = (*(f"\u2581{word}" for word in source.split()), "</s>")
    weights = np.full((2, 2, len(pieces), len(pieces)), 1 / len(pieces))
    weights[1, 0, query] = 0
    weights[1, 0, query, key] = 1
    return translation_of(weights, pieces)


@pytest.mark.parametrize(
    ("kind", "least", "choose"),
    [("verb", head_examples.FAR, far_example), ("antecedent", 1, reference_example)],
)
def test_examples_are_the_clearest_of_known_relations(kind, least, choose) -> None:
    sources = list(SPLITS.trees)
    relations = [
        (number, relation)
        for number, source in enumerate(sources)
        for relation in analyse(SPLITS.trees[source], "english").relations
        if relation.kind == kind and abs(relation.head - relation.dependent) >= least
    ]
    number, relation = relations[-1]
    translations = [
        seen(source, relation.dependent, relation.head) if i == number else seen(source, 0, 0)
        for i, source in enumerate(sources)
    ]
    example = choose(translations, sources, SPLITS, longest=99)
    assert example.translation is translations[number]
    assert (example.word, example.other) == (relation.dependent, relation.head)
    assert (example.layer, example.relation) == (1, kind)
    assert example.heads_that_see() == [0]
    assert choose(translations, sources, SPLITS, longest=1) is None


def test_without_a_grammar_the_word_that_looks_farthest_is_chosen() -> None:
    translations = [seen("a b c d e f", 0, 1), seen("a b c d e f", 5, 1)]
    example = far_example(translations, ["", ""], None, longest=99)
    assert example is not None
    assert (example.translation, example.word, example.other) == (translations[1], 5, 1)


def test_the_verdict_is_that_of_known_relations() -> None:
    """What attends far need not be right: without a relation, nothing is decided."""
    sees = head_examples.Example(seen("a b c d e", 0, 4), 0, 4, layer=1, relation="verb")
    blind = replace(sees, layer=0, other=3)
    unknown = replace(sees, relation="")
    assert _verdict(sees, sees, 4.0).startswith("Yes")
    assert _verdict(unknown, unknown, 4.0).startswith("Not decided")
    assert "no head sees what it should in Figure 3." in _verdict(blind, sees, 4.0)
    assert "no sentence has what Figure 4 shows." in _verdict(sees, None, 4.0)
    assert "see about as many words" in _verdict(sees, sees, 1.3)


def test_a_single_head_differs_from_no_other() -> None:
    example = head_examples.Example(
        translation_of(np.full((1, 1, 3, 3), 1 / 3), ("\u2581a", "\u2581b", "</s>")),
        0,
        1,
        0,
        "verb",
    )
    habits = {kind: np.ones((1, 1, len(STATISTICS))) for kind in KINDS}
    costs = {"all": 2.0, "without": {str(Head(kind, 0, 0)): 3.0 for kind in KINDS}}
    pruned = [{"heads": 3, "perplexity": 2.0, "bleu": 9.0}]
    made = page("a model", 1, habits, costs, pruned, None, example, None)
    assert not any("Figure 5" in section.heading for section in made.sections)
    assert "Figure 5" not in made.measured


def test_the_experiment_draws_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(EXPERIMENT.scales["toy"], steps=2)
    made = run(EXPERIMENT, settings, tmp_path / "out", lambda line: None, ["npformer"])
    result = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    cost = result["measured"]["each head pruned"]
    assert len(cost["without"]) == 36
    pruned = result["measured"]["heads pruned one by one"]
    assert [point["heads"] for point in pruned] == [*range(36, -1, -1)]
    assert pruned[0]["perplexity"] == cost["all"]
    assert pruned[1]["perplexity"] == min(cost["without"].values())
    assert "| encoder 1.1 |" in made
    for name in ("figures-3", "figures-4", "figures-4-all", "figures-5"):
        assert (tmp_path / "out" / f"{name}.png").is_file()
        assert f"({name}.svg)" in made

    # The same of a model of the user's own.
    (tmp_path / "text.en").write_text("The dog sleeps.\n\nIt barks.\n", encoding="utf-8")
    (tmp_path / "text.de").write_text("Der Hund schläft.\n\nEr bellt.\n", encoding="utf-8")
    model = tmp_path / "out" / "work" / "model" / "run"
    words = ["experiment", "figures", "--out", str(tmp_path / "own"), "--model", str(model)]
    words += ["--source", str(tmp_path / "text.en")]
    assert main(words) == 2
    assert main([*words, "--target", str(tmp_path / "text.de"), "--longest", "99"]) == 0
    own = (tmp_path / "own" / "figures.md").read_text(encoding="utf-8")
    assert "2 sentences" in own
    assert "## Figure 3: a word and a distant one\n" in own  # that it needs is not known
    assert "scaled down" in made
    assert "scaled down" not in own

    # What is translated in parts has no attention of its own.
    (tmp_path / "text.en").write_text("The dog sleeps. " * 100 + "\n", encoding="utf-8")
    (tmp_path / "text.de").write_text("Der Hund schläft.\n", encoding="utf-8")
    words[words.index("--out") + 1] = str(tmp_path / "long")
    capsys.readouterr()
    assert main([*words, "--target", str(tmp_path / "text.de")]) == 2
    assert "is translated in parts: 'The dog sleeps. " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--source", "s"], "belong to a --model"),
        (["--model", "m"], "needs --source and --target"),
        (["--model", "m", "--source", "s", "--target", "t"], "s: No such file"),
    ],
)
def test_what_does_not_go_together_is_refused(
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "figures", "--out", str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err
