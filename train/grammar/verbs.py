"""Verbs: English beside German, with the frame that both fill.

A verb gives its principal parts: present, past, participle in English; infinitive, third person,
participle in German, the participle with *ist* where its auxiliary is *sein*. ``|`` marks a
separable prefix, and a last column the case or preposition that a German verb asks of its object.
"""

from dataclasses import dataclass
from typing import Literal

from train.grammar.lexicon import Case, Kind, rows


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb and its frame: who does it, to whom, and which case or preposition says so."""

    frame: str
    english: tuple[str, str, str]  # present, past, participle
    particle: str  # pick *up* the book, pick it *up*
    english_preposition: str  # wait *for* the dog
    infinitive: str
    prefix: str  # *auf*machen
    third_person: str
    participle: str
    auxiliary: Literal["haben", "sein"]
    case: Case  # of the object
    preposition: str  # *auf* den Hund warten
    subjects: frozenset[Kind]
    objects: frozenset[Kind]
    only: frozenset[str]  # the objects it is confined to, where its kinds say too little
    manner: bool  # can be done slowly, quickly ...
    state: bool  # lasts, as knowing does: not at half past three, and not by trying

    @property
    def name(self) -> str:
        """What tells it from all others: *know* is kennen or wissen, *wake up* is two verbs."""
        return f"{self.english[0]} {self.prefix}{self.infinitive} {self.preposition}".strip()


PERSON: frozenset[Kind] = frozenset({"person"})
ANIMAL: frozenset[Kind] = frozenset({"animal"})
THING: frozenset[Kind] = frozenset({"thing"})
ANIMATE = PERSON | ANIMAL
PARTICLES = {"up", "on", "off", "along", "asleep", "back", "out"}


def verbs(
    frame: str,
    subjects: frozenset[Kind],
    objects: frozenset[Kind],
    table: str,
    *,
    only: str = "",
    manner: bool = False,
    state: bool = False,
) -> tuple[Verb, ...]:
    """Reads a table of verbs that share a frame."""
    found = []
    for english, german, *government in rows(table):
        base, past, english_participle = english.split(", ")
        base, _, particle = base.partition(" ")
        infinitive, third_person, participle = german.split(", ")
        prefix, _, infinitive = infinitive.rpartition("|")
        *preposition, case = government[0].split() if government else ["acc"]
        found.append(
            Verb(
                frame=frame,
                english=(base, past, english_participle),
                particle=particle if particle in PARTICLES else "",
                english_preposition="" if particle in PARTICLES else particle,
                infinitive=infinitive,
                prefix=prefix,
                third_person=third_person,
                participle=participle.removeprefix("ist "),
                auxiliary="sein" if participle.startswith("ist ") else "haben",
                case="dat" if case == "dat" else "acc",
                preposition=" ".join(preposition),
                subjects=subjects,
                objects=objects,
                only=frozenset(only.split()),
                manner=manner,
                state=state,
            )
        )
    return tuple(found)


(COPULA,) = verbs(
    "copula", ANIMATE | THING, frozenset(), "be, was, been  sein, ist, ist gewesen", state=True
)

KNOW_A_FACT = "know, knew, known  wissen, weiß, gewusst"

VERBS = (
    verbs(
        "object",
        ANIMATE,
        ANIMATE | THING,
        """
        see, saw, seen                      sehen, sieht, gesehen
        find, found, found                  finden, findet, gefunden
        look for, looked, looked            suchen, sucht, gesucht
        look at, looked, looked             an|sehen, sieht, angesehen
        think of, thought, thought          denken, denkt, gedacht               an acc
        """,
    )
    + verbs(
        "object",
        ANIMATE,
        ANIMATE | THING,
        """
        know, knew, known                   kennen, kennt, gekannt
        love, loved, loved                  lieben, liebt, geliebt
        """,
        state=True,
    )
    + verbs(
        "object",
        ANIMATE,
        ANIMATE,
        """
        hear, heard, heard                  hören, hört, gehört
        wake up, woke, woken                auf|wecken, weckt, aufgeweckt
        wait for, waited, waited            warten, wartet, gewartet             auf acc
        help, helped, helped                helfen, hilft, geholfen              dat
        follow, followed, followed          folgen, folgt, ist gefolgt           dat
        play with, played, played           spielen, spielt, gespielt            mit dat
        """,
    )
    + verbs(
        "object",
        PERSON,
        ANIMATE | THING,
        """
        forget, forgot, forgotten           vergessen, vergisst, vergessen
        talk about, talked, talked          sprechen, spricht, gesprochen        über acc
        laugh at, laughed, laughed          lachen, lacht, gelacht               über acc
        """,
    )
    + verbs(
        "object",
        PERSON,
        PERSON,
        """
        invite, invited, invited            ein|laden, lädt, eingeladen
        call, called, called                an|rufen, ruft, angerufen
        pick up, picked, picked             ab|holen, holt, abgeholt
        answer, answered, answered          antworten, antwortet, geantwortet    dat
        talk to, talked, talked             sprechen, spricht, gesprochen        mit dat
        """,
    )
    + verbs(
        "object",
        PERSON,
        ANIMAL | THING,
        """
        buy, bought, bought                 kaufen, kauft, gekauft
        sell, sold, sold                    verkaufen, verkauft, verkauft
        """,
    )
    + verbs(
        "object",
        PERSON,
        THING,
        """
        open, opened, opened                auf|machen, macht, aufgemacht
        close, closed, closed               zu|machen, macht, zugemacht
        """,
        only="door window suitcase bag",
        manner=True,
    )
    + verbs(
        "object",
        PERSON,
        THING,
        """
        turn on, turned, turned             ein|schalten, schaltet, eingeschaltet
        turn off, turned, turned            aus|schalten, schaltet, ausgeschaltet
        """,
        only="lamp machine computer",
    )
    + verbs(
        "object",
        PERSON,
        THING,
        """
        write, wrote, written               schreiben, schreibt, geschrieben
        """,
        only="book letter newspaper",
        manner=True,
    )
    # People eat, animals feed: German has a verb for each.
    + verbs(
        "object",
        PERSON,
        THING,
        "eat, ate, eaten  essen, isst, gegessen",
        only="apple egg potato",
        manner=True,
    )
    + verbs(
        "object",
        ANIMAL,
        THING,
        "eat, ate, eaten  fressen, frisst, gefressen",
        only="apple egg potato",
        manner=True,
    )
    + verbs(
        "object",
        THING,
        PERSON,
        "belong to, belonged, belonged  gehören, gehört, gehört  dat",
        state=True,
    )
    + verbs(
        "gift",
        PERSON,
        THING,
        """
        give, gave, given                   geben, gibt, gegeben
        lend, lent, lent                    leihen, leiht, geliehen
        """,
    )
    + verbs(
        "gift",
        PERSON,
        ANIMATE | THING,
        "show, showed, shown  zeigen, zeigt, gezeigt",
    )
    + verbs(
        "alone",
        ANIMATE,
        frozenset(),
        """
        sleep, slept, slept                 schlafen, schläft, geschlafen
        wait, waited, waited                warten, wartet, gewartet
        fall asleep, fell, fallen           ein|schlafen, schläft, ist eingeschlafen
        wake up, woke, woken                auf|wachen, wacht, ist aufgewacht
        come back, came, come               zurück|kommen, kommt, ist zurückgekommen
        """,
    )
    + verbs(
        "alone",
        PERSON,
        frozenset(),
        """
        work, worked, worked                arbeiten, arbeitet, gearbeitet
        dance, danced, danced               tanzen, tanzt, getanzt
        """,
        manner=True,
    )
    + verbs(
        "motion",
        ANIMATE,
        frozenset(),
        """
        go, went, gone                      gehen, geht, ist gegangen
        run, ran, run                       laufen, läuft, ist gelaufen
        """,
        manner=True,
    )
    + verbs(
        "position",
        ANIMATE,
        frozenset(),
        """
        sit, sat, sat                       sitzen, sitzt, gesessen
        stand, stood, stood                 stehen, steht, gestanden
        """,
    )
    + verbs(
        "that",
        PERSON,
        frozenset(),
        """
        say, said, said                     sagen, sagt, gesagt
        believe, believed, believed         glauben, glaubt, geglaubt
        hope, hoped, hoped                  hoffen, hofft, gehofft
        see, saw, seen                      sehen, sieht, gesehen
        """,
    )
    + verbs("that", PERSON, frozenset(), KNOW_A_FACT, state=True)
    + verbs("that", PERSON, PERSON, "tell, told, told  erzählen, erzählt, erzählt  dat")
    + verbs("question", PERSON, frozenset(), KNOW_A_FACT, state=True)
    + verbs(
        "question",
        PERSON,
        frozenset(),
        "find out, found, found  heraus|finden, findet, herausgefunden",
    )
    + verbs("question", PERSON, PERSON, "ask, asked, asked  fragen, fragt, gefragt")
    + verbs(
        "infinitive",
        PERSON,
        frozenset(),
        """
        try, tried, tried                   versuchen, versucht, versucht
        hope, hoped, hoped                  hoffen, hofft, gehofft
        forget, forgot, forgotten           vergessen, vergisst, vergessen
        """,
    )
    + verbs(
        "control",
        PERSON,
        PERSON,
        """
        ask, asked, asked                   bitten, bittet, gebeten
        force, forced, forced               zwingen, zwingt, gezwungen
        allow, allowed, allowed             erlauben, erlaubt, erlaubt           dat
        """,
    )
)
