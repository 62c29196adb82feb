"""Brackets are scored by EVALB's rules with COLLINS.prm: cases worked out by hand."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.parsing.evalb import Brackets, ParseScore, score, total
from train.parsing.trees import TOP, Leaf, Node, Tree, read_trees


def tree(text: str) -> Node:
    [found] = read_trees([text], "text")
    return found


GOLD = "(S (A (P this)) (B (Q is) (A (R a) (T test))))"

# The gold tree, the parser's, and what comes out: matched, gold, predicted; None is an error.
CASES = {
    # S 0-4, A 0-1, B 1-4 and A 2-4.
    "the same tree": (GOLD, GOLD, (4, 4, 4)),
    # A 2-4 became C 2-4.
    "another label": (GOLD, "(S (A (P this)) (B (Q is) (C (R a) (T test))))", (3, 4, 4)),
    "another tag does not count": (
        GOLD,
        "(S (A (P this)) (B (Q is) (A (R a) (U test))))",
        (4, 4, 4),
    ),
    # S 0-4 and A 0-1 are left; B 1-3 is wrong and A 3-4 too.
    "another span": (GOLD, "(S (A (P this)) (B (Q is) (R a)) (A (T test)))", (2, 4, 4)),
    # Only S.
    "a flat tree": (GOLD, "(S (P this) (Q is) (R a) (T test))", (1, 4, 1)),
    # The tree without a root of its own: the top is no bracket.
    "no bracket at all": (GOLD, "(TOP (P this) (Q is) (R a) (T test))", (0, 4, 0)),
    # A 2-4 twice matches once: the gold tree has one.
    "a bracket too often": (GOLD, "(S (A (P this)) (B (Q is) (A (A (R a) (T test)))))", (4, 4, 5)),
    # The other way round: two in the gold tree, one found.
    "a bracket too seldom": ("(S (A (A (P this))) (Q is))", "(S (A (P this)) (Q is))", (2, 3, 2)),
    # Three against two: two match.
    "as often as in both": (
        "(S (A (A (A (P this)))) (Q is))",
        "(S (A (A (P this))) (Q is))",
        (3, 4, 3),
    ),
    # TOP, ROOT and nothing are all the top.
    "tops are left out": (f"(TOP {GOLD})", f"( {GOLD})", (4, 4, 4)),
    # A TOP within is left out as well: 4 brackets stay.
    "a top within is left out": (
        GOLD,
        "(S (A (P this)) (TOP (B (Q is) (A (R a) (T test)))))",
        (4, 4, 4),
    ),
    "functions do not count": (
        "(S-IMP (NP-SBJ-1 (P this)) (VP=2 (Q is)))",
        "(S (NP (P this)) (VP-XYZ (Q is)))",
        (3, 3, 3),
    ),
    "particles are adverbs": (
        "(S (V pick) (PRT (R up)) (ADVP (R soon)))",
        "(S (V pick) (ADVP (R up)) (PRT (R soon)))",
        (3, 3, 3),
    ),
    # Both have ADVP 1-2 twice, under other names.
    "particles and adverbs are counted together": (
        "(S (V pick) (PRT (ADVP (R up))))",
        "(S (V pick) (ADVP (ADVP (R up))))",
        (3, 3, 3),
    ),
    # Without the comma and the stop the spans are S 0-3, NP 0-1, VP 1-3 in both.
    "where punctuation hangs does not count": (
        "(S (NP (N dogs)) (, ,) (VP (V bark) (R now)) (. .))",
        "(S (NP (N dogs) (, ,)) (VP (V bark) (R now) (. .)))",
        (3, 3, 3),
    ),
    "all marks of punctuation are left out": (
        "(S (`` “) (NP (N dogs)) ('' ”) (: ;) (, ,) (. .))",
        "(S (NP (`` “) (N dogs) ('' ”) (: ;) (, ,) (. .)))",
        (2, 2, 2),
    ),
    # -LRB- is no punctuation here: NP 0-3 is not NP 1-2.
    "brackets are words": (
        "(S (-LRB- -LRB-) (NP (N dogs)) (-RRB- -RRB-))",
        "(S (NP (-LRB- -LRB-) (N dogs) (-RRB- -RRB-)))",
        (1, 2, 2),
    ),
    # PRN has nothing but a comma, and is no bracket.
    "constituents of punctuation alone are left out": (
        "(S (NP (N dogs)) (PRN (, ,)) (VP (V bark)))",
        "(S (NP (N dogs)) (, ,) (VP (V bark)))",
        (3, 3, 3),
    ),
    "traces are left out, and what has nothing else": (
        "(S (NP-1 (N dogs)) (VP (V bark) (SBAR (-NONE- 0) (S (-NONE- *T*-1)))))",
        "(S (NP (N dogs)) (VP (V bark)))",
        (3, 3, 3),
    ),
    # A comma that is tagged as a noun is a word more: no bracket of the parser's counts.
    "a comma with the tag of a word": (
        "(S (NP (N dogs)) (, ,) (VP (V bark)))",
        "(S (NP (N dogs)) (N ,) (VP (V bark)))",
        None,
    ),
    "a word with the tag of a comma": (
        "(S (NP (N dogs)) (VP (V bark)))",
        "(S (NP (, dogs)) (VP (V bark)))",
        None,
    ),
    "another word": (GOLD, "(S (A (P that)) (B (Q is) (A (R a) (T test))))", None),
    "a word less": (GOLD, "(S (A (P this)) (B (Q is) (A (R a))))", None),
    # Nothing to find, and nothing found.
    "punctuation alone": ("(S (NP (. .)))", "(X (. .))", (0, 0, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_brackets_match(case: str) -> None:
    gold, predicted, counts = CASES[case]
    found = score(tree(gold), tree(predicted))
    if counts is None:
        assert (found.matched, found.predicted, found.errors, found.exact) == (0, 0, 1, 0)
        assert found.gold == score(tree(gold), tree(gold)).gold
    else:
        assert (found.matched, found.gold, found.predicted) == counts
        assert found.errors == 0
        assert found.exact == (counts[0] == counts[1] == counts[2])


def test_sums_are_of_all_sentences() -> None:
    """A sentence without a parse, and one that is an error, lose the gold tree's brackets."""
    gold = [tree(GOLD)] * 4
    flat = tree("(S (P this) (Q is) (R a) (T test))")
    wrong = tree("(S (P this))")
    found = total(map(score, gold, [tree(GOLD), flat, None, wrong]))
    assert found == ParseScore(sentences=4, matched=5, gold=16, predicted=5, exact=1, errors=2)
    assert found.precision == 100
    assert found.recall == pytest.approx(100 * 5 / 16)
    assert found.f1 == pytest.approx(2 * 5 / (16 + 5) * 100)


