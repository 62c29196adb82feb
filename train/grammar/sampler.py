"""Draws trees at random: what may stand with what, and how often.

Where English would leave German a choice, the sampler does not go there. *It* is drawn only where
one antecedent is possible, a relative clause only where nothing that follows could belong to it,
and time and place only where they can belong to one verb.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, TypeVar

from train.grammar import lexicon, verbs
from train.grammar.function_words import (
    AFTER,
    ALTHOUGH,
    AND,
    BECAUSE,
    BEFORE,
    BUT,
    DEFINITE,
    EVERY,
    IF,
    IN_ORDER_TO,
    IT,
    MANY,
    MUST,
    MUST_NOT,
    NEARBY,
    NO,
    PAST_MODALS,
    PRESENT_MODALS,
    PRONOUNS,
    QUANTIFIED,
    QUESTIONS,
    SO,
    SOME,
    THAT,
    TIMELESS,
    TO,
    WHEN,
    WHERE,
    WHILE,
    WHY,
)
from train.grammar.lexicon import Adjective, Kind, Noun, Phrase
from train.grammar.numbers import CLOCK, DATES, DAYS, english_number, german_number
from train.grammar.syntax import (
    Clause,
    Extracted,
    Link,
    Modal,
    Name,
    Nominal,
    NounPhrase,
    Place,
    Pronoun,
    Sentence,
    Tense,
    clauses,
    noun_phrases,
)
from train.grammar.verbs import Verb

T = TypeVar("T")

# How often each frame is drawn, by what the subject is; clauses that may embed others draw
# EMBEDDING as well.
FRAMES: dict[Kind, tuple[str, ...]] = {
    "person": ("object",) * 9 + ("gift",) * 3 + ("alone", "alone", "motion", "position", "copula"),
    "animal": ("object",) * 8 + ("alone", "alone", "motion", "position", "copula"),
    "thing": ("object", "copula", "copula"),
}
# Objects are mostly what subjects are too: then order alone tells who sees whom.
OBJECT_KINDS: tuple[Kind, ...] = ("person", "person", "person", "animal", "animal", "thing")
EMBEDDING = ("that", "that", "question", "infinitive", "control")

PEOPLE, ANIMALS = lexicon.PEOPLE, lexicon.ANIMALS
THINGS = lexicon.THINGS + lexicon.PLACES
NAMES = tuple(Name(name) for name in lexicon.NAMES)
PERSONAL: tuple[Sequence[Pronoun | Name], ...] = (PRONOUNS, PRONOUNS, NAMES)
NOUNS: dict[Kind, tuple[Noun, ...]] = {"person": PEOPLE, "animal": ANIMALS, "thing": THINGS}
ADJECTIVES: dict[Kind, tuple[Adjective, ...]] = {
    kind: tuple(adjective for adjective in lexicon.ADJECTIVES if kind in adjective.kinds)
    for kind in NOUNS
}
COMPANIONS = (PEOPLE, ANIMALS, lexicon.THINGS)
VERBS: dict[tuple[str, Kind], list[Verb]] = defaultdict(list)
for _verb in verbs.VERBS:
    for _kind in sorted(_verb.subjects):
        VERBS[_verb.frame, _kind].append(_verb)
AGES = tuple(
    Phrase(f"{english_number(n)} years old", f"{german_number(n)} Jahre alt") for n in range(2, 100)
)
PRICES = tuple(
    Phrase(f"worth {english_number(n)} euros", f"{german_number(n)} Euro wert")
    for n in range(2, 100)
)


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
    return Pronoun("it", "it", *IT[noun.gender], 2, noun.kind)


def has_relative(tree: Clause) -> bool:
    """Whether the object has a relative clause, which then comes last."""
    return isinstance(tree.object, NounPhrase) and tree.object.relative is not None


def may_mean_the_same(one: Nominal, other: Nominal) -> bool:
    """*I see me*, *Anna sees Anna* and *the dog sees the dog* are better left unsaid."""
    if isinstance(one, NounPhrase) and isinstance(other, NounPhrase):
        return one.noun is other.noun
    if isinstance(one, Pronoun) and isinstance(other, Pronoun):
        return one.subject == other.subject or {one.subject, other.subject} == {"I", "we"}
    return one == other


class Sampler:
    """Draws sentences; the same seed draws the same ones.

    ``eagerness``: the probability that a clause that may embed another does.
    """

    def __init__(self, seed: int, *, eagerness: float = 0.4) -> None:
        self.random = random.Random(seed).random
        self.eagerness = eagerness

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of them, all equally likely."""
        return items[int(self.random() * len(items))]

    # Sentences

    def sentence(self, depth: int) -> Sentence:
        """A sentence whose clauses lie at most ``depth`` deep one within another."""
        kind = self.random()
        if kind < 0.12:
            return self.question(depth)
        if kind < 0.22:
            return self.pair()
        if kind < 0.52:
            return Sentence(self.with_adjunct(depth))
        return Sentence(self.clause(depth=depth, main=True))

    def question(self, depth: int) -> Sentence:
        """*Does the dog sleep?* *Why does it sleep?* *Who sees the dog?* *Who does the dog see?*"""
        asked = self.random()
        if asked < 0.3:
            return Sentence(self.clause(depth=depth), question=True)
        if asked < 0.4:
            return Sentence(self.clause(depth=depth), question=True, adverb=WHY)
        if asked < 0.6:
            who = Extracted("who", "m", 2, "person")
            return Sentence(self.clause(depth=depth, subject=who), question=True)
        what: Literal["who", "what"] = "who" if asked < 0.85 else "what"
        extracted = Extracted(what, "m", 2, "person" if what == "who" else "thing")
        return Sentence(self.clause(extracted=extracted), question=True)

    def pair(self) -> Sentence:
        """Two main clauses; German deshalb (*so*) turns the second about."""
        tense = self.tense()
        first = self.clause(tense=tense)
        second = self.clause(tense=tense, it=antecedent(first))
        return Sentence(first, conjunction=self.pick((AND, BUT, SO)), second=second)

    def with_adjunct(self, depth: int) -> Clause:
        """A main clause and why, when or for what purpose it holds, said after it or before."""
        tense = self.tense()
        if self.chance(0.1):
            main = self.clause(tense=tense, plain=True)
            doer = main.subject
            if doer and doer.kind == "person" and main.verb is not verbs.COPULA:
                # Who acts is the subject of both.
                main.adjunct = self.infinitive(doer, depth - 1, IN_ORDER_TO)
                return main
        links = (BECAUSE, BECAUSE, ALTHOUGH, WHEN, WHEN, WHILE, BEFORE)
        link = self.pick((*links, IF, IF) if tense == "present" else (*links, AFTER, AFTER))
        inner: Tense = "pluperfect" if link is AFTER else tense
        if self.chance(0.45):
            adjunct = self.clause(depth=depth - 1, tense=inner, link=link)
            main = self.clause(tense=tense, it=antecedent(adjunct))
            main.adjunct, main.front = adjunct, "adjunct"
            return main
        main = self.clause(tense=tense, plain=True)
        it = antecedent(main)
        main.adjunct = self.clause(depth=depth - 1, tense=inner, link=link, it=it)
        return main

    # Clauses

    def clause(
        self,
        *,
        depth: int = 0,
        tense: Tense | None = None,
        link: Link | None = None,
        subject: Nominal | None = None,
        extracted: Extracted | None = None,
        head: Noun | None = None,
        it: Pronoun | None = None,
        plain: bool = False,
        main: bool = False,
    ) -> Clause:
        """A finite clause.

        ``extracted``: the object, where it stands at the clause's front; ``head``: the noun that
        a relative clause belongs to; ``it``: a pronoun whose antecedent has been named. A
        ``plain`` clause names no time, since a verb that follows could claim it; a ``main`` one
        may name it first.
        """
        tense = tense or self.tense()
        negated = not extracted and link not in TIMELESS and self.chance(0.15)
        verb = None
        while verb is None:
            doer = subject or self.subject(it, extracted, negated=negated, depth=depth, tense=tense)
            verb = self.verb(doer, extracted, head, depth, link)
        modal = None
        timeless = tense == "pluperfect" or link in TIMELESS
        nobody = isinstance(doer, NounPhrase) and doer.determiner is NO
        if not (verb.state or nobody or timeless):
            modal = self.modal(tense, negated=negated) if self.chance(0.3) else None
        frequency = None
        quantified = isinstance(doer, NounPhrase) and doer.determiner in (NO, MANY, SOME)
        if not (negated or quantified or timeless):
            frequency = self.pick(lexicon.FREQUENCY) if self.chance(0.12) else None
        tree = Clause(
            verb,
            doer,
            tense=tense,
            link=link,
            modal=modal,
            negated=negated,
            frequency=frequency,
            object=extracted,
        )
        self.complete(tree, doer, depth, it)
        if tense == "pluperfect" or not self.chance(0.28):
            return tree
        if tree.verb.state and tree.frequency:
            return tree
        closed = plain or tree.complement or negated or has_relative(tree)
        first = main and (closed or self.chance(0.4))
        if closed and not first:
            return tree
        tree.time, tree.front = self.time(tree), "time" if first else None
        return tree

    def infinitive(self, doer: Nominal, depth: int, link: Link) -> Clause:
        """An infinitive clause; ``doer``, its subject, is named in the clause around it."""
        verb = None
        while verb is None or verb.state:
            verb = self.verb(doer, None, None, depth, link)
        tree = Clause(verb, None, link=link)
        self.complete(tree, doer, depth, None)
        return tree

    def complete(self, tree: Clause, doer: Nominal, depth: int, it: Pronoun | None) -> None:
        """Adds what the verb's frame asks for, and perhaps manner and place."""
        verb = tree.verb
        manner = self.pick(lexicon.MANNER) if verb.manner and self.chance(0.3) else None
        place = (
            self.place() if tree.link is not WHERE and not verb.state and self.chance(0.2) else None
        )
        match verb.frame:
            case "copula":
                tree.predicate = self.predicate(tree, doer)
            case "position":
                tree.place = self.place()
            case "motion":
                tree.direction, tree.manner = self.direction(), manner
            case "alone":
                tree.place, tree.manner = place, manner
            case "that" | "question":
                if verb.objects:
                    tree.object = self.target(verb, doer, definite=True)
                link = THAT if verb.frame == "that" else self.pick(QUESTIONS)
                tree.complement = self.clause(depth=depth - 1, tense=self.within(tree), link=link)
            case "infinitive":
                tree.complement = self.infinitive(doer, depth - 1, TO)
            case "control":
                tree.object = self.target(verb, doer, definite=True)
                tree.complement = self.infinitive(tree.object, depth - 1, TO)
            case "object" | "gift":
                self.complete_with_object(tree, doer, depth, it, manner, place)

    def complete_with_object(
        self,
        tree: Clause,
        doer: Nominal,
        depth: int,
        it: Pronoun | None,
        manner: Phrase | None,
        place: Place | None,
    ) -> None:
        """Adds an object, its recipient if it is given, and the manner and place of it all."""
        verb = tree.verb
        definite = tree.negated or bool(tree.frequency or tree.modal) or tree.subject is None
        simple = verb.frame == "gift"
        if simple:
            tree.recipient = self.recipient(doer, definite=definite)
        if tree.object_is_extracted:
            tree.place = place
            return
        if it and not simple and not verb.preposition and it.kind in verb.objects:
            fits = not verb.only and not may_mean_the_same(it, doer)
            if fits and self.chance(0.5):
                tree.object, tree.manner, tree.place = it, manner, place
                return
        tense = None if tree.subject is None else self.within(tree)
        tree.object = self.target(
            verb, doer, definite=definite, depth=depth, tense=tense, simple=simple
        )
        if not has_relative(tree):
            tree.manner, tree.place = manner, place

    def verb(
        self,
        doer: Nominal,
        extracted: Extracted | None,
        head: Noun | None,
        depth: int,
        link: Link | None,
    ) -> Verb | None:
        """A verb for its subject and an extracted object; None if the draw does not fit."""
        kind = doer.kind
        if extracted:
            gift = kind == "person" and extracted.role != "who" and self.chance(0.15)
            verb = self.pick(VERBS["gift" if gift else "object", kind])
            if extracted.kind not in verb.objects:
                return None
            if head:
                return verb if takes(verb, head) else None
            # A question with a preposition and *what* would need worauf, womit ...
            return (
                verb
                if extracted.role == "who" or not (verb.preposition or verb.case == "dat")
                else None
            )
        if depth > 0 and kind == "person" and self.chance(self.eagerness):
            return self.pick(VERBS[self.pick(EMBEDDING), kind])
        frame = self.pick(FRAMES[kind])
        if link is WHERE and frame in ("position", "motion"):
            return None
        return verbs.COPULA if frame == "copula" else self.pick(VERBS[frame, kind])

    def tense(self) -> Tense:
        """Present or past."""
        return "past" if self.chance(0.4) else "present"

    def within(self, tree: Clause) -> Tense:
        """The tense of a clause within another: what was said in the past lay in the past."""
        return self.tense() if tree.tense == "present" else "past"

    def modal(self, tense: Tense, *, negated: bool) -> Modal:
        """A modal verb, or will."""
        modal = self.pick(PRESENT_MODALS if tense == "present" else PAST_MODALS)
        return MUST_NOT if modal is MUST and negated else modal

    def time(self, tree: Clause) -> Phrase:
        """A time that suits the clause's tense."""
        if not tree.verb.state:
            draw = self.random()
            if draw < 0.35 or tree.frequency:
                return self.pick(CLOCK)
            if draw < 0.45:
                day, hour = self.pick(DAYS), self.pick(CLOCK)
                return Phrase(f"{day.english} {hour.english}", f"{day.german} {hour.german}")
            if draw < 0.55:
                return self.pick(DATES)
            if draw < 0.6:
                return self.pick(DAYS)
            if draw < 0.7:
                return self.pick(lexicon.TIMES_OF_DAY)
            if draw < 0.8 and tree.tense == "present" and not tree.modal:
                return self.pick(lexicon.REPEATED_TIMES)
        if tree.tense == "past":
            return self.pick(lexicon.PAST_TIMES)
        return self.pick(lexicon.FUTURE_TIMES if tree.modal else lexicon.PRESENT_TIMES)

    # Noun phrases

    def subject(
        self,
        it: Pronoun | None,
        extracted: Extracted | None,
        *,
        negated: bool,
        depth: int,
        tense: Tense,
    ) -> Nominal:
        """A subject; no relative clause where its own clause is one that begins with an object."""
        if it and self.chance(0.6):
            return it
        kind = self.random()
        if kind < 0.25:
            return self.pick(self.pick(PERSONAL))
        nouns = PEOPLE if kind < 0.65 else ANIMALS if kind < 0.93 else THINGS
        if extracted:
            return self.noun_phrase(self.pick(nouns), definite=negated)
        inner = "past" if tense != "present" else self.tense()
        return self.noun_phrase(self.pick(nouns), definite=negated, depth=depth, tense=inner)

    def target(
        self,
        verb: Verb,
        doer: Nominal,
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
                if isinstance(doer, NounPhrase) and doer.noun is noun:
                    continue
                target = self.noun_phrase(noun, definite=definite, depth=depth, tense=tense)
            if not may_mean_the_same(doer, target):
                return target

    def recipient(self, doer: Nominal, *, definite: bool) -> Nominal:
        """Whom something is given to."""
        while True:
            draw = self.random()
            recipient: Nominal
            if draw < 0.3:
                recipient = self.pick(self.pick(PERSONAL))
            else:
                noun = self.pick(PEOPLE if draw < 0.8 else ANIMALS)
                recipient = self.noun_phrase(noun, definite=definite)
            if not may_mean_the_same(doer, recipient):
                return recipient

    def noun_phrase(
        self, noun: Noun, *, definite: bool, depth: int = 0, tense: Tense | None = None
    ) -> NounPhrase:
        """A noun and its determiner, perhaps an adjective, a companion or a relative clause.

        ``definite``: under negation, *never* and *must*, where *no* or *many* would be a riddle.
        """
        determiner, plural = self.pick(DEFINITE if definite or self.chance(0.7) else QUANTIFIED)
        adjectives = (self.pick(ADJECTIVES[noun.kind]),) if self.chance(0.3) else ()
        relative = companion = None
        if depth > 0 and tense and self.chance(self.eagerness * 0.5):
            relative = self.relative(noun, plural, depth - 1, tense)
        elif self.chance(0.06):
            companion = self.simple(self.pick(COMPANIONS))
        return NounPhrase(determiner, noun, plural, adjectives, companion, relative)

    def relative(self, head: Noun, plural: bool, depth: int, tense: Tense) -> Clause:
        """*The dog that sees the cat* or, which word order alone tells, *that the cat sees*."""
        gap = Extracted("relative", head.gender, 3 if plural else 2, head.kind)
        if self.chance(0.5) or head.kind == "thing":
            return self.clause(tense=tense, extracted=gap, head=head, plain=True)
        return self.clause(depth=depth, tense=tense, subject=gap, head=head, plain=True)

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
        """A definite noun phrase without a companion, as places are, and companions."""
        phrase = self.noun_phrase(self.pick(nouns), definite=True)
        phrase.companion = None
        return phrase

    def predicate(self, tree: Clause, doer: Nominal) -> Phrase:
        """What the subject is like, how old it is, or what it is worth."""
        if self.chance(0.3) and not tree.modal and not tree.frequency:
            return self.pick(AGES if doer.kind != "thing" or self.chance(0.3) else PRICES)
        adjective = self.pick(ADJECTIVES[doer.kind])
        return Phrase(adjective.english, adjective.german)
