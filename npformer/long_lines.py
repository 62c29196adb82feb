"""Lines that are too long for the model: split at sentence ends, cut, skipped or refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from npformer.errors import UserError
from npformer.tokenizer import Tokenizer
from npformer.translation import Translation, joined

LongLines = Literal["split", "cut", "skip", "refuse"]

# Where a line may be split: the end of a sentence, or else the end of a word. Chinese and Japanese
# have no spaces between sentences.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[”’」』）]*\s*")
_WORD_END = re.compile(r"\s+")


@dataclass
class DividedLines:
    """Lines as the sentences that are translated: one for most lines, and none for blank ones.

    Attributes:
        numbers: of the lines in their text, for messages
        sentences: the token ids of each sentence
        line_of: the index of each sentence's line
        streams: what random numbers for each sentence depend on: its line, and which part it is
        prefixes: the token ids that each sentence's translation begins with
        glue: what joins a sentence's translation to that of the one before in its line
        has_copy: whether a sentence begins with a copy of its line's tag, which is not in the text
        notes: what was done to lines that are too long
        refusal: why the next line is not among these
    """

    numbers: list[int] = field(default_factory=list)
    sentences: list[list[int]] = field(default_factory=list)
    line_of: list[int] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    prefixes: list[list[int]] = field(default_factory=list)
    glue: list[str] = field(default_factory=list)
    has_copy: list[bool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusal: UserError | None = None

    def add(
        self,
        number: int,
        parts: Sequence[tuple[list[int], str]],
        note: str = "",
        prefix: Sequence[int] = (),
        tag: Sequence[int] = (),
    ) -> None:
        """Add a line of parts: their token ids, and what joins each to the one before.

        prefix: the token ids that the line's translation begins with. tag: those that each part
        begins with, besides its own.
        """
        self.line_of += [len(self.numbers)] * len(parts)
        self.streams += [(number << 24) + i for i in range(len(parts))]
        self.numbers.append(number)
        self.sentences += [[*tag, *ids] for ids, _ in parts]
        self.has_copy += [bool(tag) and i > 0 for i in range(len(parts))]
        self.prefixes += [list(prefix) if i == 0 else [] for i in range(len(parts))]
        self.glue += [glue for _, glue in parts]
        self.notes.append(note)

    def translations(
        self,
        found: Iterable[tuple[int, Translation]],
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[list[Translation]]:
        """The translations of the lines, in order, as many at a time as are complete.

        found: the index and the translation of each sentence, in any order. `progress` is called
        with the number of lines that have become complete.
        """
        of_lines: list[list[int]] = [[] for _ in self.numbers]
        for i, line in enumerate(self.line_of):
            of_lines[line].append(i)
        missing = [len(own) for own in of_lines]
        parts: dict[int, Translation] = {}
        next_line = 0

        def ready() -> list[Translation]:
            nonlocal next_line
            lines = []
            while next_line < len(missing) and not missing[next_line]:
                own = of_lines[next_line]
                whole = joined(
                    [parts.pop(i) for i in own],
                    [self.glue[i] for i in own],
                    [self.has_copy[i] for i in own],
                )
                note = self.notes[next_line]
                lines.append(replace(whole, note=note) if note else whole)
                next_line += 1
            return lines

        if progress:
            progress(missing.count(0))
        if lines := ready():
            yield lines
        for i, translation in found:
            parts[i] = translation
            missing[self.line_of[i]] -= 1
            if progress and not missing[self.line_of[i]]:
                progress(1)
            if lines := ready():
                yield lines


def divide(
    lines: Sequence[str],
    numbers: Sequence[int],
    tokenizer: Tokenizer,
    longest: int,
    long_lines: LongLines,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> DividedLines:
    """The sentences of lines, each of at most `longest` tokens.

    prefixes: for each line the token ids that its translation begins with. Each part of a line that
    is split has its tag. With "refuse", the lines end before one that is too long.
    """
    if long_lines not in get_args(LongLines):
        raise ValueError(
            f"long_lines must be one of {', '.join(get_args(LongLines))}, got {long_lines!r}"
        )
    divided = DividedLines()
    encoded, given = tokenizer.encode_lines(lines), prefixes or [()] * len(lines)
    for line, number, ids, prefix in zip(lines, numbers, encoded, given, strict=True):
        about = f"has {len(ids):,} tokens, more than the {longest:,} that are translated together"
        if len(ids) <= longest:
            divided.add(number, [(ids, "")] if ids else [], prefix=prefix)
        elif long_lines == "split":
            tag, text = tokenizer.split_tag(line)
            room = max(1, longest - len(tag))
            parts = [p for p in _split(text, ids[len(tag) :], tokenizer, room) if p[0]]
            note = f"{about}; it is translated in {len(parts)} parts"
            divided.add(number, parts, note, prefix, tag)
        elif long_lines == "cut":
            divided.add(number, [(ids[:longest], "")], f"{about}; the rest is left out", prefix)
        elif long_lines == "skip":
            divided.add(number, [], f"{about}; it is skipped")
        else:
            divided.refusal = UserError(
                f"line {number:,} {about}; shorten it, or have it split, cut or skipped "
                "(--long-lines)"
            )
            break
    return divided


def _split(
    text: str, ids: list[int], tokenizer: Tokenizer, longest: int, glue: str = ""
) -> Iterator[tuple[list[int], str]]:
    """Parts of a text, of at most `longest` tokens; their token ids, and what joins each."""
    if len(ids) <= longest or len(text) < 2:
        yield ids[:longest], glue
        return
    place, between = _place_to_split(text)
    halves = text[:place], text[place:]
    for half, before in zip(halves, (glue, between), strict=True):
        [own] = tokenizer.encode_lines([half], tags=False)
        yield from _split(half, own, tokenizer, longest, before)


def _place_to_split(text: str) -> tuple[int, str]:
    """Where to split a text in two, and what is to join the translations.

    It is the end of a sentence, or else of a word, that is closest to the middle, and in the second
    or third of four quarters: so every split gets a text closer to its end.
    """
    middle, quarter = len(text) // 2, len(text) // 4
    for end in (_SENTENCE_END, _WORD_END):
        ends = [m.end() for m in end.finditer(text, quarter, len(text) - quarter)]
        if ends := [place for place in ends if 0 < place < len(text)]:
            place = min(ends, key=lambda place: abs(place - middle))
            return place, " " if text[place - 1].isspace() else ""
    return middle, ""
