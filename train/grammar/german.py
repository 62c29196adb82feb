# ruff: noqa: SIM905 (a row of endings is easier read than a list of strings)
"""Linearizes trees in German: from the tree to the words.

A German clause is laid out in *topological fields*: the finite verb and what else there is of
verbs enclose the middle field like a pair of brackets; one constituent stands before, and heavy
clauses follow after.

    front field   left bracket   middle field            right bracket   after-field
    Heute         hat            der Mann das Buch       gelesen         , das du ihm gibst
                  weil           der Mann das Buch       gelesen hat     , ...
"""

from dataclasses import dataclass

from train.grammar.lexicon import Case, Noun, Phrase
from train.grammar.syntax import (
    Clause,
    Determiner,
    Extracted,
    Name,
    Nominal,
    NounPhrase,
    Place,
    Pronoun,
    Sentence,
)
from train.grammar.verbs import Verb

# Columns are masculine, feminine, neuter, plural.
GENDERS = {"m": 0, "f": 1, "n": 2}
ARTICLES: dict[str, dict[Case, list[str]]] = {
    "der": {
        "nom": "der die das die".split(),
        "acc": "den die das die".split(),
        "dat": "dem der dem den".split(),
    },
    "dieser": {
        "nom": "er e es e".split(),
        "acc": "en e es e".split(),
        "dat": "em er em en".split(),
    },
    "ein": {
        "nom": ["", "e", "", "e"],
        "acc": ["en", "e", "", "e"],
        "dat": ["em", "er", "em", "en"],
    },
    "viele": {"nom": ["e"] * 4, "acc": ["e"] * 4, "dat": ["en"] * 4},
    "": {"nom": [""] * 4, "acc": [""] * 4, "dat": [""] * 4},
}
WEAK: dict[Case, list[str]] = {
    "nom": "e e e en".split(),
    "acc": "en e e en".split(),
    "dat": "en en en en".split(),
}
MIXED: dict[Case, list[str]] = {
    "nom": "er e es en".split(),
    "acc": "en e es en".split(),
    "dat": "en en en en".split(),
}
# After many or twenty-one nothing else has shown the case: the adjective must, as dieser does.
STRONG = ARTICLES["dieser"]
ADJECTIVE_ENDINGS = {"der": WEAK, "dieser": WEAK, "ein": MIXED, "viele": STRONG, "": STRONG}
QUESTION_WORDS: dict[str, dict[Case, str]] = {
    "who": {"nom": "wer", "acc": "wen", "dat": "wem"},
    "what": {"nom": "was", "acc": "was", "dat": "was"},
}
CONTRACTIONS = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("von", "dem"): "vom",
}

# Forms of ich, du, er, wir (and sie, the plural).
HABEN = {
    "present": ("habe", "hast", "hat", "haben"),
    "past": ("hatte", "hattest", "hatte", "hatten"),
}
SEIN = {"present": ("bin", "bist", "ist", "sind"), "past": ("war", "warst", "war", "waren")}
WISSEN = ("weiß", "weißt", "weiß", "wissen")


def present(verb: Verb, person: int) -> str:
    """The finite present, without the prefix."""
    if verb.infinitive == "sein":
        return SEIN["present"][person]
    if verb.infinitive == "wissen":
        return WISSEN[person]
    if person == 0:
        return verb.infinitive.removesuffix("n").removesuffix("e") + "e"
    if person == 1:
        stem = verb.third_person.removesuffix("t")
        # A stem in a hiss swallows the s of -st: du liest, du isst.
        return stem + ("t" if stem.endswith(("s", "ß", "z", "x")) else "st")
    return verb.third_person if person == 2 else verb.infinitive


def case_of_noun(noun: Noun, case: Case, *, plural: bool) -> str:
    """The noun with the endings of weak nouns (den Jungen) and the dative plural (den Hunden)."""
    if plural:
        dative = case == "dat" and not noun.german_plural.endswith(("n", "s"))
        return noun.german_plural + ("n" if dative else "")
    return noun.german + (noun.weak_ending if case != "nom" else "")


def determiner(word: Determiner, column: int, case: Case) -> str:
    """The determiner's form for a gender or the plural (column 3)."""
    return word.german + ARTICLES[word.endings][case][column]


def text(phrase: Phrase | None) -> list[str]:
    """The words of a phrase."""
    return phrase.german.split() if phrase else []


