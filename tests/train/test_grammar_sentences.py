"""Sentences of trees in English and in German: inflection, word order, numbers."""

import pytest

from tests.train.trees import (
    FOLLOW,
    GARDEN,
    HE,
    HELP,
    ME,
    OPEN,
    SEE,
    SHE,
    SLEEP,
    THEY,
    WAIT_FOR,
    WE,
    WHO,
    YOU,
    a,
    all_the,
    clause,
    relative_to,
    the,
    translated,
)
from train.grammar.coreference import antecedent
from train.grammar.function_words import AFTER, BECAUSE, CAN, MUST_NOT, THAT, TO, WHEN
from train.grammar.numbers import (
    clock,
    english_number,
    english_ordinal,
    german_number,
    german_ordinal,
)
from train.grammar.syntax import Clause, Name, Place, Pronoun


@pytest.mark.parametrize(
    ("tree", "english", "german"),
    [
        # cases and endings
        (
            clause(the("dog", "old"), SEE, the("cat", "small")),
            "The old dog sees the small cat.",
            "Der alte Hund sieht die kleine Katze.",
        ),
        (
            clause(the("cat"), SEE, a("dog", "old")),
            "The cat sees an old dog.",
            "Die Katze sieht einen alten Hund.",
        ),
        (
            clause(a("child", "sad"), HELP, the("boy")),
            *(
                "A sad child helps the boy.",
                "Ein trauriges Kind hilft dem Jungen.",
            ),
        ),
        (
            clause(YOU, HELP, all_the("dog", "old")),
            *(
                "You help the old dogs.",
                "Du hilfst den alten Hunden.",
            ),
        ),
        (
            clause(ME, "give geben", the("key"), recipient=HE),
            "I give him the key.",
            "Ich gebe ihm den Schlüssel.",
        ),
        # places and directions
        (
            clause(HE, "run laufen", direction=Place("into", "in", "acc", GARDEN)),
            "He runs into the garden.",
            "Er läuft in den Garten.",
        ),
        (
            clause(HE, SLEEP, place=Place("in", "in", "dat", GARDEN)),
            "He sleeps in the garden.",
            "Er schläft im Garten.",
        ),
        # separable prefixes
        (clause(HE, OPEN, the("door")), "He opens the door.", "Er macht die Tür auf."),
        (
            clause(HE, OPEN, the("door"), tense="past"),
            "He opened the door.",
            "Er hat die Tür aufgemacht.",
        ),
        (
            clause(HE, OPEN, the("door"), modal=CAN),
            "He can open the door.",
            "Er kann die Tür aufmachen.",
        ),
        (
            clause(HE, "say sagen", complement=clause(SHE, OPEN, the("door"), link=THAT)),
            "He says that she opens the door.",
            "Er sagt, dass sie die Tür aufmacht.",
        ),
        (
            clause(HE, "try versuchen", complement=clause(None, OPEN, the("door"), link=TO)),
            "He tries to open the door.",
            "Er versucht, die Tür aufzumachen.",
        ),
        (clause(ME, "pick abholen", HE), "I pick him up.", "Ich hole ihn ab."),
        # the auxiliaries sein and haben
        (
            clause(WE, FOLLOW, the("mouse"), tense="past"),
            "We followed the mouse.",
            "Wir sind der Maus gefolgt.",
        ),
        # relative pronouns
        (
            clause(the("dog", relative=clause(relative_to("dog"), SEE, the("cat"))), SLEEP),
            "The dog that sees the cat sleeps.",
            "Der Hund, der die Katze sieht, schläft.",
        ),
        (
            clause(the("dog", relative=clause(the("cat"), SEE, relative_to("dog"))), SLEEP),
            "The dog that the cat sees sleeps.",
            "Der Hund, den die Katze sieht, schläft.",
        ),
        (
            clause(
                ME,
                SEE,
                the("woman", relative=clause(HE, WAIT_FOR, relative_to("woman"))),
                tense="past",
            ),
            "I saw the woman that he waits for.",
            "Ich habe die Frau gesehen, auf die er wartet.",
        ),
        # the verb comes second, whatever is first
        (
            clause(HE, SLEEP, time=clock(3, 30), front="time"),
            "At half past three he sleeps.",
            "Um halb vier schläft er.",
        ),
        (
            clause(
                THEY,
                SLEEP,
                tense="past",
                adjunct=clause(HE, SLEEP, tense="pluperfect", link=AFTER),
                front="adjunct",
            ),
            "After he had slept, they slept.",
            "Nachdem er geschlafen hatte, haben sie geschlafen.",
        ),
        (
            clause(ME, SLEEP, tense="past", adjunct=clause(HE, SLEEP, tense="past", link=WHEN)),
            "I slept when he slept.",
            "Ich habe geschlafen, als er geschlafen hat.",
        ),
        # negation
        (
            clause(HE, SEE, a("dog"), negated=True),
            "He does not see a dog.",
            "Er sieht keinen Hund.",
        ),
        (
            clause(HE, WAIT_FOR, Name("Anna"), negated=True, modal=MUST_NOT),
            "He must not wait for Anna.",
            "Er darf nicht auf Anna warten.",
        ),
        (
            clause(HE, SEE, the("dog"), negated=True, tense="past"),
            "He did not see the dog.",
            "Er hat den Hund nicht gesehen.",
        ),
    ],
)
def test_trees_become_correct_english_and_german(tree: Clause, english: str, german: str) -> None:
    assert translated(tree) == (english, german)


