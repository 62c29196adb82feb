"""Which phrases may mean the same, and what *it* can mean."""

from train.grammar.function_words import EVERY, IT, NO
from train.grammar.syntax import Clause, Nominal, NounPhrase, Pronoun, clauses, noun_phrases


def antecedent(clause: Clause) -> Pronoun | None:
    """The *it* that can mean one thing only among all that a clause has named, if there is one."""
    candidates = [
        phrase
        for inner in clauses(clause)
        for phrase in noun_phrases(inner)
        if phrase.kind != "person" and not phrase.plural
    ]
    if len(candidates) != 1 or candidates[0].determiner in (NO, EVERY):
        return None
    noun = candidates[0].noun
    return Pronoun("it", "it", *IT[noun.gender], 2, noun.kind, candidates[0])


def may_corefer(one: Nominal, other: Nominal) -> bool:
    """*I see me*, *Anna sees Anna* and *the dog sees the dog* are better left unsaid."""
    if isinstance(one, NounPhrase) and isinstance(other, NounPhrase):
        return one.noun is other.noun
    if isinstance(one, Pronoun) and isinstance(other, Pronoun):
        return one.subject == other.subject or {one.subject, other.subject} == {"I", "we"}
    return one == other