@dataclass(frozen=True, slots=True)
class Fields:
    """A clause cut into its fields, before the kind of clause decides where the verb stands."""

    front: list[str]  # what is extracted or fronted; else empty
    subject: list[str]
    middle: list[str]
    finite: str
    prefix: list[str]  # of a finite separable verb, if it has one
    verbs: list[str]  # the other verbs
    after: list[str]

    @property
    def closing(self) -> list[str]:
        """The right bracket where the finite verb has left it."""
        return [*self.verbs, *self.prefix]


def extracted(phrase: Extracted, case: Case) -> str:
    """A relative pronoun or a question word."""
    if phrase.role != "relative":
        return QUESTION_WORDS[phrase.role][case]
    if phrase.agreement == 3:
        return "denen" if case == "dat" else "die"
    return ARTICLES["der"][case][GENDERS[phrase.gender]]


def verb_complex(tree: Clause, person: int) -> tuple[str, list[str]]:
    """The finite verb, and the participle or infinitive that closes the clause.

    English past is German perfect, but for the modals and for sein, which keep the preterite.
    """
    verb = tree.verb
    if tree.modal:
        forms = tree.modal.german if tree.tense == "present" else tree.modal.german_past
        return forms[person], [verb.prefix + verb.infinitive]
    if tree.tense == "present":
        return present(verb, person), []
    if verb.infinitive == "sein" and tree.tense == "past":
        return SEIN["past"][person], []
    auxiliary = SEIN if verb.auxiliary == "sein" else HABEN
    return auxiliary["present" if tree.tense == "past" else "past"][person], [verb.participle]


