"""The closed classes: determiners, pronouns, modal verbs, and what links clauses."""

from train.grammar.lexicon import Gender, Phrase
from train.grammar.numbers import english_number, german_number
from train.grammar.syntax import Determiner, Link, Modal, Pronoun

THE = Determiner("the", "", "der", "weak")
A = Determiner("a", "ein", "ein", "mixed")
NO = Determiner("no", "kein", "ein", "mixed")
EVERY = Determiner("every", "jed", "dieser", "weak")
ALL = Determiner("all the", "all", "dieser", "weak")
MANY = Determiner("many", "viel", "viele", "strong")
SOME = Determiner("some", "einig", "viele", "strong")
THIS = Determiner("this", "dies", "dieser", "weak")
THESE = Determiner("these", "dies", "dieser", "weak")
POSSESSIVES = tuple(
    Determiner(english, german, "ein", "mixed")
    for english, german in (
        ("my", "mein"),
        ("your", "dein"),
        ("his", "sein"),
        ("her", "ihr"),
        ("our", "unser"),
    )
)
NUMBERS = tuple(
    Determiner(english_number(n), german_number(n), "", "strong") for n in range(2, 100)
)

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

CAN = Modal(
    "can",
    "could",
    ("kann", "kannst", "kann", "können"),
    ("konnte", "konntest", "konnte", "konnten"),
)
MUST = Modal(
    "must",
    "had to",
    ("muss", "musst", "muss", "müssen"),
    ("musste", "musstest", "musste", "mussten"),
)
MAY = Modal("may", "", ("darf", "darfst", "darf", "dürfen"), ("", "", "", ""))
# What one must not do, one may not do in German: muss nicht would mean need not.
MUST_NOT = Modal("must", "had to", MAY.german, MUST.german_past)
SHOULD = Modal("should", "", ("sollte", "solltest", "sollte", "sollten"), ("", "", "", ""))
WANT = Modal(
    "want to",
    "wanted to",
    ("will", "willst", "will", "wollen"),
    ("wollte", "wolltest", "wollte", "wollten"),
)
WILL = Modal("will", "", ("werde", "wirst", "wird", "werden"), ("", "", "", ""))
PRESENT_MODALS = (CAN, MUST, SHOULD, WANT, WILL, WILL)
PAST_MODALS = (CAN, MUST, WANT)

THAT = Link("that", "dass", "dass")
WHERE = Link("where", "wo", "wo")
QUESTIONS = (
    Link("whether", "ob", "ob"),
    Link("whether", "ob", "ob"),
    Link("why", "warum", "warum"),
    WHERE,
)
TO = Link("to", "", "")
IN_ORDER_TO = Link("in order to", "um", "um")
BECAUSE = Link("because", "weil", "weil")
ALTHOUGH = Link("although", "obwohl", "obwohl")
IF = Link("if", "wenn", "wenn")
WHEN = Link("when", "wenn", "als")
WHILE = Link("while", "während", "während")
BEFORE = Link("before", "bevor", "bevor")
AFTER = Link("after", "nachdem", "nachdem")

AND = Phrase("and", "und")
BUT = Phrase("but", "aber")
SO = Phrase("so", "deshalb")
WHY = Phrase("why", "warum")

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
