"""From a tree to a written sentence, and back to its word forms."""

from typing import NamedTuple

from train.grammar.english import English
from train.grammar.german import German
from train.grammar.syntax import Sentence

PUNCTUATION = (",", ".", "?")
ENGLISH, GERMAN = English(), German()


class Pair(NamedTuple):
    """A sentence and its translation, as plain text."""

    source: str
    target: str


def written(words: list[str]) -> str:
    """Words and punctuation marks as a written sentence.

    Each clause brings its own commas: of two that meet one stays, and none before the full stop.
    """
    text = ""
    pending = ""
    for word in words:
        if word == ",":
            pending = "," if text else ""
        elif word in PUNCTUATION:
            text += word
        else:
            text += f"{pending} {word}" if text else word
            pending = ""
    return text[0].upper() + text[1:]


def translate(sentence: Sentence) -> Pair:
    """A tree in both languages."""
    return Pair(written(ENGLISH.sentence(sentence)), written(GERMAN.sentence(sentence)))


def word_forms(text: str) -> list[str]:
    """The words of a written sentence without punctuation and without its first capital."""
    text = text.translate({ord(mark): None for mark in ",.?"})
    return (text[0].lower() + text[1:]).split()
