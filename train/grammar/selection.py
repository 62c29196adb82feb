"""What goes with what: verbs with their subjects, objects and adjectives with their nouns."""

from collections import defaultdict

from train.grammar import lexicon, verbs
from train.grammar.lexicon import Adjective, Kind, Noun
from train.grammar.verbs import Verb

PEOPLE, ANIMALS = lexicon.PEOPLE, lexicon.ANIMALS
THINGS = lexicon.THINGS + lexicon.PLACES
NOUNS: dict[Kind, tuple[Noun, ...]] = {"person": PEOPLE, "animal": ANIMALS, "thing": THINGS}
ADJECTIVES: dict[Kind, tuple[Adjective, ...]] = {
    kind: tuple(adjective for adjective in lexicon.ADJECTIVES if kind in adjective.kinds)
    for kind in NOUNS
}
VERBS: dict[tuple[str, Kind], list[Verb]] = defaultdict(list)
for _verb in verbs.VERBS:
    for _kind in sorted(_verb.subjects):
        VERBS[_verb.frame, _kind].append(_verb)


def takes(verb: Verb, noun: Noun) -> bool:
    """Whether a noun can be the verb's object."""
    if verb.only:
        return noun.english in verb.only
    fixed = verb.frame == "gift" and noun in lexicon.PLACES  # nobody lends a forest
    return noun.kind in verb.objects and not fixed


OBJECTS: dict[tuple[Verb, Kind], list[Noun]] = {
    (verb, kind): [noun for noun in nouns if takes(verb, noun)]
    for verb in verbs.VERBS
    for kind, nouns in NOUNS.items()
    if kind in verb.objects
}
