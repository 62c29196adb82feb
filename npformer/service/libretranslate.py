"""LibreTranslate's form of requests and answers, for clients that speak it.

https://docs.libretranslate.com/api/operations/translate/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npformer.service.errors import RefusedError
from npformer.service.languages import Languages
from npformer.service.limits import Limits
from npformer.service.requests import Translate, search_settings, texts_of
from npformer.translation import Translation


def is_libretranslate(fields: Mapping[str, Any]) -> bool:
    """Whether a request is in this form."""
    return "q" in fields


def translate_request(fields: Mapping[str, Any], limits: Limits, languages: Languages) -> Translate:
    """The request of /translate. There are no keys here, so that any is welcome.

    Clients send fields that LibreTranslate does not know either, and that do not count.
    """
    texts = texts_of(fields, "q", limits)
    for side in ("source", "target"):
        languages.check(side, fields.get(side))
    if fields.get("format", "text") != "text":
        raise RefusedError(422, "format must be text; markup is not kept here")
    alternatives, most = _count(fields.get("alternatives", 0)), limits.alternatives - 1
    if alternatives > most:
        raise RefusedError(422, f"alternatives is at most {most:,} here, got {alternatives:,}")
    return Translate(texts, search_settings({"alternatives": alternatives + 1}, limits))


def _count(value: Any) -> int:
    """A number that a form has as a string."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:10])
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RefusedError(422, "alternatives must be a whole number, 0 or more")
    return value


def answer(fields: Mapping[str, Any], found: Sequence[Translation]) -> dict[str, Any]:
    """The answer to a request: lists where it has a list of texts."""
    texts = [translation.text for translation in found]
    others = [[each.text for each in translation.alternatives] for translation in found]
    is_list = isinstance(fields["q"], list)
    answered: dict[str, Any] = {"translatedText": texts if is_list else texts[0]}
    if _count(fields.get("alternatives", 0)):
        answered["alternatives"] = others if is_list else others[0]
    return answered


def settings(limits: Limits, languages: Languages) -> dict[str, Any]:
    """What /frontend/settings tells clients of this form."""
    return {
        "apiKeys": False,
        "charLimit": limits.characters,
        "filesTranslation": False,
        "frontendTimeout": 500,
        "keyRequired": False,
        "language": {
            side: {"code": code, "name": languages.name(code)}
            for side, code in (("source", languages.source), ("target", languages.target))
        },
        "suggestions": False,
        "supportedFilesFormat": [],
    }
