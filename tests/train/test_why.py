"""Five claims about self-attention: what measures them, and the experiment."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import Sentences, Tensor
from npformer import Transformer, TransformerConfig
from npformer.attention_maps import AttentionMaps
from npformer.batch import Batch
from npformer.checkpoint import save_config, save_weights
from npformer.parts import Parts
from npformer.translation import Translation
from train.__main__ import main
from train.experiments.grammar_model import documents
from train.experiments.why import agreement, dependence, parallel, scale, sparsity, tracking
from train.experiments.why.recurrence import RECURRENT_PARTS, Recurrence
from train.grammar import Pair, analyse, generate

SPLITS = generate(pairs=400, held_out=40, seed=0)
SOURCES = list(SPLITS.trees)
CONFIG = TransformerConfig.preset("tiny", vocab_size=13, layers=2, d_model=8, d_ff=8, heads=2)


# Long-range dependence


def test_minimal_pairs_differ_in_the_number_of_one_verb() -> None:
    pairs = agreement.minimal_pairs(SOURCES, SPLITS)
    assert len(pairs) > 20
    for pair in pairs:
        right, wrong = pair.right.split(), pair.wrong.split()
        [place] = [i for i, (a, b) in enumerate(zip(right, wrong, strict=True)) if a != b]
        relations = analyse(SPLITS.trees[pair.source], "german").relations
        subjects = [r.dependent for r in relations if (r.kind, r.head) == ("subject", place)]
        assert [abs(place - subject) for subject in subjects] == [pair.distance]


def test_a_minimal_pair_is_correct_german() -> None:
    found = {pair.right: pair.wrong for pair in agreement.minimal_pairs(SOURCES, SPLITS)}
    changed = {
        tuple(word.strip(",.?") for word in both)
        for right, wrong in found.items()
        for both in zip(right.split(), wrong.split(), strict=True)
        if both[0] != both[1]
    }
    known = {("ist", "sind"), ("sind", "ist"), ("hat", "haben"), ("haben", "hat")}
    assert changed & known


def test_trees_are_as_they_were() -> None:
    before = [analyse(tree, "german").text for tree in SPLITS.trees.values()]
    agreement.minimal_pairs(SOURCES, SPLITS)
    assert [analyse(tree, "german").text for tree in SPLITS.trees.values()] == before


@pytest.mark.parametrize("parts", [Parts(), RECURRENT_PARTS])
def test_the_gradient_by_distance_is_that_of_finite_differences(parts: Parts) -> None:
    """The squared norms of all pairs at a distance, from differences of each input."""
    model = Transformer(CONFIG, seed=1, parts=parts)
    sentences = Sentences([4])
    x = model.source_embedding(np.array([3, 4, 5, 6]), sentences).value.astype(np.float64)
    batch = Batch.of([[3, 4, 5]], [[6]], begin_id=1, end_id=6)
    jacobian = np.zeros((4, 8, 4, 8))
    for j, column in np.ndindex(4, 8):
        for sign in (1, -1):
            moved = x.copy()
            moved[j, column] += sign * 1e-2
            y = model.encoder(Tensor(moved.astype(np.float32)), sentences).value
            jacobian[:, :, j, column] += sign * y / 2e-2
    # The mean norm of r·∂y/∂x over random r grows with the root of the mean square.
    squares = (jacobian**2).sum((1, 3))
    distance = abs(np.subtract.outer(range(4), range(4)))
    expected = [np.sqrt(squares[distance == d].mean()) for d in range(4)]
    found = dependence.gradient_by_distance(model, [batch] * 40, longest=3, draws=10)
    assert found[0] == 1
    assert found == pytest.approx([e / expected[0] for e in expected], rel=0.25)


def test_the_gradient_ends_with_the_longest_sentence() -> None:
    """Where no pair is so far apart, nothing was measured: that is not a gradient of 0."""
    model = Transformer(CONFIG, seed=1)
    batch = Batch.of([[3, 4, 5]], [[6]], begin_id=1, end_id=6)
    found = dependence.gradient_by_distance(model, [batch] * 20, longest=9, draws=5)
    assert len(found) == 4
    assert all(found)


def test_accuracies_of_distances_are_weighted_by_their_pairs() -> None:
    found = [(1, 10, 1.0), (2, 30, 0.5), (7, 2, 0.0)]
    assert dependence.accuracy_between(found, 1, 2) == pytest.approx((10 + 15) / 40)
    assert dependence.accuracy_between(found, 3, None) == 0
    assert math.isnan(dependence.accuracy_between(found, 8, None))
    assert dependence.pairs_between(found, 2, 7) == 32


@pytest.mark.parametrize(
    ("reach", "right", "verdict"),
    [(0.2, 0.99, "yes"), (0.2, 0.81, "in part"), (0.01, 0.99, "in part"), (0.01, 0.81, "no")],
)
def test_a_lead_in_agreement_counts_if_it_is_larger_than_its_error(
    reach: float, right: float, verdict: str
) -> None:
    """Against a recurrence with a gradient of 0.1 and an accuracy of 0.8, in 100 pairs."""
    found = dependence.finding(
        {
            "self-attention": of_model([1, reach], [(1, 9, 1.0), (6, 100, right)]),
            "recurrence": of_model([1, 0.1], [(1, 9, 1.0), (6, 100, 0.8)]),
        }
    )
    assert found.verdict == verdict


def of_model(gradient: list[float], agreement: list[tuple[int, int, float]]) -> dict[str, object]:
    """What `dependence.finding` knows of a model."""
    return {"gradient": gradient, "agreement": agreement, "perplexity": 1.25}


def test_a_gradient_that_is_hardly_larger_is_no_lead() -> None:
    near = [(1, 9, 1.0)]
    found = dependence.finding(
        {"self-attention": of_model([1, 0.101], near), "recurrence": of_model([1, 0.1], near)}
    )
    assert found.verdict == "no"
    assert "no verb is 5 words or more away" in found.measured  # and not right in nan%
    assert "nan" not in "".join(map(str, found.content))
    assert "1.250 with self-attention and 1.250 with recurrence" in str(found.content[0])


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_recurrence_is_that_of_each_sentence_in_both_directions(
    lengths: list[int], seed: int
) -> None:
    model = Transformer(CONFIG, seed=seed, parts=RECURRENT_PARTS)
    layer, causal = model.encoder.layers[0].attention, model.decoder.layers[0].attention
    assert isinstance(layer, Recurrence)
    assert isinstance(causal, Recurrence)
    sentences = Sentences(lengths)
    x = np.random.default_rng(seed).standard_normal((sum(lengths), 8)).astype(np.float32)

    def states(x: np.ndarray, direction) -> np.ndarray:
        h, found = np.zeros(8), []
        for row in x:
            read = row @ direction.weight.value + direction.bias.value
            h = np.tanh(read + h @ direction.recurrent_weight.value)
            found.append(h)
        return np.array(found).reshape(-1, 8)

    for i, (begin, end) in enumerate(zip(sentences.offsets, sentences.offsets[1:], strict=False)):
        assert lengths[i] == end - begin
        both = states(x[begin:end], layer.forwards)
        both = both + states(x[begin:end][::-1], layer.backwards)[::-1]
        y = layer(Tensor(x), sentences, None).value[begin:end]
        assert y == pytest.approx(
            both @ layer.output.weight.value + layer.output.bias.value, abs=1e-5
        )
        y = causal(Tensor(x), sentences, None).value[begin:end]
        one = states(x[begin:end], causal.forwards)
        assert y == pytest.approx(one @ causal.output.weight.value, abs=1e-5)


# Interpretability


def test_heads_are_counted_where_the_right_answer_is_known() -> None:
    """One head looks at the head of each word's relation, another at the next word."""
    translations = []
    for source in SOURCES:
        analysis = analyse(SPLITS.trees[source], "english")
        n = len(analysis.words)
        weights = np.full((1, 2, n + 1, n + 1), 0.1)
        for relation in analysis.relations:
            if relation.kind == "subject":
                weights[0, 0, relation.dependent, relation.head] = 0.9
        for i in range(n):
            weights[0, 1, i, i + 1] = 0.9
            weights[0, :, i, i] = 1.0  # the word itself does not count
        maps = AttentionMaps(weights, weights, weights)
        pieces = (*(f"\u2581{word}" for word in analysis.words), "</s>")
        translations.append(Translation("", 0.0, attention=maps, source_pieces=pieces))
    asked = tracking.questions(SOURCES, translations, SPLITS)
    found = {(t.kind, t.direction): t for t in tracking.tracked(asked, translations)}
    subject = found["subject", "to the head"]
    assert (subject.head, subject.accuracy) == ((0, 0), 1.0)
    assert subject.offset == 1
    adjective = found["adjective", "to the head"]
    assert (adjective.head, adjective.accuracy) == ((0, 1), adjective.accuracy_of_offset)
    counted = [q for q in asked["subject", "to the head"] if q.sentence % 2]
    assert subject.questions == len(counted)


