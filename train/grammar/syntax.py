"""The abstract syntax: the tree that both languages are linearized from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from train.grammar.lexicon import Adjective, Gender, Kind, Noun, Phrase
from train.grammar.verbs import Verb

# First, second and third person singular, and the plural: all that our verbs agree with. (*You*
# is one friend, du; with several, German would need a form that English does not show.)
Agreement = Literal[0, 1, 2, 3]
Tense = Literal["present", "past", "pluperfect"]


@dataclass(frozen=True, slots=True)
class Name:
    """A person's name: the same in every case."""

    text: str
    kind: Kind = "person"
    agreement: Agreement = 2


@dataclass(frozen=True, slots=True)
class Pronoun:
    """A personal pronoun; *it* has three of them, since German tells the antecedent's gender.

    ``antecedent``: what an *it* stands for.
    """

    subject: str
    object: str
    nom: str
    acc: str
    dat: str
    agreement: Agreement
    kind: Kind
    antecedent: "NounPhrase | None" = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a relative clause or a question moves to its beginning.

    ``role`` is "relative", "who" or "what"; gender and number are the antecedent's.
    """

    role: Literal["relative", "who", "what"]
    gender: Gender
    agreement: Agreement
    kind: Kind


@dataclass(frozen=True, eq=False, slots=True)
class Determiner:
    """An article or what takes its place.

    ``endings``: "der", "dieser" and "ein" inflect, each in its way; "viele" only in the plural;
    "" not at all.
    """

    english: str
    german: str
    endings: Literal["der", "dieser", "ein", "viele", ""]


@dataclass(slots=True)
class NounPhrase:
    """A noun with what belongs to it; either ``companion`` (*with the dog*) or ``relative``."""

    determiner: Determiner
    noun: Noun
    plural: bool
    adjectives: tuple[Adjective, ...] = ()
    companion: "NounPhrase | Name | None" = None
    relative: "Clause | None" = None

    @property
    def kind(self) -> Kind:
        """Person, animal or thing."""
        return self.noun.kind

    @property
    def agreement(self) -> Agreement:
        """Third person singular or the plural."""
        return 3 if self.plural else 2


Nominal = NounPhrase | Name | Pronoun | Extracted


@dataclass(frozen=True, slots=True)
class Place:
    """A preposition and its noun phrase; the case tells being there (dat) from getting there."""

    english: str
    german: str
    case: Literal["acc", "dat"]
    phrase: NounPhrase


@dataclass(frozen=True, slots=True)
class Modal:
    """A modal verb, or the future's *will*.

    German forms are those of ich, du, er, wir. An English modal of two words (want to) is a verb
    like others, which asks for *do*.
    """

    present: str
    past: str
    german: Sequence[str]
    german_past: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """What introduces a subordinate clause; ``german_past`` where the past has its own word."""

    english: str
    german: str
    german_past: str = ""


@dataclass(slots=True)
class Clause:
    """One verb and all that it takes along, which the sampler fills in.

    ``link`` is None in main and relative clauses; infinitives have no ``subject``. At most one of
    subject and object is Extracted. ``front`` names what precedes the subject, if anything does.
    """

    verb: Verb
    subject: Nominal | None
    tense: Tense = "present"
    link: Link | None = None
    modal: Modal | None = None
    negated: bool = False
    frequency: Phrase | None = None
    recipient: Nominal | None = None
    object: Nominal | None = None
    predicate: Phrase | None = None
    manner: Phrase | None = None
    place: Place | None = None
    direction: Place | None = None
    time: Phrase | None = None
    complement: "Clause | None" = None
    adjunct: "Clause | None" = None
    front: Literal["time", "adjunct"] | None = None

    @property
    def object_is_extracted(self) -> bool:
        """Whether the clause begins with its object: *(the dog) that the cat sees*."""
        return isinstance(self.object, Extracted)

    @property
    def role(self) -> str:
        """Which kind of clause this is: "main", "relative", or the word that introduces it."""
        if self.link:
            return self.link.english
        for nominal in (self.subject, self.object):
            if isinstance(nominal, Extracted) and nominal.role == "relative":
                return "relative"
        return "main"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A main clause, perhaps with a second: a statement, or a question.

    ``adverb`` is the question's *why*, *where* or *when*.
    """

    clause: Clause
    question: bool = False
    adverb: Phrase | None = None
    conjunction: Phrase | None = None
    second: Clause | None = None


def noun_phrases(clause: Clause) -> Iterator[NounPhrase]:
    """The noun phrases of one clause, without those of the clauses within it."""
    for nominal in (clause.subject, clause.recipient, clause.object):
        if isinstance(nominal, NounPhrase):
            yield nominal
            if isinstance(nominal.companion, NounPhrase):
                yield nominal.companion
    for place in (clause.place, clause.direction):
        if place:
            yield place.phrase


def children(clause: Clause) -> Iterator[Clause]:
    """The clauses directly within a clause."""
    for nominal in (clause.subject, clause.recipient, clause.object):
        if isinstance(nominal, NounPhrase) and nominal.relative:
            yield nominal.relative
    for child in (clause.complement, clause.adjunct):
        if child:
            yield child


def clauses(clause: Clause) -> Iterator[Clause]:
    """A clause and all clauses within it."""
    yield clause
    for child in children(clause):
        yield from clauses(child)


def depth(clause: Clause) -> int:
    """How many clauses lie one within another: 0 for a clause that holds no other."""
    return max((1 + depth(child) for child in children(clause)), default=0)


def main_clauses(sentence: Sentence) -> Iterator[Clause]:
    """The one or two clauses of a sentence that depend on no other."""
    yield sentence.clause
    if sentence.second:
        yield sentence.second
