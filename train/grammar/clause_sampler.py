"""Draws clauses: a verb, the arguments that its frame requires, and adverbials."""

from train.grammar import function_words as words
from train.grammar import lexicon, verbs
from train.grammar.coreference import may_corefer
from train.grammar.lexicon import Kind, Noun, Phrase
from train.grammar.noun_phrase_sampler import NounPhraseSampler
from train.grammar.numbers import AGES, CLOCK, DATES, DAYS, PRICES
from train.grammar.selection import ADJECTIVES, VERBS, takes
from train.grammar.syntax import (
    Clause,
    Extracted,
    Link,
    Modal,
    Nominal,
    NounPhrase,
    Place,
    Pronoun,
    Tense,
)
from train.grammar.verbs import Verb

# How often each frame is drawn, by what the subject is; clauses that may embed others draw
# EMBEDDING as well.
FRAMES: dict[Kind, tuple[str, ...]] = {
    "person": ("object",) * 9 + ("gift",) * 3 + ("alone", "alone", "motion", "position", "copula"),
    "animal": ("object",) * 8 + ("alone", "alone", "motion", "position", "copula"),
    "thing": ("object", "copula", "copula"),
}
EMBEDDING = ("that", "that", "question", "infinitive", "control")


def has_relative(tree: Clause) -> bool:
    """Whether the object has a relative clause, which then comes last."""
    return isinstance(tree.object, NounPhrase) and tree.object.relative is not None


class ClauseSampler(NounPhraseSampler):
    """Draws clauses, relative clauses among them."""

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

        ``extracted``: the object, where the clause begins with it; ``head``: the noun that a
        relative clause modifies; ``it``: a pronoun whose antecedent has been named. A ``plain``
        clause has no time, which could belong to a verb that follows; a ``main`` one may begin
        with it.
        """
        tense = tense or self.tense()
        negated = not extracted and link not in words.TIMELESS and self.chance(0.15)
        verb = None
        while verb is None:
            agent = subject or self.subject(
                it, extracted, negated=negated, depth=depth, tense=tense
            )
            verb = self.verb(agent, extracted, head, depth, link)
        modal = None
        timeless = tense == "pluperfect" or link in words.TIMELESS
        nobody = isinstance(agent, NounPhrase) and agent.determiner is words.NO
        if not (verb.state or nobody or timeless):
            modal = self.modal(tense, negated=negated) if self.chance(0.3) else None
        frequency = None
        indefinite = (words.NO, words.MANY, words.SOME)
        quantified = isinstance(agent, NounPhrase) and agent.determiner in indefinite
        if not (negated or quantified or timeless):
            frequency = self.pick(lexicon.FREQUENCY) if self.chance(0.12) else None
        tree = Clause(
            verb,
            agent,
            tense=tense,
            link=link,
            modal=modal,
            negated=negated,
            frequency=frequency,
            object=extracted,
        )
        self.complete(tree, agent, depth, it)
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

    def infinitive(self, agent: Nominal, depth: int, link: Link) -> Clause:
        """An infinitive clause; ``agent``, its understood subject, is named in the outer clause."""
        verb = None
        while verb is None or verb.state:
            verb = self.verb(agent, None, None, depth, link)
        tree = Clause(verb, None, link=link)
        self.complete(tree, agent, depth, None)
        return tree

    def relative(self, head: Noun, plural: bool, depth: int, tense: Tense) -> Clause:
        """*The dog that sees the cat* or *that the cat sees*: word order alone tells which."""
        gap = Extracted("relative", head.gender, 3 if plural else 2, head.kind)
        if self.chance(0.5) or head.kind == "thing":
            return self.clause(tense=tense, extracted=gap, head=head, plain=True)
        return self.clause(depth=depth, tense=tense, subject=gap, head=head, plain=True)

    def complete(self, tree: Clause, agent: Nominal, depth: int, it: Pronoun | None) -> None:
        """Adds the arguments that the verb's frame requires, and perhaps manner and place."""
        verb = tree.verb
        manner = self.pick(lexicon.MANNER) if verb.manner and self.chance(0.3) else None
        placed = tree.link is not words.WHERE and not verb.state and self.chance(0.2)
        place = self.place() if placed else None
        match verb.frame:
            case "copula":
                tree.predicate = self.predicate(tree, agent)
            case "position":
                tree.place = self.place()
            case "motion":
                tree.direction, tree.manner = self.direction(), manner
            case "alone":
                tree.place, tree.manner = place, manner
            case "that" | "question":
                if verb.objects:
                    tree.object = self.target(verb, agent, definite=True)
                link = words.THAT if verb.frame == "that" else self.pick(words.QUESTIONS)
                tense = self.within(tree.tense)
                tree.complement = self.clause(depth=depth - 1, tense=tense, link=link)
            case "infinitive":
                tree.complement = self.infinitive(agent, depth - 1, words.TO)
            case "control":
                tree.object = self.target(verb, agent, definite=True)
                tree.complement = self.infinitive(tree.object, depth - 1, words.TO)
            case "object" | "gift":
                self.complete_with_object(tree, agent, depth, it, manner, place)

    def complete_with_object(
        self,
        tree: Clause,
        agent: Nominal,
        depth: int,
        it: Pronoun | None,
        manner: Phrase | None,
        place: Place | None,
    ) -> None:
        """Adds the objects, and perhaps manner and place."""
        verb = tree.verb
        definite = tree.negated or bool(tree.frequency or tree.modal) or tree.subject is None
        simple = verb.frame == "gift"
        if simple:
            tree.recipient = self.recipient(agent, definite=definite)
        if tree.object_is_extracted:
            tree.place = place
            return
        if it and not simple and not verb.preposition and it.kind in verb.objects:
            fits = not verb.only and not may_corefer(it, agent)
            if fits and self.chance(0.5):
                tree.object, tree.manner, tree.place = it, manner, place
                return
        tense = None if tree.subject is None else self.within(tree.tense)
        tree.object = self.target(
            verb, agent, definite=definite, depth=depth, tense=tense, simple=simple
        )
        if not has_relative(tree):
            tree.manner, tree.place = manner, place

    def verb(
        self,
        agent: Nominal,
        extracted: Extracted | None,
        head: Noun | None,
        depth: int,
        link: Link | None,
    ) -> Verb | None:
        """A verb for its subject and an extracted object; None if the draw does not fit."""
        kind = agent.kind
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
        if depth > 0 and kind == "person" and self.chance(self.embedding_rate):
            return self.pick(VERBS[self.pick(EMBEDDING), kind])
        frame = self.pick(FRAMES[kind])
        if link is words.WHERE and frame in ("position", "motion"):
            return None
        return verbs.COPULA if frame == "copula" else self.pick(VERBS[frame, kind])

    def modal(self, tense: Tense, *, negated: bool) -> Modal:
        """A modal verb, or will."""
        modal = self.pick(words.MODALS[tense])
        return words.MUST_NOT if modal is words.MUST and negated else modal

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

    def predicate(self, tree: Clause, agent: Nominal) -> Phrase:
        """What the subject is like, how old it is, or what it is worth."""
        if self.chance(0.3) and not tree.modal and not tree.frequency:
            return self.pick(AGES if agent.kind != "thing" or self.chance(0.3) else PRICES)
        adjective = self.pick(ADJECTIVES[agent.kind])
        return Phrase(adjective.english, adjective.german)
