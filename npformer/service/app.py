"""The service as an ASGI application: its routes, and what they answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from npformer.long_lines import DividedLines
from npformer.service import libretranslate
from npformer.service.attention import attention_json
from npformer.service.batcher import Batcher
from npformer.service.bodies import read_fields
from npformer.service.errors import RefusedError
from npformer.service.facts import Facts
from npformer.service.jobs import Call, Division, Texts
from npformer.service.limits import Limits
from npformer.service.metrics import Metrics
from npformer.service.openapi import description
from npformer.service.page import Page
from npformer.service.requests import (
    Translate,
    attend_request,
    check_sentences,
    stream_request,
    translate_request,
)
from npformer.service.stream import Changes, Lines
from npformer.service.waiting import Waiting
from npformer.translation import Translation
from npformer.translator import Translator

_AT_ONCE = 2_000  # characters: more are divided by other threads, for it takes milliseconds
_DIVIDERS = 4  # such threads


class Service:
    """The routes, and what they share."""

    def __init__(
        self,
        translator: Translator,
        batcher: Batcher,
        facts: Facts,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._translator, self._batcher, self._facts = translator, batcher, facts
        self._limits, self._metrics = limits, metrics
        self._dividers = ThreadPoolExecutor(_DIVIDERS, "npformer-divider")

    def routes(self) -> list[Route]:
        """Where each of the answers is."""
        page = Page()
        return [
            Route("/", page.index),
            Route("/static/{name}", page.static),
            Route("/translate", self.translate, methods=["POST"]),
            Route("/stream", self.stream, methods=["POST"]),
            Route("/attention", self.attention, methods=["POST"]),
            Route("/languages", self.languages),
            Route("/frontend/settings", self.frontend_settings),
            Route("/model", self.model),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
        ]

    async def translate(self, request: Request) -> Response:
        """Translations of texts, asked for in our form or LibreTranslate's."""
        fields = await read_fields(request, self._limits)
        if libretranslate.is_libretranslate(fields):
            asked = libretranslate.translate_request(fields, self._limits, self._facts.languages)
            return JSONResponse(libretranslate.answer(fields, await self._found(request, asked)))
        asked = translate_request(fields, self._limits)
        return JSONResponse(translations(await self._found(request, asked)))

    async def stream(self, request: Request) -> Lines:
        """The translation of a text as it comes."""
        asked = stream_request(await read_fields(request, self._limits), self._limits)
        changes = Changes()
        job = Texts(await self._divided(request, asked), asked.settings, changes.tell)
        self._batcher.submit(job)
        return Lines(job, changes, self._limits, translations)

    async def attention(self, request: Request) -> Response:
        """The attention of every layer and head."""
        asked = attend_request(await read_fields(request, self._limits), self._limits)
        most = self._limits.attention
        job = Call(partial(attention_json, self._translator, asked, most))
        self._batcher.submit(job)
        with Waiting(job, request.receive, self._limits) as waiting:
            return Response(await waiting.result(), media_type="application/json")

    async def languages(self, request: Request) -> Response:
        """The languages, as LibreTranslate lists them."""
        return JSONResponse(self._facts.languages.listed())

    async def frontend_settings(self, request: Request) -> Response:
        """What clients of LibreTranslate ask for first."""
        return JSONResponse(libretranslate.settings(self._limits, self._facts.languages))

    async def model(self, request: Request) -> Response:
        """The model, and the limits of requests."""
        return JSONResponse(self._facts.told(self._limits))

    async def health(self, request: Request) -> Response:
        """Whether the thread that translates is alive."""
        if not self._batcher.is_alive:
            raise RefusedError(503, "the thread that translates has ended")
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """What has been counted, for Prometheus."""
        return Response(self._metrics.text(), headers={"content-type": self._metrics.content_type})

    async def openapi(self, request: Request) -> Response:
        """The description of all this."""
        return JSONResponse(description(self._limits))

    async def _found(self, request: Request, asked: Translate) -> list[Translation]:
        job = Texts(await self._divided(request, asked), asked.settings)
        self._batcher.submit(job)
        with Waiting(job, request.receive, self._limits) as waiting:
            found: list[Translation] = await waiting.result()
            return found

    async def _divided(self, request: Request, asked: Translate) -> DividedLines:
        """The sentences of texts. Raises RefusedError if there are too many, or one is refused."""
        divide = partial(
            self._translator.divide,
            asked.texts,
            range(1, len(asked.texts) + 1),
            asked.long_lines,
            asked.prefixes,
        )
        if sum(map(len, [*asked.texts, *(asked.prefixes or ())])) <= _AT_ONCE:
            divided = divide()
        else:
            job = Division(divide)
            self._dividers.submit(job.run)
            with Waiting(job, request.receive, self._limits) as waiting:
                divided = await waiting.result()
        if divided.refusal:
            raise RefusedError(422, str(divided.refusal))
        check_sentences(divided, self._limits)
        return divided


def translations(found: Sequence[Translation]) -> dict[str, Any]:
    """The answer in our form."""
    return {"translations": [_told(each) for each in found]}


def _told(translation: Translation) -> dict[str, Any]:
    note = {"note": translation.note} if translation.note else {}
    others = [_scored(each) for each in translation.alternatives]
    return {**_scored(translation), "alternatives": others, **note}


def _scored(translation: Translation) -> dict[str, Any]:
    score = translation.score
    return {"text": translation.text, "score": score if math.isfinite(score) else None}


def application(routes: Sequence[Route], batcher: Batcher) -> Starlette:
    """The ASGI application of a service's routes. Its end is the batcher's."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    return Starlette(
        routes=routes,
        exception_handlers={
            RefusedError: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _left,
            Exception: _failed,
        },
        lifespan=lifespan,
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    wait = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"error": str(error)}, error.status, wait)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {
        404: f"there is no {request.url.path!r:.80}; /openapi.json describes what there is",
        405: f"{request.method} is not what {request.url.path!r:.80} takes",
    }
    sentence = what.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the log and the metrics do


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "an error of the service, which is in its log"}, 500)