class German:
    """Linearizes trees in German."""

    def head(self, phrase: Nominal, case: Case) -> list[str]:
        """A noun phrase without its relative clause, a name, or a pronoun."""
        if isinstance(phrase, Name):
            return [phrase.text]
        if isinstance(phrase, Pronoun):
            return [{"nom": phrase.nom, "acc": phrase.acc, "dat": phrase.dat}[case]]
        if isinstance(phrase, Extracted):
            return [extracted(phrase, case)]
        words = self.noun_group(phrase, case)
        if phrase.companion:
            words += self.prepositional("mit", phrase.companion, "dat")
        return words

    def noun_group(self, phrase: NounPhrase, case: Case) -> list[str]:
        """The determiner, the adjectives and the noun."""
        column = 3 if phrase.plural else GENDERS[phrase.noun.gender]
        ending = ADJECTIVE_ENDINGS[phrase.determiner.endings][case][column]
        return [
            determiner(phrase.determiner, column, case),
            *(adjective.stem + ending for adjective in phrase.adjectives),
            case_of_noun(phrase.noun, case, plural=phrase.plural),
        ]

    def relative(self, phrase: Nominal | None) -> list[str]:
        """The relative clause of a noun phrase, in its commas."""
        if isinstance(phrase, NounPhrase) and phrase.relative:
            return [",", *self.verb_final(phrase.relative), ","]
        return []

    def prepositional(self, preposition: str, phrase: Nominal, case: Case) -> list[str]:
        """A preposition and its phrase, contracted with the article where German does so."""
        words = self.head(phrase, case)
        # No contraction before a relative clause, which stresses the article (in dem Haus, das
        # ...), nor of a relative pronoun.
        contracts = isinstance(phrase, NounPhrase) and not phrase.relative
        contracted = self.contraction(preposition, words[0]) if contracts else None
        return [contracted, *words[1:]] if contracted else [preposition, *words]

    def contraction(self, preposition: str, article: str) -> str | None:
        """A preposition and an article in one word, where German has one."""
        return CONTRACTIONS.get((preposition, article))

    def place(self, where: Place | None) -> list[str]:
        """A place (dative) or a direction (accusative, or zu)."""
        return self.prepositional(where.german, where.phrase, where.case) if where else []

    def fields(self, tree: Clause) -> Fields:
        """Lays out a finite clause."""
        assert tree.subject is not None
        finite, verbs = verb_complex(tree, tree.subject.agreement)
        front: list[str] = []
        subject: list[str] = []
        if isinstance(tree.subject, Extracted):
            front = self.head(tree.subject, "nom")
        else:
            subject = self.head(tree.subject, "nom") + self.relative(tree.subject)
        if isinstance(tree.object, Extracted):
            front = self.governed(tree.verb, tree.object)
        elif tree.front == "time":
            front = text(tree.time)
        elif tree.front == "adjunct" and tree.adjunct:
            front = [*self.subordinate(tree.adjunct), ","]
        return Fields(
            front=front,
            subject=subject,
            middle=self.middle_field(tree),
            finite=finite,
            prefix=tree.verb.prefix.split() if not verbs else [],
            verbs=verbs,
            after=self.after_field(tree),
        )

    def governed(self, verb: Verb, phrase: Nominal) -> list[str]:
        """The object with the case or the preposition that its verb asks for."""
        if verb.preposition:
            return self.prepositional(verb.preposition, phrase, verb.case)
        return self.head(phrase, verb.case)

    def middle_field(self, tree: Clause) -> list[str]:
        """All between the brackets but the subject, in one fixed order.

        Pronoun, time, recipient, frequency, object, nicht, manner, place, direction, predicate; an
        object with a preposition comes late, with nicht before it.
        """
        pronouns: list[str] = []
        recipient: list[str] = []
        target: list[str] = []
        if tree.recipient:
            given_to = pronouns if isinstance(tree.recipient, Pronoun) else recipient
            given_to += self.head(tree.recipient, "dat")
        if tree.object and not tree.object_is_extracted:
            bare_pronoun = isinstance(tree.object, Pronoun) and not tree.verb.preposition
            (pronouns if bare_pronoun else target).extend(self.governed(tree.verb, tree.object))
        not_ = ["nicht"] if tree.negated else []
        words = [*pronouns, *(text(tree.time) if tree.front != "time" else []), *recipient]
        words += text(tree.frequency)
        if tree.verb.preposition:
            words += [*self.place(tree.place), *not_, *target]
        else:
            if (
                not_
                and isinstance(tree.object, NounPhrase)
                and tree.object.determiner.german == "ein"
            ):
                # not a dog: kein Hund
                target, not_ = ["k" + target[0], *target[1:]], []
            words += [*target, *not_, *text(tree.manner), *self.place(tree.place)]
        return [*words, *self.place(tree.direction), *text(tree.predicate)]

    def after_field(self, tree: Clause) -> list[str]:
        """What is too heavy for the middle field: relative clause, complement, adjunct."""
        words = self.relative(tree.object)
        if tree.complement:
            words += [*self.subordinate(tree.complement), ","]
        if tree.adjunct and tree.front != "adjunct":
            words += [*self.subordinate(tree.adjunct), ","]
        return words

    def verb_second(self, tree: Clause, front: list[str] | None = None) -> list[str]:
        """A main clause: the finite verb second, whatever stands first."""
        parts = self.fields(tree)
        front = front or parts.front
        before, inside = (front, parts.subject) if front else (parts.subject, [])
        return [*before, parts.finite, *inside, *parts.middle, *parts.closing, *parts.after]

    def verb_first(self, tree: Clause) -> list[str]:
        """A question that asks for yes or no."""
        parts = self.fields(tree)
        return [parts.finite, *parts.subject, *parts.middle, *parts.closing, *parts.after]

    def verb_final(self, tree: Clause) -> list[str]:
        """A subordinate clause: all verbs at its end, the finite one last."""
        parts = self.fields(tree)
        closing = [*parts.verbs, "".join(parts.prefix) + parts.finite]
        return [*parts.front, *parts.subject, *parts.middle, *closing, *parts.after]

    def infinitive(self, tree: Clause) -> list[str]:
        """A clause without subject: zu before the verb, or after its prefix (aufzumachen)."""
        verb = tree.verb
        closing = [f"{verb.prefix}zu{verb.infinitive}"] if verb.prefix else ["zu", verb.infinitive]
        return [*self.middle_field(tree), *closing, *self.after_field(tree)]

    def subordinate(self, tree: Clause) -> list[str]:
        """A clause with what introduces it, after its comma."""
        assert tree.link is not None
        past = tree.link.german_past if tree.tense != "present" else ""
        words = self.infinitive(tree) if tree.subject is None else self.verb_final(tree)
        return [",", *(past or tree.link.german).split(), *words]

    def sentence(self, tree: Sentence) -> list[str]:
        """The words and punctuation marks of a sentence."""
        first = tree.clause
        if tree.question:
            asks_for_part = isinstance(first.subject, Extracted) or isinstance(
                first.object, Extracted
            )
            if tree.adverb or asks_for_part:
                return [*self.verb_second(first, text(tree.adverb)), "?"]
            return [*self.verb_first(first), "?"]
        words = self.verb_second(first)
        if tree.second and tree.conjunction:
            # *so* is an adverb, deshalb: it stands in front, and the subject follows the verb.
            adverb = tree.conjunction.german == "deshalb"
            words += [] if tree.conjunction.german == "und" else [","]
            words += (
                self.verb_second(tree.second, ["deshalb"])
                if adverb
                else [tree.conjunction.german, *self.verb_second(tree.second)]
            )
        return [*words, "."]
