"""Counts what is answered, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from npformer.service.metrics import Metrics


class Counted:
    """An application whose answers are counted by route and status."""

    def __init__(self, app: ASGIApp, routes: Collection[str], metrics: Metrics) -> None:
        """routes: paths that are counted by their names; others are counted together."""
        self._app, self._routes, self._metrics = app, frozenset(routes), metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = 500, time.monotonic()

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.answered(route, status, time.monotonic() - begun)
