"""The body of a request: of limited size and time, and JSON or a form."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from npformer.errors import UserError
from npformer.reading import parse_json
from npformer.service.errors import RefusedError
from npformer.service.limits import Limits

_FIELDS = 100  # of a form


async def read_fields(request: Request, limits: Limits) -> dict[str, Any]:
    """The fields of a request's body, a JSON object or a form.

    Raises RefusedError if it is anything else, too large or too slow, and ClientDisconnect if the
    client leaves.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _READERS:
        given = f"{kind!r:.80}" if kind else "not given"
        raise RefusedError(
            415,
            f"the content type is {given}; send application/json, or "
            "application/x-www-form-urlencoded",
        )
    return _READERS[kind](await _read_body(request, limits))


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Raises RefusedError before more than the limit has been kept."""
    too_large = RefusedError(
        413, f"the body has more than {limits.body:,} bytes; send fewer texts at a time"
    )
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                if len(body) + len(part) > limits.body:
                    raise too_large
                body += part
    except TimeoutError as error:
        raise RefusedError(
            408, f"the body did not come within {limits.body_seconds:g} seconds; send it again"
        ) from error
    return bytes(body)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body, "the body")
    except UserError as error:
        raise RefusedError(422, str(error)) from error
    if not isinstance(value, dict):
        raise RefusedError(422, 'the body must be a JSON object, as {"text": "A dog runs."}')
    return value


def _form(body: bytes) -> dict[str, Any]:
    """A field that is given several times is a list."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_FIELDS,
        )
    except ValueError as error:  # UnicodeDecodeError, too
        raise RefusedError(
            422, f"the body is no form of at most {_FIELDS} fields in UTF-8 ({error})"
        ) from error
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            before = fields[name]
            fields[name] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            fields[name] = value
    return fields


_READERS = {"application/json": _json, "application/x-www-form-urlencoded": _form}

__all__ = ["ClientDisconnect", "read_fields"]