@pytest.mark.parametrize(
    ("accuracies", "verdict", "measured"),
    [
        ((0.9, 0.5), "in part", "beats the best single offset in 1 of 2 tasks and loses in 1; the"),
        ((0.9, 0.7), "yes", "the widest lead is that of verb to the head, 90% against 70%"),
        ((0.5, 0.5), "no", "loses in 2; no lead is more than two standard errors"),
        ((0.75, 0.7), "no", "loses in 0; no lead is more than two standard errors"),
        ((), "not measured", "0 of 0"),
    ],
)
def test_heads_lead_or_not(accuracies: tuple[float, ...], verdict: str, measured: str) -> None:
    """In 100 questions each, against offsets that are right in 70 %."""
    found = tracking.finding(
        [
            {
                "kind": "verb",
                "direction": "to the head",
                "questions": 100,
                "head": (0, 1),
                "accuracy": accuracy,
                "offset": 1,
                "accuracy_of_offset": 0.7,
            }
            for accuracy in accuracies
        ]
    )
    assert found.verdict == verdict
    assert measured in found.measured


def test_a_word_may_have_several_right_answers() -> None:
    weights = np.zeros((1, 1, 3, 3))
    weights[0, 0, 0] = [0.9, 0.2, 0.8]
    maps = AttentionMaps(weights, weights, weights)
    translation = Translation("", 0.0, attention=maps)
    right = tracking._heads_right(tracking.Question(0, 0, (1, 2)), translation)
    assert right.tolist() == [[True]]
    assert not tracking._heads_right(tracking.Question(0, 0, (1,)), translation).any()


