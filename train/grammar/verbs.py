"""Verbs: English beside German, with the frame that both fill.

Verbs stand below what they share: the frame, the kinds of their subjects, after ``>`` those of
their objects, and what else is true of them. A verb gives its principal parts: present, past,
participle in English; infinitive, third person, participle in German, the participle with *ist*
where its auxiliary is *sein*. ``|`` marks a separable prefix, and a last column the case or
preposition that a German verb asks of its object.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from train.grammar.lexicon import Case, Kind, kinds, rows


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def name(self) -> str:
        """What tells it from all others: *know* is kennen or wissen, *wake up* is two verbs."""
        return f"{self.english[0]} {self.prefix}{self.infinitive} {self.preposition}".strip()


PARTICLES = {"up", "on", "off", "along", "asleep", "back", "out"}


def verbs(table: str) -> tuple[Verb, ...]:
    """Reads a table of verbs."""
    found = []
    for english, *german in rows(table):
        if not german:
            frame, _, rest = english.partition(": ")
            roles, *notes = rest.split("; ")
            subjects, _, objects = roles.partition(" > ")
            only = [note.removeprefix("only ") for note in notes if note.startswith("only ")]
            continue
        base, past, english_participle = english.split(", ")
        base, _, particle = base.partition(" ")
        infinitive, third_person, participle = german[0].split(", ")
        prefix, _, infinitive = infinitive.rpartition("|")
        *preposition, case = german[1].split() if german[1:] else ["acc"]
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
                subjects=kinds(subjects),
                objects=kinds(objects),
                only=frozenset(" ".join(only).split()),
                manner="manner" in notes,
                state="state" in notes,
            )
        )
    return tuple(found)


(COPULA,) = verbs(
    """
    copula: person animal thing; state
        be, was, been                       sein, ist, ist gewesen
    """
)

# People eat, animals feed: German has a verb for each.
VERBS = verbs(
    """
    object: person animal > person animal thing
        see, saw, seen                      sehen, sieht, gesehen
        find, found, found                  finden, findet, gefunden
        look for, looked, looked            suchen, sucht, gesucht
        look at, looked, looked             an|sehen, sieht, angesehen
        think of, thought, thought          denken, denkt, gedacht                an acc
    object: person animal > person animal thing; state
        know, knew, known                   kennen, kennt, gekannt
        love, loved, loved                  lieben, liebt, geliebt
    object: person animal > person animal
        hear, heard, heard                  hören, hört, gehört
        wake up, woke, woken                auf|wecken, weckt, aufgeweckt
        wait for, waited, waited            warten, wartet, gewartet              auf acc
        help, helped, helped                helfen, hilft, geholfen               dat
        follow, followed, followed          folgen, folgt, ist gefolgt            dat
        play with, played, played           spielen, spielt, gespielt             mit dat
    object: person > person animal thing
        forget, forgot, forgotten           vergessen, vergisst, vergessen
        talk about, talked, talked          sprechen, spricht, gesprochen         über acc
        laugh at, laughed, laughed          lachen, lacht, gelacht                über acc
    object: person > person
        invite, invited, invited            ein|laden, lädt, eingeladen
        call, called, called                an|rufen, ruft, angerufen
        pick up, picked, picked             ab|holen, holt, abgeholt
        answer, answered, answered          antworten, antwortet, geantwortet     dat
        talk to, talked, talked             sprechen, spricht, gesprochen         mit dat
    object: person > animal thing
        buy, bought, bought                 kaufen, kauft, gekauft
        sell, sold, sold                    verkaufen, verkauft, verkauft
    object: person > thing; only door window suitcase bag; manner
        open, opened, opened                auf|machen, macht, aufgemacht
        close, closed, closed               zu|machen, macht, zugemacht
    object: person > thing; only lamp machine computer
        turn on, turned, turned             ein|schalten, schaltet, eingeschaltet
        turn off, turned, turned            aus|schalten, schaltet, ausgeschaltet
    object: person > thing; only book letter newspaper; manner
        write, wrote, written               schreiben, schreibt, geschrieben
    object: person > thing; only apple egg potato; manner
        eat, ate, eaten                     essen, isst, gegessen
    object: animal > thing; only apple egg potato; manner
        eat, ate, eaten                     fressen, frisst, gefressen
    object: thing > person; state
        belong to, belonged, belonged       gehören, gehört, gehört               dat
    gift: person > thing
        give, gave, given                   geben, gibt, gegeben
        lend, lent, lent                    leihen, leiht, geliehen
    gift: person > person animal thing
        show, showed, shown                 zeigen, zeigt, gezeigt
    alone: person animal
        sleep, slept, slept                 schlafen, schläft, geschlafen
        wait, waited, waited                warten, wartet, gewartet
        fall asleep, fell, fallen           ein|schlafen, schläft, ist eingeschlafen
        wake up, woke, woken                auf|wachen, wacht, ist aufgewacht
        come back, came, come               zurück|kommen, kommt, ist zurückgekommen
    alone: person; manner
        work, worked, worked                arbeiten, arbeitet, gearbeitet
        dance, danced, danced               tanzen, tanzt, getanzt
    motion: person animal; manner
        go, went, gone                      gehen, geht, ist gegangen
        run, ran, run                       laufen, läuft, ist gelaufen
    position: person animal
        sit, sat, sat                       sitzen, sitzt, gesessen
        stand, stood, stood                 stehen, steht, gestanden
    that: person
        say, said, said                     sagen, sagt, gesagt
        believe, believed, believed         glauben, glaubt, geglaubt
        hope, hoped, hoped                  hoffen, hofft, gehofft
        see, saw, seen                      sehen, sieht, gesehen
    that: person; state
        know, knew, known                   wissen, weiß, gewusst
    that: person > person
        tell, told, told                    erzählen, erzählt, erzählt            dat
    question: person; state
        know, knew, known                   wissen, weiß, gewusst
    question: person
        find out, found, found              heraus|finden, findet, herausgefunden
    question: person > person
        ask, asked, asked                   fragen, fragt, gefragt
    infinitive: person
        try, tried, tried                   versuchen, versucht, versucht
        hope, hoped, hoped                  hoffen, hofft, gehofft
        forget, forgot, forgotten           vergessen, vergisst, vergessen
    control: person > person
        ask, asked, asked                   bitten, bittet, gebeten
        force, forced, forced               zwingen, zwingt, gezwungen
        allow, allowed, allowed             erlauben, erlaubt, erlaubt            dat
    """
)
