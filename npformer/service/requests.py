"""Requests in our own form: what is asked for, checked field by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from npformer.long_lines import DividedLines, LongLines
from npformer.search_settings import SearchSettings
from npformer.service.errors import RefusedError
from npformer.service.limits import Limits

OPTIONS = tuple(f.name for f in fields(SearchSettings))
"""The names of the search's settings, which are options of a request."""

_LONGEST_SENTENCE = 500  # characters of an error that quotes what was sent


@dataclass(frozen=True)
class Translate:
    """Texts to be translated.

    prefixes: what each translation begins with, if anything was given.
    """

    texts: list[str]
    settings: SearchSettings
    prefixes: list[str] | None = None
    long_lines: LongLines = "split"


@dataclass(frozen=True)
class Attend:
    """A text whose attention is asked for, with a translation of it or with the model's own."""

    text: str
    translation: str | None


def translate_request(fields: Mapping[str, Any], limits: Limits) -> Translate:
    """The request of /translate. Raises RefusedError with what is wrong."""
    check_known(fields, ("text", "prefix", "long_lines", *OPTIONS))
    texts = texts_of(fields, "text", limits)
    prefixes = texts_of(fields, "prefix", limits) if "prefix" in fields else None
    if prefixes is not None and len(prefixes) != len(texts):
        raise RefusedError(
            422, f"prefix must be as many as text, {len(texts):,}, got {len(prefixes):,}"
        )
    long_lines = fields.get("long_lines", "split")
    if long_lines not in get_args(LongLines):
        raise RefusedError(422, f"long_lines must be one of {', '.join(get_args(LongLines))}")
    chosen = {name: fields[name] for name in OPTIONS if name in fields}
    return Translate(texts, search_settings(chosen, limits), prefixes, long_lines)


def stream_request(fields: Mapping[str, Any], limits: Limits) -> Translate:
    """The request of /stream: as that of /translate, with a single text."""
    if not isinstance(fields.get("text", ""), str):
        raise RefusedError(422, "text must be a single string, of which the translation is told")
    return translate_request(fields, limits)


def attend_request(fields: Mapping[str, Any], limits: Limits) -> Attend:
    """The request of /attention."""
    check_known(fields, ("text", "translation"))
    for name in ("text", "translation"):
        if not isinstance(fields.get(name, ""), str):
            raise RefusedError(422, f"{name} must be a single string")
    [text] = texts_of(fields, "text", limits)
    if not text.strip():
        raise RefusedError(422, "text is empty, and there is no attention over nothing")
    translation = texts_of(fields, "translation", limits)[0] if "translation" in fields else None
    return Attend(text, translation)


def check_known(fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise RefusedError if there is a field of another name."""
    if unknown := sorted(set(fields) - set(known)):
        raise RefusedError(
            422, f"there is no field {unknown[0]!r:.80}; there are {', '.join(known)}"
        )


def texts_of(fields: Mapping[str, Any], name: str, limits: Limits) -> list[str]:
    """The strings of a field that has one or a list of them."""
    if name not in fields:
        raise RefusedError(422, f"the field {name} is missing")
    value = fields[name]
    texts = value if isinstance(value, list) else [value]
    if len(texts) > limits.texts:
        raise RefusedError(
            413, f"{name} has {len(texts):,} texts, of at most {limits.texts:,}; send fewer at once"
        )
    for number, text in enumerate(texts, start=1):
        own = f"{name} {number:,}" if isinstance(value, list) else name
        if not isinstance(text, str):
            raise RefusedError(422, f"{own} must be a string, got {_kind(text)}")
        if len(text) > limits.characters:
            raise RefusedError(
                413,
                f"{own} has {len(text):,} characters, of at most {limits.characters:,}; split it",
            )
        check_whole(text, own)
    return texts


def check_sentences(divided: DividedLines, limits: Limits) -> None:
    """Raise RefusedError if there are too many sentences, or one has too long a prefix.

    A prefix is a part of the translation, and so it may be no longer than this.
    """
    if len(divided.sentences) > limits.sentences:
        raise RefusedError(
            413,
            f"the model takes these texts as {len(divided.sentences):,} sentences, of at most "
            f"{limits.sentences:,}; send fewer at once",
        )
    for ids, prefix in zip(divided.sentences, divided.prefixes, strict=True):
        most = len(ids) + limits.extra_length
        if len(prefix) > most:
            raise RefusedError(
                413, f"a prefix has {len(prefix):,} tokens, of at most {most:,} here; shorten it"
            )


def check_whole(text: str, name: str) -> None:
    """Raise RefusedError if a string has half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(
            422,
            f"{name} has half of a surrogate pair, U+{ord(text[error.start]):04X}, at character "
            f"{error.start + 1:,}; send whole characters",
        ) from error


def search_settings(chosen: Mapping[str, Any], limits: Limits) -> SearchSettings:
    """The settings of a search.

    A beam that is not given is large enough for the alternatives. Defaults are within the limits.
    """
    most = {name: getattr(limits, name) for name in ("alternatives", "beam", "extra_length")}
    values = {"extra_length": min(SearchSettings.extra_length, limits.extra_length), **chosen}
    if not isinstance(values.get("sampling", False), bool):
        raise RefusedError(422, "sampling must be true or false")
    alternatives = values.get("alternatives", 1)
    if "beam" not in values and isinstance(alternatives, int):
        values["beam"] = max(min(SearchSettings.beam, limits.beam), alternatives)
    for name, limit in most.items():
        value = values.get(name, 0)
        if isinstance(value, int) and value > limit:
            raise RefusedError(422, f"{name} is at most {limit:,} here, got {value:,}")
    try:
        return SearchSettings(**values)
    except ValueError as error:
        raise RefusedError(422, str(error)[:_LONGEST_SENTENCE]) from error


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