def test_nothing_found_is_a_score_of_nothing() -> None:
    found = score(tree(GOLD), None)
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)


def test_the_treebanks_tags_may_take_the_place_of_the_parsers() -> None:
    gold = tree("(S (NP (N dogs)) (, ,) (VP (V bark)))")
    mistaken = tree("(S (NP (N dogs) (N ,)) (VP (, bark)))")
    assert score(gold, mistaken).errors == 1
    assert score(gold, mistaken, ["N", ",", "V"]) == score(gold, gold)


_LABELS = st.sampled_from(["S", "NP", "VP-X", "ADVP", "PRT", TOP, "-NONE-", ","])
_LEAVES = st.builds(
    Leaf, st.sampled_from(["NN", ",", ".", "-NONE-", "-LRB-"]), st.sampled_from("abc")
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.builds(Node, _LABELS, st.lists(inner, min_size=1, max_size=4).map(tuple)),
).filter(lambda t: isinstance(t, Node))


@given(_TREES)
def test_a_tree_is_right_if_it_is_the_treebanks(made: Node) -> None:
    found = score(made, made)
    assert found.matched == found.gold == found.predicted
    assert (found.exact, found.errors) == (1, 0)


@given(_TREES, st.randoms(use_true_random=False))
def test_precision_is_recall_the_other_way_round(made: Node, rng: random.Random) -> None:
    other = changed(made, rng)
    found, back = score(made, other), score(other, made)
    assert found.errors == back.errors == 0
    assert (found.matched, found.gold, found.predicted) == (
        back.matched,
        back.predicted,
        back.gold,
    )
    assert found.matched <= min(found.gold, found.predicted)


@given(_TREES)
def test_spans_are_as_a_simple_recursion_finds_them(made: Node) -> None:
    found: Counter[tuple[str, int, int]] = Counter()

    def walk(of: Tree, begin: int) -> int:
        if isinstance(of, Leaf):
            return begin + (of.tag not in (",", ".", "-NONE-"))
        end = begin
        for child in of.children:
            end = walk(child, end)
        label = {"VP-X": "VP", "PRT": "ADVP", "-NONE-": ""}.get(of.label, of.label)
        if end > begin and label not in (TOP, ","):
            found[label, begin, end] += 1
        return end

    walk(made, 0)
    assert Brackets.of(made).brackets == found


def changed(of: Node, rng: random.Random) -> Node:
    """Another tree over the same leaves."""

    def walk(of: Tree) -> list[Tree]:
        if isinstance(of, Leaf):
            return [of]
        children = tuple(new for child in of.children for new in walk(child))
        kind = rng.random()
        if kind < 0.3:
            return list(children)
        label = rng.choice(["S", "NP", "ADVP"]) if kind < 0.6 else of.label
        return [Node(label, children)]

    return Node(TOP, tuple(walk(of)))


def test_punctuation_alone_without_a_parse_is_not_exact() -> None:
    gold = tree("(S (. !))")
    assert score(gold, gold).exact == 1
    assert score(gold, None).exact == 0
