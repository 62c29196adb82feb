"""Relations between the words of a sentence, in English and in German."""

from tests.train.trees import (
    HE,
    HELP,
    ME,
    NOUNS,
    OPEN,
    SEE,
    SHE,
    SLEEP,
    THEY,
    WAIT_FOR,
    WHO,
    YOU,
    a,
    clause,
    relative_to,
    the,
)
from train.grammar import analyse
from train.grammar.coreference import antecedent
from train.grammar.function_words import ALL, BECAUSE, CAN, IN_ORDER_TO, SO, THAT, TO, WHY
from train.grammar.numbers import clock
from train.grammar.relations import Analysis
from train.grammar.syntax import (
    Clause,
    Name,
    NounPhrase,
    Place,
    Sentence,
)


def shown(analysis: Analysis, *kinds: str) -> list[str]:
    """Relations as text, "subject sees(2) <- dog(1)", of the given kinds or of all."""
    words = [word.strip(",.?") for word in analysis.words]
    return [
        f"{kind} {words[head]}({head}) <- {words[dependent]}({dependent})"
        for kind, head, dependent in analysis.relations
        if kind in kinds or not kinds
    ]


def grouped(analysis: Analysis) -> list[str]:
    """The words of each clause."""
    words = [word.strip(",.?") for word in analysis.words]
    return [" ".join(words[position] for position in own) for own in analysis.clauses]


def both(tree: Clause, **more: object) -> tuple[Analysis, Analysis]:
    sentence = Sentence(tree, **more)  # type: ignore[arg-type]
    return analyse(sentence, "english"), analyse(sentence, "german")


def test_a_relative_clause_may_separate_a_subject_from_its_verb() -> None:
    tree = clause(the("dog", relative=clause(the("cat"), SEE, relative_to("dog"))), SLEEP)
    english, german = both(tree)
    assert english.text == "The dog that the cat sees sleeps."
    assert shown(english) == [
        "determiner dog(1) <- The(0)",
        "subject sleeps(6) <- dog(1)",
        "antecedent dog(1) <- that(2)",
        "determiner cat(4) <- the(3)",
        "subject sees(5) <- cat(4)",
    ]
    assert grouped(english) == ["The dog sleeps", "that the cat sees"]
    assert german.text == "Der Hund, den die Katze sieht, schläft."
    assert shown(german) == [
        "determiner Hund(1) <- Der(0)",
        "subject schläft(6) <- Hund(1)",
        "antecedent Hund(1) <- den(2)",
        "determiner Katze(4) <- die(3)",
        "subject sieht(5) <- Katze(4)",
    ]
    assert grouped(german) == ["Der Hund schläft", "den die Katze sieht"]


def test_a_relative_pronoun_may_be_the_subject() -> None:
    tree = clause(ME, HELP, the("dog", relative=clause(relative_to("dog"), SEE, the("cat"))))
    english, german = both(tree)
    assert shown(english, "subject", "antecedent") == [
        "subject help(1) <- I(0)",
        "antecedent dog(3) <- that(4)",
        "subject sees(5) <- that(4)",
    ]
    assert shown(german, "subject", "antecedent") == [
        "subject helfe(1) <- Ich(0)",
        "antecedent Hund(3) <- der(4)",
        "subject sieht(7) <- der(4)",
    ]


def test_a_relative_pronoun_may_follow_a_preposition() -> None:
    tree = clause(ME, SEE, the("woman", relative=clause(HE, WAIT_FOR, relative_to("woman"))))
    _, german = both(tree)
    assert german.text == "Ich sehe die Frau, auf die er wartet."
    assert shown(german, "antecedent") == ["antecedent Frau(3) <- die(5)"]
    assert grouped(german) == ["Ich sehe die Frau", "auf die er wartet"]


def test_german_subordinate_clauses_have_their_verb_last() -> None:
    tree = clause(
        HE,
        "say sagen",
        complement=clause(the("boy", "old"), SEE, a("dog"), tense="past", link=THAT),
        tense="past",
    )
    english, german = both(tree)
    assert english.text == "He said that the old boy saw a dog."
    assert shown(english, "subject", "verb") == [
        "subject said(1) <- He(0)",
        "subject saw(6) <- boy(5)",
    ]
    assert german.text == "Er hat gesagt, dass der alte Junge einen Hund gesehen hat."
    assert shown(german) == [
        "subject hat(1) <- Er(0)",
        "verb hat(1) <- gesagt(2)",
        "determiner Junge(6) <- der(4)",
        "adjective Junge(6) <- alte(5)",
        "subject hat(10) <- Junge(6)",
        "determiner Hund(8) <- einen(7)",
        "verb hat(10) <- gesehen(9)",
    ]
    assert grouped(german) == ["Er hat gesagt", "dass der alte Junge einen Hund gesehen hat"]


def test_a_separated_prefix_and_a_particle_belong_to_their_verb() -> None:
    english, german = both(clause(HE, "pick abholen", SHE))
    assert english.text == "He picks her up."
    assert shown(english) == ["subject picks(1) <- He(0)", "verb picks(1) <- up(3)"]
    assert german.text == "Er holt sie ab."
    assert shown(german) == ["subject holt(1) <- Er(0)", "verb holt(1) <- ab(3)"]


def test_a_prefix_that_is_not_separated_is_part_of_the_finite_verb() -> None:
    inner = clause(SHE, OPEN, the("door"), link=THAT)
    _, german = both(clause(HE, "say sagen", complement=inner))
    assert german.text == "Er sagt, dass sie die Tür aufmacht."
    assert shown(german, "subject", "verb") == [
        "subject sagt(1) <- Er(0)",
        "subject aufmacht(6) <- sie(3)",
    ]