def test_questions_begin_with_the_verb_or_the_question_word() -> None:
    assert translated(clause(THEY, OPEN, the("bag"), tense="past"), question=True) == (
        "Did they open the bag?",
        "Haben sie die Tasche aufgemacht?",
    )
    assert translated(clause(WHO, HELP, the("dog")), question=True) == (
        "Who helps the dog?",
        "Wer hilft dem Hund?",
    )
    assert translated(clause(the("dog"), HELP, WHO), question=True) == (
        "Who does the dog help?",
        "Wem hilft der Hund?",
    )


@pytest.mark.parametrize(("noun", "pronoun"), [("dog", "er"), ("cat", "sie"), ("horse", "es")])
def test_it_has_its_antecedents_gender(noun: str, pronoun: str) -> None:
    main = clause(HE, SEE, the(noun))
    it = antecedent(main)
    assert isinstance(it, Pronoun)
    sleeps = clause(it, SLEEP, link=BECAUSE)
    english, german = translated(clause(HE, SEE, the(noun), adjunct=sleeps))
    assert english.endswith("because it sleeps.")
    assert german.endswith(f", weil {pronoun} schläft.")


def test_there_is_no_pronoun_where_its_antecedent_would_be_ambiguous() -> None:
    assert antecedent(clause(the("dog"), SEE, the("cat"))) is None


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (2, "two", "zwei"),
        (17, "seventeen", "siebzehn"),
        (30, "thirty", "dreißig"),
        (21, "twenty-one", "einundzwanzig"),
        (76, "seventy-six", "sechsundsiebzig"),
    ],
)
def test_german_numbers_begin_with_the_units(number: int, english: str, german: str) -> None:
    assert (english_number(number), german_number(number)) == (english, german)


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (1, "first", "erste"),
        (7, "seventh", "siebte"),
        (12, "twelfth", "zwölfte"),
        (20, "twentieth", "zwanzigste"),
        (23, "twenty-third", "dreiundzwanzigste"),
    ],
)
def test_ordinals(number: int, english: str, german: str) -> None:
    assert (english_ordinal(number), german_ordinal(number)) == (english, german)


@pytest.mark.parametrize(
    ("hour", "minute", "english", "german"),
    [
        (1, 0, "at one o'clock", "um ein Uhr"),
        (12, 30, "at half past twelve", "um halb eins"),
        (3, 15, "at a quarter past three", "um Viertel nach drei"),
        (3, 45, "at a quarter to four", "um Viertel vor vier"),
        (12, 50, "at ten to one", "um zehn vor eins"),
    ],
)
def test_hours(hour: int, minute: int, english: str, german: str) -> None:
    phrase = clock(hour, minute)
    assert (phrase.english, phrase.german) == (english, german)
