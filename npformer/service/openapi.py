"""The OpenAPI description, https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from npformer.long_lines import LongLines
from npformer.search_settings import SearchSettings
from npformer.service.limits import Limits

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}

_ERRORS = {
    400: "What came is not HTTP.",
    403: "The name of the service, or the origin of the page that asks, is not allowed.",
    408: "The body did not come in time.",
    413: "The body, a text, or the answer would be too large.",
    415: "The body is neither JSON nor a form.",
    422: "A field is unknown, missing or wrong.",
    500: "An error of the service or of the model.",
    503: "Too much waits already; Retry-After says when to come again.",
    504: "The answer would take too long.",
}


def description(limits: Limits) -> dict[str, Any]:
    """The description of a service with these limits."""
    texts = _one_or_more({"type": "string", "maxLength": limits.characters}, limits.texts)
    translation = _object({"text": {"type": "string"}, "score": {"type": ["number", "null"]}})
    alternatives = {"type": "array", "items": translation}
    answer = _object(
        {
            "translations": {
                "type": "array",
                "items": _object(
                    {
                        **translation["properties"],
                        "alternatives": alternatives,
                        "note": {"type": "string", "description": "what was done to a long text"},
                    },
                    required=("text", "score", "alternatives"),
                ),
            }
        }
    )
    options = _options(limits)
    ours = _object({"text": texts, "prefix": texts, **options}, required=("text",))
    one = {**ours, "properties": {**ours["properties"], "text": texts["oneOf"][0]}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "npformer",
            "version": "1",
            "description": "Translations by a Transformer. Limits are those of this service.",
        },
        "paths": {
            "/translate": _post(
                "Translate texts.",
                {"application/json": {"oneOf": [ours, _libretranslate(texts, limits)]}}
                | {"application/x-www-form-urlencoded": _libretranslate(texts, limits)},
                _json({"oneOf": [answer, _libretranslated()]}),
            ),
            "/stream": _post(
                "Translate a text, and tell the translation as it comes: a JSON object a line, "
                '{"partial": text} any number of times, and then an answer of /translate, or '
                '{"error": sentence}.',
                _schema(one),
                {"application/x-ndjson": {"schema": {"type": "string"}}},
            ),
            "/attention": _post(
                "The attention of each layer and head over a text and its translation, or over "
                "the translation that the model finds. Rows attend to columns.",
                _schema(
                    _object(
                        {"text": texts["oneOf"][0], "translation": texts["oneOf"][0]},
                        required=("text",),
                    )
                ),
                _json(_attention()),
            ),
            "/languages": _get("The languages of the model.", {"type": "array"}),
            "/frontend/settings": _get("What clients of LibreTranslate ask for."),
            "/model": _get("The model, and the limits of requests."),
            "/health": _get("Whether the service is alive."),
            "/metrics": _get("What was counted, for Prometheus.", kind="text/plain"),
            "/openapi.json": _get("This description."),
            "/": _get("A page for people.", kind="text/html"),
            "/static/{name}": _get("A file of that page.", kind="application/octet-stream")
            | {"parameters": [_in_path("name")]},
        },
    }


def _options(limits: Limits) -> dict[str, Any]:
    """The settings of a search, by name."""
    about, kinds = _attributes(SearchSettings), get_type_hints(SearchSettings)
    found = {}
    for setting in fields(SearchSettings):
        of_setting: dict[str, Any] = {"description": about[setting.name]}
        if setting.default is not None:
            of_setting["default"] = setting.default
        choices = get_args(kinds[setting.name])
        if all(isinstance(choice, str) for choice in choices) and choices:
            of_setting["enum"] = list(choices)
        else:
            kind = next(k for k in (choices or [kinds[setting.name]]) if k in _TYPES)
            of_setting["type"] = _TYPES[kind]
        if setting.name in ("beam", "alternatives", "extra_length"):
            of_setting |= {"minimum": 1, "maximum": getattr(limits, setting.name)}
        found[setting.name] = of_setting
    long_lines = {"enum": list(get_args(LongLines)), "default": "split"}
    return {**found, "long_lines": {**long_lines, "description": "of texts that are too long"}}


def _attributes(kind: type) -> dict[str, str]:
    """What a docstring says of each attribute."""
    _, _, listed = inspect.getdoc(kind).partition("Attributes:\n")  # type: ignore[union-attr]
    items = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def _libretranslate(texts: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    code = {"type": "string", "description": "code of a language"}
    most = limits.alternatives - 1
    return _object(
        {
            "q": texts,
            "source": code,
            "target": code,
            "format": {"const": "text"},
            "alternatives": {"type": "integer", "minimum": 0, "maximum": most, "default": 0},
            "api_key": {"type": "string", "description": "any; there are none here"},
        },
        required=("q", "source", "target"),
    )


def _libretranslated() -> dict[str, Any]:
    texts = _one_or_more({"type": "string"})
    return _object(
        {"translatedText": texts, "alternatives": {"type": "array"}}, required=("translatedText",)
    )


def _attention() -> dict[str, Any]:
    pieces = {"type": "array", "items": {"type": "string"}}
    weights: dict[str, Any] = {"type": "number"}
    for what in ("columns", "rows", "heads", "layers"):
        weights = {"type": "array", "items": weights, "description": what}
    return _object(
        {
            "text": {"type": "string"},
            **dict.fromkeys(("source", "target", "predicted"), pieces),
            **dict.fromkeys(("encoder", "decoder", "cross"), weights),
        }
    )


def _one_or_more(item: Mapping[str, Any], most: int | None = None) -> dict[str, Any]:
    several = {"type": "array", "items": item} | ({"maxItems": most} if most else {})
    return {"oneOf": [item, several]}


def _object(
    properties: Mapping[str, Any], required: tuple[str, ...] | None = None
) -> dict[str, Any]:
    needed = list(properties if required is None else required)
    return {"type": "object", "properties": dict(properties), "required": needed}


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": schema}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _post(about: str, bodies: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    error = _json(_object({"error": {"type": "string"}}))
    return {
        "post": {
            "summary": about,
            "requestBody": {
                "required": True,
                "content": {kind: {"schema": schema} for kind, schema in bodies.items()},
            },
            "responses": {
                "200": {"description": "The answer.", "content": answer},
                **{str(s): {"description": d, "content": error} for s, d in _ERRORS.items()},
            },
        }
    }


def _get(
    about: str, schema: Mapping[str, Any] | None = None, kind: str = "application/json"
) -> dict[str, Any]:
    of_json = schema or {"type": "object"}
    content = {kind: {"schema": of_json if kind == "application/json" else {"type": "string"}}}
    return {
        "get": {
            "summary": about,
            "responses": {"200": {"description": "The answer.", "content": content}},
        }
    }


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
