"""Trees of the grammar, written by hand."""

from train.grammar import lexicon
from train.grammar.function_words import PRONOUNS, THE, A
from train.grammar.syntax import Clause, Extracted, NounPhrase, Sentence
from train.grammar.verbs import VERBS as ALL_VERBS
from train.grammar.writing import translate

ME, YOU, HE, SHE, WE, THEY = PRONOUNS
NOUNS = {
    noun.english: noun
    for noun in lexicon.PEOPLE + lexicon.ANIMALS + lexicon.THINGS + lexicon.PLACES
}
VERBS = {verb.name: verb for verb in ALL_VERBS}
ADJECTIVES = {adjective.english: adjective for adjective in lexicon.ADJECTIVES}
WHO = Extracted("who", "m", 2, "person")


def the(noun: str, adjective: str = "", **more: object) -> NounPhrase:
    adjectives = (ADJECTIVES[adjective],) if adjective else ()
    return NounPhrase(THE, NOUNS[noun], False, adjectives, **more)  # type: ignore[arg-type]


def a(noun: str, adjective: str = "") -> NounPhrase:
    adjectives = (ADJECTIVES[adjective],) if adjective else ()
    return NounPhrase(A, NOUNS[noun], False, adjectives)


def all_the(noun: str, adjective: str) -> NounPhrase:
    return NounPhrase(THE, NOUNS[noun], True, (ADJECTIVES[adjective],))


def relative_to(noun: str) -> Extracted:
    return Extracted("relative", NOUNS[noun].gender, 2, NOUNS[noun].kind)


def clause(subject: object, verb: str, obj: object = None, **more: object) -> Clause:
    return Clause(VERBS[verb], subject, object=obj, **more)  # type: ignore[arg-type]


def translated(tree: Clause, **more: object) -> tuple[str, str]:
    """The English and the German sentence of a tree."""
    return tuple(translate(Sentence(tree, **more)))  # type: ignore[arg-type,return-value]


SEE, WAIT_FOR, HELP = "see sehen", "wait warten auf", "help helfen"
OPEN, SLEEP, FOLLOW = "open aufmachen", "sleep schlafen", "follow folgen"
GARDEN = the("garden")
