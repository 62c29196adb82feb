"""Nouns, adjectives and adverbials: English beside German, with what each grammar must know.

Columns are separated by two blanks or more. A noun gives singular/plural in both languages; the
article gives its gender; a last column holds the ending of the weak nouns (der Junge, den Jungen).
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["person", "animal", "thing"]
KINDS: tuple[Kind, ...] = ("person", "animal", "thing")
Gender = Literal["m", "f", "n"]
Case = Literal["nom", "acc", "dat"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that need no grammar: the same everywhere in a sentence."""

    english: str
    german: str


@dataclass(frozen=True, eq=False, slots=True)
class Noun:
    """A noun with its plural in both languages."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: Gender
    weak_ending: str
    kind: Kind


@dataclass(frozen=True, eq=False, slots=True)
class Adjective:
    """An adjective; ``stem`` takes the German endings (teuer, but ein teures Haus)."""

    english: str
    german: str
    stem: str
    kinds: frozenset[Kind]


def rows(table: str) -> list[list[str]]:
    """The lines of a table, each cut at two blanks or more."""
    return [re.split(r"  +", line.strip()) for line in table.strip().splitlines()]


def nouns(kind: Kind, table: str) -> tuple[Noun, ...]:
    """Reads a table of nouns."""
    genders: dict[str, Gender] = {"der": "m", "die": "f", "das": "n"}
    found = []
    for english, german, *weak in rows(table):
        article, forms = german.split()
        one, many = english.split("/")
        eins, viele = forms.split("/")
        ending = weak[0].strip("-") if weak else ""
        found.append(Noun(one, many, eins, viele, genders[article], ending, kind))
    return tuple(found)


PEOPLE = nouns(
    "person",
    """
    man/men                    der Mann/Männer
    woman/women                die Frau/Frauen
    child/children             das Kind/Kinder
    boy/boys                   der Junge/Jungen                 -n
    girl/girls                 das Mädchen/Mädchen
    teacher/teachers           der Lehrer/Lehrer
    doctor/doctors             der Arzt/Ärzte
    friend/friends             der Freund/Freunde
    neighbour/neighbours       der Nachbar/Nachbarn             -n
    student/students           der Student/Studenten            -en
    mother/mothers             die Mutter/Mütter
    father/fathers             der Vater/Väter
    sister/sisters             die Schwester/Schwestern
    brother/brothers           der Bruder/Brüder
    """,
)

ANIMALS = nouns(
    "animal",
    """
    dog/dogs                   der Hund/Hunde
    cat/cats                   die Katze/Katzen
    horse/horses               das Pferd/Pferde
    cow/cows                   die Kuh/Kühe
    bear/bears                 der Bär/Bären                    -en
    mouse/mice                 die Maus/Mäuse
    bird/birds                 der Vogel/Vögel
    """,
)

THINGS = nouns(
    "thing",
    """
    book/books                 das Buch/Bücher
    letter/letters             der Brief/Briefe
    newspaper/newspapers       die Zeitung/Zeitungen
    car/cars                   das Auto/Autos
    lamp/lamps                 die Lampe/Lampen
    machine/machines           die Maschine/Maschinen
    computer/computers         der Computer/Computer
    key/keys                   der Schlüssel/Schlüssel
    suitcase/suitcases         der Koffer/Koffer
    bag/bags                   die Tasche/Taschen
    door/doors                 die Tür/Türen
    window/windows             das Fenster/Fenster
    apple/apples               der Apfel/Äpfel
    egg/eggs                   das Ei/Eier
    potato/potatoes            die Kartoffel/Kartoffeln
    """,
)

# Where one is, by the preposition that the place asks for, and how one gets there.
INSIDE = nouns(
    "thing",
    """
    garden/gardens             der Garten/Gärten
    kitchen/kitchens           die Küche/Küchen
    house/houses               das Haus/Häuser
    forest/forests             der Wald/Wälder
    school/schools             die Schule/Schulen
    """,
)
BESIDE = nouns(
    "thing",
    """
    station/stations           der Bahnhof/Bahnhöfe
    river/rivers               der Fluss/Flüsse
    church/churches            die Kirche/Kirchen
    """,
)
ATOP = nouns(
    "thing",
    """
    bridge/bridges             die Brücke/Brücken
    roof/roofs                 das Dach/Dächer
    """,
)
PLACES = INSIDE + BESIDE + ATOP

NAMES = ("Anna", "Peter", "Maria", "Paul", "Clara", "Jonas", "Eva", "Martin")


def kinds(names: str) -> frozenset[Kind]:
    """Reads kinds of nouns: "person animal"."""
    return frozenset(kind for kind in KINDS if kind in names.split())


def adjectives(table: str) -> tuple[Adjective, ...]:
    """Reads a table of adjectives, below the kinds of nouns that they modify.

    Columns are English, German, and the German stem where it differs.
    """
    found = []
    for english, *german in rows(table):
        if not german:
            modified = kinds(english)
        else:
            found.append(Adjective(english, german[0], german[-1].strip("-"), modified))
    return tuple(found)


ADJECTIVES = adjectives(
    """
    person animal thing
        old           alt
        big           groß
        small         klein
        beautiful     schön
    person animal
        loud          laut
        young         jung
        happy         glücklich
        sad           traurig
        tired         müde         müd-
        hungry        hungrig
        ill           krank
    animal thing
        white         weiß
        black         schwarz
        brown         braun
    thing
        new           neu
        dark          dunkel       dunkl-
        red           rot
        green         grün
    """
)


def phrases(table: str) -> tuple[Phrase, ...]:
    """Reads a table of phrases."""
    return tuple(Phrase(english, german) for english, german in rows(table))


FREQUENCY = phrases(
    """
    often         oft
    always        immer
    never         nie
    sometimes     manchmal
    """
)
MANNER = phrases(
    """
    slowly        langsam
    quickly       schnell
    carefully     vorsichtig
    """
)
PRESENT_TIMES = phrases(
    """
    today              heute
    now                jetzt
    """
)
REPEATED_TIMES = phrases(
    """
    every day          jeden Tag
    every week         jede Woche
    """
)
TIMES_OF_DAY = phrases(
    """
    in the morning     am Morgen
    in the evening     am Abend
    """
)
PAST_TIMES = phrases(
    """
    yesterday          gestern
    last week          letzte Woche
    last year          letztes Jahr
    """
)
FUTURE_TIMES = phrases(
    """
    tomorrow           morgen
    today              heute
    next week          nächste Woche
    next year          nächstes Jahr
    """
)
WEEKDAYS = phrases(
    """
    Monday      Montag
    Tuesday     Dienstag
    Wednesday   Mittwoch
    Thursday    Donnerstag
    Friday      Freitag
    Saturday    Samstag
    Sunday      Sonntag
    """
)
MONTHS = phrases(
    """
    January     Januar
    February    Februar
    March       März
    April       April
    May         Mai
    June        Juni
    July        Juli
    August      August
    September   September
    October     Oktober
    November    November
    December    Dezember
    """
)
