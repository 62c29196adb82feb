"""The closed classes: determiners, pronouns, modal verbs, conjunctions."""

from train.grammar.lexicon import Gender, Phrase, rows
from train.grammar.numbers import english_number, german_number
from train.grammar.syntax import Determiner, Link, Modal, Pronoun, Tense

THE = Determiner("the", "", "der")
A = Determiner("a", "ein", "ein")
NO = Determiner("no", "kein", "ein")
EVERY = Determiner("every", "jed", "dieser")
ALL = Determiner("all the", "all", "dieser")
MANY = Determiner("many", "viel", "viele")
SOME = Determiner("some", "einig", "viele")
THIS = Determiner("this", "dies", "dieser")
THESE = Determiner("these", "dies", "dieser")
POSSESSIVES = tuple(
    Determiner(english, german, "ein")
    for english, german in (
        ("my", "mein"),
        ("your", "dein"),
        ("his", "sein"),
        ("her", "ihr"),
        ("our", "unser"),
    )
)
NUMBERS = tuple(Determiner(english_number(n), german_number(n), "") for n in range(2, 100))

PRONOUNS = (
    Pronoun("I", "me", "ich", "mich", "mir", 0, "person"),
    Pronoun("you", "you", "du", "dich", "dir", 1, "person"),
    Pronoun("he", "him", "er", "ihn", "ihm", 2, "person"),
    Pronoun("she", "her", "sie", "sie", "ihr", 2, "person"),
    Pronoun("we", "us", "wir", "uns", "uns", 3, "person"),
    Pronoun("they", "them", "sie", "sie", "ihnen", 3, "person"),
)
IT: dict[Gender, tuple[str, str, str]] = {
    "m": ("er", "ihn", "ihm"),
    "f": ("sie", "sie", "ihr"),
    "n": ("es", "es", "ihm"),
}


def modals(table: str) -> tuple[Modal, ...]:
    """Reads a table of modal verbs: English present and past, then the German forms of both."""
    return tuple(
        Modal(present, past, *(tuple(forms.split()) for forms in german))
        for present, past, *german in rows(table)
    )


# A dash where the past is not used.
CAN, MUST, MAY, SHOULD, WANT, WILL = modals(
    """
    can        could        kann kannst kann können           konnte konntest konnte konnten
    must       had to       muss musst muss müssen            musste musstest musste mussten
    may        -            darf darfst darf dürfen
    should     -            sollte solltest sollte sollten
    want to    wanted to    will willst will wollen           wollte wolltest wollte wollten
    will       -            werde wirst wird werden
    """
)
# What one must not do, one may not do in German: muss nicht would mean need not.
MUST_NOT = Modal(MUST.present, MUST.past, MAY.german, MUST.german_past)
MODALS: dict[Tense, tuple[Modal, ...]] = {
    "present": (CAN, MUST, SHOULD, WANT, WILL, WILL),
    "past": (CAN, MUST, WANT),
}

THAT = Link("that", "dass")
WHERE = Link("where", "wo")
QUESTIONS = (
    Link("whether", "ob"),
    Link("whether", "ob"),
    Link("why", "warum"),
    WHERE,
)
TO = Link("to", "")
IN_ORDER_TO = Link("in order to", "um")
BECAUSE = Link("because", "weil")
ALTHOUGH = Link("although", "obwohl")
IF = Link("if", "wenn")
WHEN = Link("when", "wenn", "als")
WHILE = Link("while", "während")
BEFORE = Link("before", "bevor")
AFTER = Link("after", "nachdem")

AND = Phrase("and", "und")
BUT = Phrase("but", "aber")
SO = Phrase("so", "deshalb")
CONJUNCTIONS = (AND, BUT, SO)
WHY = Phrase("why", "warum")

# What introduces a clause that says why or when the main clause holds, as often as listed.
ADJUNCTS: dict[Tense, tuple[Link, ...]] = {
    "present": (BECAUSE, BECAUSE, ALTHOUGH, WHEN, WHEN, WHILE, BEFORE, IF, IF),
    "past": (BECAUSE, BECAUSE, ALTHOUGH, WHEN, WHEN, WHILE, BEFORE, AFTER, AFTER),
}
# Clauses that say when or under what condition: no modal, no *never* in them.
TIMELESS = (WHEN, WHILE, BEFORE, AFTER, IF)
NEARBY = (("behind", "hinter"), ("in front of", "vor"), ("next to", "neben"))

# Determiners with their number, as often as they are listed.
DEFINITE = (
    *((THE, False),) * 8,
    *((A, False),) * 4,
    *((THE, True),) * 3,
    (THIS, False),
    (THESE, True),
    *((word, False) for word in POSSESSIVES[:4]),
    (POSSESSIVES[4], True),
)
QUANTIFIED = (
    *((NO, False),) * 25,
    *((EVERY, False),) * 25,
    *((ALL, True),) * 15,
    *((MANY, True),) * 15,
    *((SOME, True),) * 15,
    *((word, True) for word in NUMBERS),
)