# Sparsity


def test_the_largest_weights_sum_to_one_again() -> None:
    weights = np.array([[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
    assert sparsity.largest(weights, 2) == pytest.approx(
        np.array([[0, 5 / 9, 4 / 9], [0.2, 0.2, 0.6]])  # of equal ones, all stay
    )
    assert sparsity.largest(weights, 3) is weights


def test_all_weights_give_the_quality_of_the_model(tmp_path: Path) -> None:
    from tests.npformer.test_translator import make_translator

    made = make_translator(layers=2)
    save_config(tmp_path, made.model.config)
    made.tokenizers.save(tmp_path)
    arrays = {name: p.value for name, p in made.model.parameters().items()}
    save_weights(tmp_path, arrays, made.model.config, made.tokenizers)
    batch = Batch.of([[5, 6, 7], [8]], [[9, 5], [6, 7, 8]], **made.tokenizers.control_ids)
    found = sparsity.quality(tmp_path, [batch], [1, 100])
    assert found["100"] == pytest.approx(found["all"], rel=1e-5)
    assert found["1"] != pytest.approx(found["all"], rel=1e-3)


def test_the_faster_way_computes_the_same() -> None:
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 9, 4))
    assert sparsity._few(q, k, v, 9) == pytest.approx(sparsity._all(q, k, v))
    scores = q @ k.transpose(0, 2, 1) / 2
    weights = sparsity.largest(sparsity._softmax(scores), 3)
    assert sparsity._few(q, k, v, 3) == pytest.approx(weights @ v)
    assert set(sparsity.cost(8, [2, 8])) == {"all", "2"}


def test_nothing_pays_that_was_not_timed() -> None:
    effective = {"heads": {"encoder": [[2.0]]}, "alike": {"encoder": 10.0}}
    # A sentence of two words has no other way.
    found = sparsity.finding(effective, {"all": 2.0, "2": 2.0}, {2: {"all": 8.0}})
    assert (found.verdict, found.measured[-26:]) == ("in part", "keep perplexity within 5 %")
    assert "no k that was" in sparsity.finding(effective, {"all": 2.0}, {2: {"all": 8.0}}).measured


def test_words_of_weights_that_are_alike() -> None:
    assert sparsity.alike([2, 4], [2, 4], causal=True) == pytest.approx((1 + 2 + 1 + 2 + 3 + 4) / 6)
    assert sparsity.alike([2, 4], [3, 5], causal=False) == pytest.approx((2 * 3 + 4 * 5) / 6)


# Scale


def test_documents_are_sentences_one_after_another() -> None:
    pairs = [Pair(f"s{i}", f"t{i}") for i in range(5)]
    assert documents(pairs, 2) == [Pair("s0 s1", "t0 t1"), Pair("s2 s3", "t2 t3")]
    assert documents(pairs, 1) == pairs


@pytest.mark.parametrize(
    ("bleu", "verdict"),
    [
        ((90, 88, 85), "yes"),
        ((90, 88, 20), "in part"),
        ((90, 60, 20), "in part"),
        ((90, 20, 20), "no"),
        ((0, 0, 0), "not measured"),
    ],
)
def test_quality_lasts_or_not(bleu: tuple[int, ...], verdict: str) -> None:
    curve = [
        {"sentences": n, "tokens": 10 * n, "bleu": b, "perplexity": 1.0}
        for n, b in zip((1, 2, 4), bleu, strict=True)
    ]
    found = scale.finding({"up to 2": curve}, {"up to 2": 2})
    assert found.verdict == verdict
    single = [{**point, "bleu": 1.5} for point in curve]
    found = scale.finding({"sentences": single, "up to 2": curve}, {"sentences": 1, "up to 2": 2})
    assert found.verdict == verdict
    assert "nan" not in found.measured
    assert ("on sentences has BLEU 1.5 at 2, where this one" in found.measured) is any(bleu)


def test_only_what_was_translated_is_said_of_longer_documents() -> None:
    curve = [
        {"sentences": n, "tokens": 10 * n, "bleu": b, "perplexity": 1.0}
        for n, b in ((1, 90), (2, 88), (4, 85))
    ]
    found = scale.finding({"up to 4": curve}, {"up to 4": 4})
    assert found.measured.endswith("94% of its BLEU at 4; longer documents were not translated")
    assert found.verdict == "in part"
    # The longest that it has seen may not have been translated.
    assert "98% of its BLEU at 2, and 94% at 4" in (
        scale.finding({"up to 3": curve}, {"up to 3": 3}).measured
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sizes", "2", "4"], "--sizes must begin with 1"),
        (["--sizes", "1", "4", "2"], "--sizes must be numbers that rise"),
        (["--sizes", "1", "11"], "documents of 11 sentences, and --sentences is 10"),
        (["--largest", "0", "1"], "--largest must be numbers that rise, 1 at least; it is 0 1"),
        (["--lengths", "0"], "--lengths must be numbers that rise"),
        (["--distance", "0"], "--distance must be at least 1"),
        (["--together", "1"], "--together must be at least 2"),
        (["--sizes", "1", "6"], "of --pairs 400 only 5 are for the test"),
        (["--sizes", "1", "4"], "--sizes must have documents of at most --together 2 sentences"),
        (["--pairs", "399"], "--pairs must be at least 400"),
    ],
)
def test_sizes_that_show_nothing_are_refused_before_training(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment", "why", "--scale", "toy", "--out", str(tmp_path / "out"), *flags]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_the_experiment_says_of_each_claim_whether_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_TIMED", 0)
    assert main(["experiment", "why", "--scale", "toy", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "why.md").read_text(encoding="utf-8")
    assert "| 4 steps of at most 512 tokens, one seed |" in text
    for heading in ("Parallel computation", "Long-range dependence", "Interpretability"):
        assert f"## {heading}\n" in text
    measured = json.loads((tmp_path / "out" / "why.json").read_text(encoding="utf-8"))["measured"]
    chain = measured["parallel computation, n = 16"]
    assert chain["recurrence"]["steps"] >= 16 > chain["self-attention"]["steps"]
    costs = [chain[name]["forward"] + chain[name]["backward"] for name in chain if name != "width"]
    assert costs[0] == pytest.approx(costs[1], rel=0.02)


@pytest.mark.parametrize(
    ("words", "times", "holds"),
    [
        (2.0, (0.5, 0.5), "yes"),
        (2.0, (0.5, 1.5), "in part"),  # it pays at one length alone
        (9.0, (0.5, 0.5), "in part"),  # and not because few words are attended to
        (2.0, (1.5, 1.5), "in part"),
        (9.0, (1.5, 1.5), "no"),
    ],
)
def test_sparsity_holds_if_few_words_count_and_it_pays_at_every_length(
    words: float, times: tuple[float, float], holds: str
) -> None:
    kinds = ("encoder", "decoder", "cross")
    effective = {
        "heads": {kind: [[words, words]] for kind in kinds},
        "alike": dict.fromkeys(kinds, 10.0),
    }
    perplexity = {"all": 2.0, "1": 9.0, "4": 2.01}
    costs = {n: {"all": 1.0, "1": 9.0, "4": time} for n, time in zip((16, 64), times, strict=True)}
    assert sparsity.finding(effective, perplexity, costs).verdict == holds
