"""A grammar is read off trees, and the best tree by it is found: cases worked out by hand."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.parsing.binarised import Binary, Markovisation, Pair, Symbol, Word, unbinarised
from train.parsing.linearised import Known
from train.parsing.pcfg import Pcfg
from train.parsing.right_branching import RightBranching
from train.parsing.trees import TOP, Leaf, Node, Tree, bracketed, leaves, read_trees, words
from train.parsing.unknown_words import Tagger


def trees(*texts: str) -> list[Node]:
    return list(read_trees(texts, "text"))


# Binary trees


def test_chains_of_single_children_become_one_symbol() -> None:
    [tree] = trees("(S (VP (NP (NN a))))")
    assert Markovisation(2, 1).binarised(tree) == Word(
        Symbol((TOP, "S", "VP", "NP", "NN"), ""), "a"
    )


def test_constituents_are_divided_from_the_left() -> None:
    [tree] = trees("(NP (DT the) (JJ big) (JJ red) (NN dog))")
    found = Markovisation(1, 1).binarised(tree)
    chain = (TOP, "NP")
    assert isinstance(found, Pair)
    assert found.symbol == Symbol(chain, "")
    assert isinstance(found.right, Pair)
    assert found.right.symbol == Symbol(chain, "", ("DT",))
    assert isinstance(found.right.right, Pair)
    assert found.right.right.symbol == Symbol(chain, "", ("JJ",))


def test_symbols_remember_the_label_above_and_siblings_before() -> None:
    [tree] = trees("(S (NP (DT the) (JJ big) (JJ red) (NN dog)) (VP (VB bark)))")
    found = Markovisation(2, 2).binarised(tree)
    assert isinstance(found, Pair)
    assert isinstance(found.left, Pair)
    assert found.left.symbol == Symbol(("NP",), "S")
    assert isinstance(found.left.right, Pair)
    assert isinstance(found.left.right.right, Pair)
    assert found.left.right.right.symbol == Symbol(("NP",), "S", ("DT", "JJ"))
    assert found.right == Word(Symbol(("VP", "VB"), "S"), "bark")


_LEAVES = st.builds(Leaf, st.sampled_from(["N", "V", "X"]), st.sampled_from("abc"))
_TREES: st.SearchStrategy[Tree] = st.recursive(
    _LEAVES,
    lambda inner: st.builds(
        Node, st.sampled_from(["N", "S", "P"]), st.lists(inner, min_size=1, max_size=5).map(tuple)
    ),
)
_ROOTED = st.lists(_TREES, min_size=1, max_size=3).map(lambda of: Node(TOP, tuple(of)))


@given(_ROOTED, st.integers(1, 2), st.integers(0, 3))
def test_a_tree_comes_back_from_its_binary_form(tree: Node, vertical: int, horizontal: int) -> None:
    assert unbinarised(Markovisation(vertical, horizontal).binarised(tree)) == [tree]


# Words


def test_a_word_has_the_tags_that_it_had() -> None:
    tagger = Tagger([Leaf("N", "dog")] * 30 + [Leaf("V", "dog")] * 10 + [Leaf("V", "bark")] * 40)
    dog = dict(zip(tagger.tags, tagger.log_p("dog"), strict=True))
    # P(tag | word) / P(tag) is 3/4 over 3/8, and 1/4 over 5/8, but for the prior.
    assert dog["N"] - dog["V"] == pytest.approx(math.log(2 / 0.4), abs=0.1)


def test_an_unknown_word_has_the_tags_of_its_ending() -> None:
    known = [Leaf("V", f"{w}ing") for w in ("walk", "talk", "bark")]
    known += [Leaf("N", f"{w}ness") for w in ("cold", "dark", "glad")] + [
        Leaf("D", "3"),
        Leaf("D", "5"),
    ]
    tagger = Tagger(known)
    best = [tagger.tags[int(np.argmax(tagger.log_p(w)))] for w in ("jumping", "sadness", "7")]
    assert best == ["V", "N", "D"]


# Grammars

ATTACHED = trees(
    "(S (N I) (VP (V see) (NP (N men) (PP (P with) (N dogs)))))",
    "(S (N I) (VP (VP (V see) (N men)) (PP (P with) (N glasses))))",
    "(S (N I) (VP (VP (V see) (N men)) (PP (P with) (N glasses))))",
)


def test_the_more_frequent_structure_wins() -> None:
    grammar = Pcfg(ATTACHED, Markovisation(1, 1))
    # VP → VP PP and VP → V N have 2/5 each, so together 4/25; VP → V NP has 1/5, NP → N PP all.
    assert (
        grammar.parse(["I", "see", "men", "with", "dogs"])
        == trees("(S (N I) (VP (V see) (NP (N men) (PP (P with) (N dogs)))))")[0]
    )
    # With one more of the second kind, they have 3/7 each, so together 9/49; VP → V NP has 1/7.
    other = Pcfg([*ATTACHED, ATTACHED[1]], Markovisation(1, 1))
    assert (
        other.parse(["I", "see", "men", "with", "dogs"])
        == trees("(S (N I) (VP (VP (V see) (N men)) (PP (P with) (N dogs))))")[0]
    )


def test_a_sentence_that_the_grammar_lacks_has_no_tree() -> None:
    grammar = Pcfg(ATTACHED, Markovisation(1, 1))
    assert grammar.parse(["I", "see"]) is None
    assert grammar.parse(["I"]) is None


def test_new_sentences_have_trees_over_their_words() -> None:
    grammar = Pcfg(ATTACHED, Markovisation(1, 1))
    found = grammar.parse(["We", "hear", "cats", "with", "ears", "with", "hair"])
    assert found is not None
    assert words(found) == ["We", "hear", "cats", "with", "ears", "with", "hair"]


@given(st.lists(_ROOTED, min_size=1, max_size=5), st.integers(1, 2), st.data())
def test_the_best_tree_is_the_best_of_all(
    bank: list[Node], vertical: int, data: st.DataObject
) -> None:
    markovisation = Markovisation(vertical, 1)
    sentence = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6))
    simple = SimpleGrammar(bank, markovisation)
    best = simple.best(sentence)
    found = Pcfg(bank, markovisation).parse(sentence)
    if found is None:
        assert best == -math.inf
    else:
        assert words(found) == sentence
        binary = markovisation.binarised(found)
        assert simple.roots[binary.symbol] + simple.log_p(binary) == pytest.approx(best, abs=1e-3)


class SimpleGrammar:
    """A grammar in dictionaries, and the best score by recursion."""

    def __init__(self, bank: list[Node], markovisation: Markovisation) -> None:
        binary = [markovisation.binarised(tree) for tree in bank]
        nodes = [node for tree in binary for node in all_nodes(tree)]
        of = Counter(node.symbol for node in nodes)
        rules = Counter(rule(node) for node in nodes)
        self.rules = {r: math.log(count / of[r[0]]) for r, count in rules.items()}
        roots = Counter(tree.symbol for tree in binary)
        self.roots = {symbol: math.log(n / len(bank)) for symbol, n in roots.items()}
        self.symbols = set(of)
        self.tagger = Tagger(leaf for tree in bank for leaf in leaves(tree))

    def of_word(self, symbol: Symbol, word: str) -> float:
        tag = self.tagger.tags.index(symbol.labels[-1])
        return self.rules[(symbol,)] + float(self.tagger.log_p(word)[tag])

    def log_p(self, tree: Binary) -> float:
        if isinstance(tree, Word):
            return self.of_word(tree.symbol, tree.word)
        return self.rules[rule(tree)] + self.log_p(tree.left) + self.log_p(tree.right)

    def best(self, sentence: list[str]) -> float:
        @cache
        def best(symbol: Symbol, begin: int, end: int) -> float:
            if end - begin == 1:
                has = (symbol,) in self.rules
                return self.of_word(symbol, sentence[begin]) if has else -math.inf
            return max(
                (
                    log_p + best(r[1], begin, middle) + best(r[2], middle, end)
                    for r, log_p in self.rules.items()
                    if len(r) == 3 and r[0] == symbol
                    for middle in range(begin + 1, end)
                ),
                default=-math.inf,
            )

        return max(p + best(symbol, 0, len(sentence)) for symbol, p in self.roots.items())


def rule(node: Binary) -> tuple[Symbol, ...]:
    if isinstance(node, Word):
        return (node.symbol,)
    return node.symbol, node.left.symbol, node.right.symbol


def all_nodes(tree: Binary) -> list[Binary]:
    if isinstance(tree, Word):
        return [tree]
    return [tree, *all_nodes(tree.left), *all_nodes(tree.right)]


# Right-branching trees


def test_right_branching_trees_have_the_most_frequent_labels_of_ends() -> None:
    bank = trees(
        "(S (NP (N I)) (VP (V see) (NP (D a) (N dog))) (. .))", "(S (N I) (VP (V am) (A so)))"
    )
    straight = RightBranching(bank, Known.of(bank))
    found = straight.parse(["I", "see", "a", "dog", "."])
    assert bracketed(found) == "(TOP (S (N I) (VP (V see) (VP (D a) (N dog))) (. .)))"
    assert bracketed(straight.parse(["."])) == "(TOP (S (. .)))"
    assert words(straight.parse(["dog"] * 2000)) == ["dog"] * 2000