def test_an_auxiliary_is_the_finite_verb() -> None:
    english, german = both(clause(the("cat"), OPEN, the("door"), negated=True, tense="past"))
    assert english.text == "The cat did not open the door."
    assert shown(english, "subject", "verb") == [
        "subject did(2) <- cat(1)",
        "verb did(2) <- open(4)",
    ]
    assert german.text == "Die Katze hat die Tür nicht aufgemacht."
    assert shown(german, "subject", "verb") == [
        "subject hat(2) <- Katze(1)",
        "verb hat(2) <- aufgemacht(6)",
    ]


def test_cannot_is_one_finite_verb() -> None:
    english, german = both(clause(HE, SEE, a("dog"), negated=True, modal=CAN))
    assert english.text == "He cannot see a dog."
    assert shown(english) == [
        "subject cannot(1) <- He(0)",
        "verb cannot(1) <- see(2)",
        "determiner dog(4) <- a(3)",
    ]
    assert german.text == "Er kann keinen Hund sehen."
    assert shown(german) == [
        "subject kann(1) <- Er(0)",
        "determiner Hund(3) <- keinen(2)",
        "verb kann(1) <- sehen(4)",
    ]


def test_a_preposition_contracted_with_an_article_is_a_determiner() -> None:
    _, german = both(clause(HE, SLEEP, place=Place("in", "in", "dat", the("garden", "old"))))
    assert german.text == "Er schläft im alten Garten."
    assert shown(german, "determiner", "adjective") == [
        "determiner Garten(4) <- im(2)",
        "adjective Garten(4) <- alten(3)",
    ]


def test_a_determiner_may_be_two_words() -> None:
    english, german = both(clause(HE, SEE, NounPhrase(ALL, NOUNS["dog"], True)))
    assert shown(english, "determiner") == [
        "determiner dogs(4) <- all(2)",
        "determiner dogs(4) <- the(3)",
    ]
    assert shown(german, "determiner") == ["determiner Hunde(3) <- alle(2)"]


def test_a_companion_is_not_a_subject() -> None:
    tree = clause(the("dog", companion=Name("Anna")), SLEEP)
    for analysis in both(tree):
        words = analysis.words
        assert [words[r.dependent] for r in analysis.relations if r.kind == "subject"] in (
            ["dog"],
            ["Hund"],
        )


def test_a_pronoun_may_be_both_subject_and_object() -> None:
    for analysis in both(clause(HE, SEE, HE)):
        ((_, head, dependent),) = analysis.relations
        assert (head, dependent) == (1, 0)


def test_the_german_verb_follows_what_is_in_front() -> None:
    english, german = both(clause(HE, SLEEP, time=clock(3, 30), front="time"))
    assert shown(english) == ["subject sleeps(5) <- he(4)"]
    assert shown(german) == ["subject schläft(3) <- er(4)"]


def test_questions_have_a_subject() -> None:
    english, german = both(clause(WHO, HELP, the("dog")), question=True)
    assert shown(english, "subject") == ["subject helps(1) <- Who(0)"]
    assert shown(german, "subject") == ["subject hilft(1) <- Wer(0)"]
    english, german = both(clause(the("dog"), HELP, WHO), question=True, adverb=None)
    assert shown(english, "subject", "verb") == [
        "subject does(1) <- dog(3)",
        "verb does(1) <- help(4)",
    ]
    assert shown(german, "subject") == ["subject hilft(1) <- Hund(3)"]
    for analysis in both(clause(HE, SLEEP), question=True, adverb=WHY):
        assert len(analysis.clauses[0]) == len(analysis.words)


def test_infinitives_have_no_subject() -> None:
    tree = clause(HE, "try versuchen", complement=clause(None, OPEN, the("door"), link=TO))
    english, german = both(tree)
    assert shown(english, "subject", "verb") == ["subject tries(1) <- He(0)"]
    assert grouped(english) == ["He tries", "to open the door"]
    assert shown(german, "subject", "verb") == ["subject versucht(1) <- Er(0)"]
    assert grouped(german) == ["Er versucht", "die Tür aufzumachen"]
    tree = clause(HE, SLEEP, adjunct=clause(None, SEE, the("dog"), link=IN_ORDER_TO))
    assert grouped(both(tree)[0]) == ["He sleeps", "in order to see the dog"]


def test_a_conjunction_belongs_to_the_second_clause() -> None:
    english, german = both(clause(HE, SLEEP), conjunction=SO, second=clause(THEY, SEE, YOU))
    assert grouped(english) == ["He sleeps", "so they see you"]
    assert german.text == "Er schläft, deshalb sehen sie dich."
    assert grouped(german) == ["Er schläft", "deshalb sehen sie dich"]
    assert shown(german, "subject") == ["subject schläft(1) <- Er(0)", "subject sehen(3) <- sie(4)"]


def test_a_personal_pronoun_has_its_noun_as_antecedent() -> None:
    main = clause(HE, SEE, the("cat", "old"))
    main.adjunct = clause(antecedent(main), SLEEP, link=BECAUSE)
    english, german = both(main)
    assert english.text == "He sees the old cat because it sleeps."
    assert shown(english, "antecedent") == ["antecedent cat(4) <- it(6)"]
    assert german.text == "Er sieht die alte Katze, weil sie schläft."
    assert shown(german, "antecedent") == ["antecedent Katze(4) <- sie(6)"]
