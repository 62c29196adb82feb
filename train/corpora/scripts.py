"""Whether a sentence is written in a script of Unicode, such as Latin, Cyrillic or Han."""

from __future__ import annotations

from collections.abc import Sequence

import regex

from npformer.errors import UserError


class Scripts:
    """Scripts that a language is written in: one, or several as Han, Hiragana and Katakana.

    Raises UserError for a name that is not Unicode's.
    """

    def __init__(self, names: Sequence[str]) -> None:
        for name in names:
            if not _is_script(name):
                raise UserError(
                    f"there is no script {name!r} in Unicode; they are called Latin, Cyrillic, "
                    "Greek, Arabic, Hebrew, Devanagari, Han, Hiragana, Katakana, Hangul, ..."
                )
        ours = "".join(rf"\p{{Script={name}}}" for name in names)
        # Common are letters that no script has for its own, as the mark of a long vowel in kana.
        letters = r"\p{L}--[\p{Script=Common}\p{Script=Inherited}]"
        self._ours = regex.compile(rf"(?V1)[{letters}&&[{ours}]]+")
        self._others = regex.compile(rf"(?V1)[{letters}--[{ours}]]+")

    def has(self, text: str) -> bool:
        """Whether at least half the letters are of these scripts; true if there are no letters."""
        others = sum(map(len, self._others.findall(text)))
        return others == 0 or others <= sum(map(len, self._ours.findall(text)))


def _is_script(name: str) -> bool:
    if not regex.fullmatch("[A-Za-z_ ]+", name):
        return False
    try:
        regex.compile(rf"\p{{Script={name}}}")
    except regex.error:
        return False
    return True
