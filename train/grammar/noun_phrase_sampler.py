"""Draws noun phrases: subjects, objects, recipients, places."""

import random
from collections.abc import Sequence
from typing import TypeVar

from train.grammar import lexicon
from train.grammar.coreference import may_corefer
from train.grammar.function_words import DEFINITE, NEARBY, PRONOUNS, QUANTIFIED
from train.grammar.lexicon import Kind, Noun
from train.grammar.selection import ADJECTIVES, ANIMALS, OBJECTS, PEOPLE, THINGS
from train.grammar.syntax import Clause, Extracted, Name, Nominal, NounPhrase, Place, Pronoun, Tense
from train.grammar.verbs import Verb

T = TypeVar("T")

# Objects are mostly of the same kinds as subjects: then order alone tells who sees whom.
OBJECT_KINDS: tuple[Kind, ...] = ("person", "person", "person", "animal", "animal", "thing")
NAMES = tuple(Name(name) for name in lexicon.NAMES)
PERSONAL: tuple[Sequence[Pronoun | Name], ...] = (PRONOUNS, PRONOUNS, NAMES)
COMPANIONS = (PEOPLE, ANIMALS, lexicon.THINGS)


class NounPhraseSampler:
    """Draws noun phrases, names and pronouns.

    ``embedding_rate``: the probability that a clause that can embed another does so; a noun
    phrase gets a relative clause half as often.
    """

    def __init__(self, seed: int, *, embedding_rate: float = 0.4) -> None:
        self.random = random.Random(seed).random
        self.embedding_rate = embedding_rate

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of them, all equally likely."""
        return items[int(self.random() * len(items))]

    def subject(
        self,
        it: Pronoun | None,
        extracted: Extracted | None,
        *,
        negated: bool,
        depth: int,
        tense: Tense,
    ) -> Nominal:
        """A subject; without a relative clause where its own clause begins with an object."""
        if it and self.chance(0.6):
            return it
        kind = self.random()
        if kind < 0.25:
            return self.pick(self.pick(PERSONAL))
        nouns = PEOPLE if kind < 0.65 else ANIMALS if kind < 0.93 else THINGS
        if extracted:
            return self.noun_phrase(self.pick(nouns), definite=negated)
        inner = self.within(tense)
        return self.noun_phrase(self.pick(nouns), definite=negated, depth=depth, tense=inner)

    def target(
        self,
        verb: Verb,
        agent: Nominal,
        *,
        definite: bool,
        depth: int = 0,
        tense: Tense | None = None,
        simple: bool = False,
    ) -> Nominal:
        """An object that is not the subject."""
        while True:
            draw = self.random()
            target: Nominal
            if draw < 0.2 and "person" in verb.objects and not simple:
                target = self.pick(self.pick(PERSONAL))
            else:
                kinds = [kind for kind in OBJECT_KINDS if kind in verb.objects]
                noun = self.pick(OBJECTS[verb, self.pick(kinds)])
                if isinstance(agent, NounPhrase) and agent.noun is noun:
                    continue
                target = self.noun_phrase(noun, definite=definite, depth=depth, tense=tense)
            if not may_corefer(agent, target):
                return target

    def recipient(self, agent: Nominal, *, definite: bool) -> Nominal:
        """An indirect object."""
        while True:
            draw = self.random()
            recipient: Nominal
            if draw < 0.3:
                recipient = self.pick(self.pick(PERSONAL))
            else:
                noun = self.pick(PEOPLE if draw < 0.8 else ANIMALS)
                recipient = self.noun_phrase(noun, definite=definite)
            if not may_corefer(agent, recipient):
                return recipient

    def noun_phrase(
        self, noun: Noun, *, definite: bool, depth: int = 0, tense: Tense | None = None
    ) -> NounPhrase:
        """A noun and its determiner, perhaps an adjective, a companion or a relative clause.

        ``definite``: under negation, *never* and *must*, where *no* or *many* would be ambiguous.
        """
        determiner, plural = self.pick(DEFINITE if definite or self.chance(0.7) else QUANTIFIED)
        adjectives = (self.pick(ADJECTIVES[noun.kind]),) if self.chance(0.3) else ()
        relative = companion = None
        if depth > 0 and tense and self.chance(self.embedding_rate * 0.5):
            relative = self.relative(noun, plural, depth - 1, tense)
        elif self.chance(0.06):
            companion = self.simple(self.pick(COMPANIONS))
        return NounPhrase(determiner, noun, plural, adjectives, companion, relative)

    def relative(self, head: Noun, plural: bool, depth: int, tense: Tense) -> Clause:
        """A relative clause; ClauseSampler draws it."""
        raise NotImplementedError

    def tense(self) -> Tense:
        """Present or past."""
        return "past" if self.chance(0.4) else "present"

    def within(self, tense: Tense) -> Tense:
        """The tense of a clause that is embedded in one of tense ``tense``: past within past."""
        return self.tense() if tense == "present" else "past"

    def place(self) -> Place:
        """Where: *in the garden*, *behind the old house*."""
        draw = self.random()
        if draw < 0.35:
            return Place("in", "in", "dat", self.simple(lexicon.INSIDE))
        if draw < 0.55:
            return Place("at", "an", "dat", self.simple(lexicon.BESIDE))
        if draw < 0.75:
            return Place("on", "auf", "dat", self.simple(lexicon.ATOP))
        english, german = self.pick(NEARBY)
        return Place(english, german, "dat", self.simple(THINGS))

    def direction(self) -> Place:
        """Where to: *into the garden* differs from *in the garden* by the German case alone."""
        draw = self.random()
        if draw < 0.5:
            return Place("into", "in", "acc", self.simple(lexicon.INSIDE))
        if draw < 0.75:
            return Place("to", "zu", "dat", self.simple(lexicon.BESIDE))
        return Place("onto", "auf", "acc", self.simple(lexicon.ATOP))

    def simple(self, nouns: Sequence[Noun]) -> NounPhrase:
        """A definite noun phrase without a companion: for places, and for companions."""
        phrase = self.noun_phrase(self.pick(nouns), definite=True)
        phrase.companion = None
        return phrase
