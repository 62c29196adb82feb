"""A few dozen pairs, their files, and a corpus of them."""

from pathlib import Path

from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare

SUBJECTS = {"A dog": "Ein Hund", "Two girls": "Zwei Mädchen", "The old man": "Der alte Mann"}
VERBS = {"runs": "rennt", "sleeps": "schläft", "is laughing": "lacht", "sings": "singt"}
PLACES = {"in the garden": "im Garten", "at home": "zu Hause", "here": "hier"}
PAIRS = [
    (f"{s} {v} {p}.", f"{SUBJECTS[s]} {VERBS[v]} {PLACES[p]}.")
    for s in SUBJECTS
    for v in VERBS
    for p in PLACES
]
VALID = [("A dog sings at home.", "Ein Hund singt zu Hause."), ("@@", "@@"), ("", "nichts")]


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def make_corpus(directory: Path, vocab_size: int = 300, keep_text: bool = False) -> Corpus:
    """A corpus of a few dozen training pairs and a few validation pairs."""
    paths = []
    for name, pairs in (("train", PAIRS), ("valid", PAIRS[::7])):
        for side in (0, 1):
            path = directory / f"{name}.{side}"
            path.write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
            paths.append(path)
    return prepare(*paths, directory / "corpus", vocab_size=vocab_size, keep_text=keep_text)
