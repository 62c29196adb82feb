"""Treebanks are read, cleaned, written as lines of symbols, and repaired from any such line."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer.errors import UserError
from train.parsing.alignment import aligned
from train.parsing.cleaning import cleaned
from train.parsing.linearised import Known, linearised, repaired
from train.parsing.source_words import SourceWords
from train.parsing.symbols import symbol_tokenizer
from train.parsing.translation import is_whole
from train.parsing.treebank import read_sections, read_treebank
from train.parsing.trees import TOP, Leaf, Node, Tree, bracketed, leaves, read_trees, words


def tree(text: str) -> Node:
    [found] = read_trees([text], "text")
    return found


DOGS = "(TOP (S (NP (DT The) (NNS dogs)) (VP (VBP bark)) (. .)))"


# Reading


@pytest.mark.parametrize(
    "text",
    [
        DOGS,
        "( (S (NP (DT The) (NNS dogs)) (VP (VBP bark)) (. .)))",
        "((S(NP(DT The)(NNS dogs))(VP(VBP bark))(. .)))",
        "(ROOT (S (NP (DT The) (NNS dogs)) (VP (VBP bark)) (. .)))",
        "(S1\n (S\t(NP (DT The) (NNS dogs))\n\n (VP (VBP bark)) (. .)))",
        "(S (NP (DT The) (NNS dogs)) (VP (VBP bark)) (. .))",
        "(\nS (NP (\nDT The) (NNS\ndogs)) (VP (VBP bark)) (. .))",
    ],
)
def test_a_tree_is_read_in_every_form(text: str) -> None:
    [found] = read_trees(text.split("\n"), "text")
    assert bracketed(found) == DOGS
    assert words(found) == ["The", "dogs", "bark", "."]


def test_several_trees_may_share_a_line() -> None:
    found = list(read_trees([f"{DOGS} {DOGS}", "", DOGS], "text"))
    assert [bracketed(one) for one in found] == [DOGS] * 3


def test_the_parts_of_a_word_with_spaces_are_joined() -> None:
    assert leaves(tree("(NP (NN Xpd TTD))")) == [Leaf("NN", "Xpd_TTD")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([DOGS, "(S (NP (N a))"], r"x.mrg, line 2: the tree that begins here lacks 1 closing"),
        (["(S (NP", "(N a)", ""], r"line 1: the tree that begins here lacks 2 closing brackets"),
        (["(S (N a)))"], r"line 1: a bracket closes outside of every tree"),
        ([DOGS, "dogs (S (N a))"], r"line 2: 'dogs' stands outside of every tree"),
        (["(S (N a) b)"], r"line 1: the bracket \(S that closes here must have either one word"),
        (["(S (NP) (N a))"], r"line 1: the bracket \(NP that closes here must have either"),
        (["()"], r"line 1: the bracket \( that closes here must have"),
        (["(N a)"], r"line 1: the word 'a' belongs to no tree"),
        (["(S " * 300], r"line 1: more than 200 brackets are open"),
    ],
)
def test_what_is_no_tree_is_refused_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_trees(lines, "x.mrg"))


def test_a_treebank_is_a_file_or_a_folder(tmp_path: Path) -> None:
    section = tmp_path / "wsj" / "02"
    section.mkdir(parents=True)
    (section / "wsj_0202.mrg").write_text(f"\n{DOGS}\n\n".replace(" (VP", "\n  (VP"))
    (section / "wsj_0201.mrg").write_text("( (S (NP (NN One))))\n")
    (section / ".hidden").write_text(")")
    assert [words(t)[0] for t in read_treebank(tmp_path)] == ["One", "The"]
    assert len(read_treebank(section / "wsj_0201.mrg")) == 1
    assert len(read_sections(tmp_path / "wsj", 2, 2)) == 2
    with pytest.raises(UserError, match=r"has no section 03; give the folder"):
        read_sections(tmp_path / "wsj", 2, 3)
    (section / "wsj_0203.mrg").write_text("\n(S (NP\n")
    with pytest.raises(UserError, match=r"wsj_0203.mrg, line 2: the tree that begins here"):
        read_treebank(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        read_treebank(tmp_path / "nothing")


def test_a_treebank_without_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traces.mrg"
    path.write_text("(S (NP (-NONE- *)))\n")
    with pytest.raises(UserError, match="holds no trees"):
        read_treebank(path)


# Cleaning


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        # Functions and indices
        ("(S-IMP (NP-SBJ-1 (NN a)) (VP=2 (VB b)))", "(S (NP (NN a)) (VP (VB b)))"),
        # Traces, and what has nothing else
        ("(S (NP (NN a)) (SBAR (-NONE- 0) (S (NP (-NONE- *T*-1)))))", "(S (NP (NN a)))"),
        # Tags stay as they are
        ("(PRN (-LRB- -LRB-) (NN a) (-RRB- -RRB-))", "(PRN (-LRB- -LRB-) (NN a) (-RRB- -RRB-))"),
        # The parts of a document, at the top alone
        ("(HEADING (NP (NN a)))", "(NP (NN a))"),
        ("(CAPTION (NP (NN a)) (. .))", "(NP (NN a)) (. .)"),
        ("(TITLE (NN a))", "(NN a)"),
        ("(S (CIT (NN a)) (VP (VB b)))", "(S (CIT (NN a)) (VP (VB b)))"),
    ],
)
def test_trees_are_cleaned(given: str, wanted: str) -> None:
    found = cleaned(tree(f"({given})"))
    assert found is not None
    assert bracketed(found) == f"(TOP {wanted})"


def test_a_tree_of_traces_is_none() -> None:
    assert cleaned(tree("(S (NP (-NONE- *)))")) is None


# Lines of symbols

TREES = [
    tree(text)
    for text in (
        DOGS,
        "(S (NP (PRP It)) (VP (VBZ is) (NP (NP (DT a) (NN dog)) (, ,) (ADVP (RB too)))) (. .))",
        "(NP (NP (NN rain)))",
        "(S (NP (DT The) (NN rain)) (VP (VBZ is) (PP (IN in) (NP (DT the) (NN dog)))))",
    )
]
KNOWN = Known.of(TREES)


def test_a_tree_is_a_line_of_symbols() -> None:
    assert " ".join(linearised(TREES[0])) == "(S (NP DT NNS )NP (VP VBP )VP . )S"


@pytest.mark.parametrize("index", range(len(TREES)))
def test_a_tree_comes_back_from_its_symbols(index: int) -> None:
    symbols = linearised(TREES[index])
    assert repaired(words(TREES[index]), symbols, KNOWN) == TREES[index]
    assert is_whole(symbols, len(words(TREES[index])))


@pytest.mark.parametrize(
    ("symbols", "wanted"),
    [
        # An open bracket is closed at the end.
        ("(S (NP DT NN )NP (VP VBZ", "(S (NP (DT a) (NN dog)) (VP (VBZ is)))"),
        # One that was not opened is ignored.
        ("(S (NP DT NN )NP )PP (VP VBZ )VP )S )S", "(S (NP (DT a) (NN dog)) (VP (VBZ is)))"),
        # Closing the S closes the VP within it.
        ("(S (NP DT NN )NP (VP VBZ )S", "(S (NP (DT a) (NN dog)) (VP (VBZ is)))"),
        # A tag too many is ignored, and a constituent without words is left out.
        (
            "(S (NP DT NN )NP (VP VBZ )VP (ADVP RB )ADVP )S",
            "(S (NP (DT a) (NN dog)) (VP (VBZ is)))",
        ),
        # A word without a tag stands beside the word before it.
        ("(S (NP DT NN )NP )S", "(S (NP (DT a) (NN dog) (VBZ is)))"),
        # The tags that there are fit other words better than the first ones.
        ("(S (NP DT )NP (VP VBZ )VP )S", "(S (NP (DT a) (NN dog)) (VP (VBZ is)))"),
        ("(S (NP NN )NP (VP VBZ )VP )S", "(S (NP (DT a) (NN dog)) (VP (VBZ is)))"),
        (
            "(S (ADVP RB )ADVP (NP DT NN )NP (VP VBZ )VP )S",
            "(S (NP (DT a) (NN dog)) (VP (VBZ is)))",
        ),
        ("", "(DT a) (NN dog) (VBZ is)"),
        # Unknown labels and symbols are ignored, and so is what is within no brackets.
        ("(XP (NP DT FOO NN )NP ⁇ (VP VBZ )VP )XP", "(NP (DT a) (NN dog)) (VP (VBZ is))"),
        ("( ) (S ) DT NN VBZ )S", "(S (DT a) (NN dog) (VBZ is))"),
        # The words are known, and have no such tags.
        ("(S (NP , . )NP (VP NN )VP )S", "(S (NP (DT a) (NN dog)) (VP (VBZ is)))"),
    ],
)
def test_brackets_are_repaired(symbols: str, wanted: str) -> None:
    sentence = ["a", "dog", "is"]
    assert bracketed(repaired(sentence, symbols.split(), KNOWN)) == f"(TOP {wanted})"
    assert not is_whole(symbols.split(), 3) or "," in symbols


def test_a_constituent_without_words_needs_repair() -> None:
    assert is_whole(["(S", "(NP", "NNS", ")NP", ")S"], 1)
    assert not is_whole(["(S", "(NP", "NNS", ")NP", "(VP", ")VP", ")S"], 1)
    assert not is_whole(["(S", "(VP", "(NP", ")NP", "NNS", ")VP", ")S"], 1)


def test_a_new_word_has_the_tag_that_was_written_but_no_mark_of_punctuation() -> None:
    found = repaired(["cats", "purr", "–"], ["NNS", "VBP", ","], KNOWN)
    # NN is the commonest tag of words that occur once.
    assert [leaf.tag for leaf in leaves(found)] == ["NNS", "VBP", KNOWN.tag("–")]
    assert KNOWN.tag("–") not in (",", ".")


_SYMBOLS = st.lists(
    st.sampled_from([s for t in TREES for s in linearised(t)] + ["(", ")", "(X", "⁇", "((", "(N)P"])
    | st.text(max_size=3),
    max_size=60,
)


@given(st.lists(st.sampled_from(["a", "dog", "cat", ",", "."]), min_size=1, max_size=9), _SYMBOLS)
def test_whatever_is_written_becomes_a_tree_over_the_words(
    sentence: list[str], symbols: list[str]
) -> None:
    found = repaired(sentence, symbols, KNOWN)
    assert words(found) == sentence
    assert tree(bracketed(found)) == found
    for label in labels(found):
        assert label in KNOWN.labels | {TOP}
    assert repaired(sentence, linearised(found), KNOWN) == found


@given(st.integers(1, 2000))
def test_very_many_brackets_become_a_tree(depth: int) -> None:
    found = repaired(["a"], ["(NP"] * depth + ["DT"] + [")NP"] * depth, KNOWN)
    assert words(tree(bracketed(found))) == ["a"]


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_tags_are_aligned_with_the_fewest_faults(tags: str, sentence: str) -> None:
    places = aligned(tags, sentence, str.__eq__)
    used = [place for place in places if place is not None]
    assert len(places) == len(tags)
    assert used == sorted(set(used))
    wrong = sum(p is not None and tags[i] != sentence[p] for i, p in enumerate(places))
    assert wrong + len(tags) + len(sentence) - 2 * len(used) == distance(tags, sentence)


def distance(one: str, other: str) -> int:
    """Levenshtein's."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other[1:]) + (one[0] != other[0]),
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
    )


def labels(of: Tree) -> list[str]:
    if isinstance(of, Leaf):
        return []
    return [of.label, *(label for child in of.children for label in labels(child))]


def test_each_symbol_is_one_token() -> None:
    tokenizer = symbol_tokenizer(s for t in TREES for s in linearised(t))
    line = "(S (NP DT NNS )NP (VP VBP )VP . )S"
    assert len(tokenizer.encode(line)) == len(line.split())
    assert tokenizer.decode(tokenizer.encode(line)) == line


def test_rare_words_are_read_as_classes() -> None:
    text = ["dogs"] * 3 + ["walking", "talking", "Munching", "x1", "y2", "z3"]
    source = SourceWords.of(text, at_least=2)
    known, walking, new, digit, odd = source(["dogs", "walking", "stalking", "q9", "???"])
    assert known == "dogs"
    assert walking == new != digit  # of one shape and ending
    assert len({known, walking, digit, odd}) == 4
    assert source(["walking"]) == source(["talking"])


def test_messages_of_odd_files_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "windows.mrg"
    path.write_bytes(DOGS.encode() + b"\r\n")
    with caplog.at_level(logging.WARNING, "npformer"):
        assert len(read_treebank(path)) == 1
    assert "CRLF" in caplog.text
