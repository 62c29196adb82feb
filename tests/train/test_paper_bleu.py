"""The paper's BLEU: Moses's tokens of German, compounds split at hyphens, no smoothing."""

import math
import random
import sys
from collections import Counter
from importlib.metadata import version

import pytest

from npformer.errors import UserError
from train.evaluation import bleu, check_tokenizer
from train.paper_tokens import paper_tokenizer, split_compounds


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Der Hund bellt.", "Der Hund bellt ."),
        ("„Ja“, sagte er: nein!", "„ Ja “ , sagte er : nein !"),
        ('Er sagte: "A & B".', "Er sagte : &quot; A &amp; B &quot; ."),
        # Numbers keep their commas and periods; an ordinal before a lower-case word is one token.
        ("3,5 Mio. Euro und 14.000, rund", "3,5 Mio. Euro und 14.000 , rund"),
        ("am 3. Mai, die 3. beste", "am 3. Mai , die 3. beste"),
        # Abbreviations keep theirs, even at the end of a line, as Moses did in 2017.
        ("Dr. Müller, z.B. hier usw.", "Dr. Müller , z.B. hier usw."),
        ("Das war es... oder?", "Das war es ... oder ?"),
        # German has no contractions: an apostrophe stands alone.
        ("Wie geht's?", "Wie geht &apos; s ?"),
        (
            "der Mund-zu-Mund-Test",
            "der Mund ##AT##-##AT## zu ##AT##-##AT## Mund ##AT##-##AT## Test",
        ),
        # Only between characters that are not spaces.
        ("Ein- und Ausgang - hier", "Ein- und Ausgang - hier"),
        ('das "Ja"-Wort', "das &quot; Ja &quot; -Wort"),
        ("", ""),
    ],
)
def test_tokens_of_german(line: str, tokens: str) -> None:
    assert paper_tokenizer()(line) == tokens


def test_each_character_counts_for_one_hyphen() -> None:
    """As Perl's s///g: the b of a-b-c belongs to the first hyphen."""
    assert split_compounds("a-b-c") == "a ##AT##-##AT## b-c"
    assert split_compounds("ab-cd-ef") == "ab ##AT##-##AT## cd ##AT##-##AT## ef"
    assert split_compounds("a--b") == "a ##AT##-##AT## -b"


def test_a_score_by_hand() -> None:
    """Der rot - grüne Hund schläft . has 7 words; 6 words, 4 pairs, 3 triples, 2 quadruples fit."""
    score = bleu(["Der rot-grüne Hund schläft."], ["Der rot-grüne Hund bellt."], "paper")
    assert score.value == pytest.approx(100 * (6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25)
    assert score.signature.startswith(
        f"nrefs:1|case:mixed|eff:no|tok:paper-de-sacremoses.{version('sacremoses')}|smooth:none|"
    )


def test_nothing_is_smoothed() -> None:
    """Without a single common quadruple the score is 0."""
    assert bleu(["Der Hund bellt ."], ["Der Hund schläft ."], "paper").value == 0
    assert bleu(["Der Hund"], ["Der Hund"], "paper").value == 0  # it has no quadruple at all
    assert bleu([""], ["Der Hund"], "paper").value == 0


def test_case_counts_unless_it_is_told_not_to() -> None:
    pairs = ["der Hund bellt laut."], ["Der Hund bellt laut."]
    assert bleu(*pairs, "paper").value < 100
    score = bleu(*pairs, "paper", lowercase=True)
    assert score.value == pytest.approx(100)
    assert "case:lc" in score.signature


def multi_bleu(translations: list[str], references: list[str]) -> float:
    """BLEU as multi-bleu.perl defines it, of text that is tokenised."""
    tokens = paper_tokenizer()
    correct, total = Counter[int](), Counter[int]()
    lengths = [0, 0]
    for translation, reference in zip(translations, references, strict=True):
        words, right = tokens(translation).split(), tokens(reference).split()
        lengths[0] += len(words)
        lengths[1] += len(right)
        for n in range(1, 5):
            found = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            wanted = Counter(tuple(right[i : i + n]) for i in range(len(right) - n + 1))
            correct[n] += (found & wanted).total()
            total[n] += found.total()
    if not all(correct[n] for n in range(1, 5)):
        return 0.0
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    logarithms = [math.log(correct[n] / total[n]) for n in range(1, 5)]
    return 100 * brevity * math.exp(sum(logarithms) / 4)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_multi_bleu(seed: int) -> None:
    draw = random.Random(seed)
    words = ["der", "Hund", "rot-grün", "Dr.", "3,5", "a-b-c", "ist", "da.", "(ja)", "Wie's"]

    def line(most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(0, most)))

    references = [line(20) for _ in range(20)]
    translations = [r if draw.random() < 0.3 else line(4 + 8 * seed) for r in references]
    score = bleu(translations, references, "paper")
    assert score.value == pytest.approx(multi_bleu(translations, references))


def test_without_sacremoses_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    monkeypatch.setattr("train.evaluation.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"the tokenizer paper .* pip install 'npformer\[moses\]'"):
        check_tokenizer("paper")
