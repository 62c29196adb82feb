"""Who may ask: the names that the service answers to, and the pages of other origins.

A page of another site can make its reader's browser send requests, to loopback, too. Browsers name
that site in `Origin`. And a site can let its own name stand for 127.0.0.1 (DNS rebinding), so that
it is no other origin; but then `Host` has its name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Allowed:
    """Who may ask.

    Attributes:
        hosts: names that the service answers to; all if there are none
        origins: of pages that may ask, besides its own; "*" is all
    """

    hosts: Collection[str] = ()
    origins: Collection[str] = ()


class Guard:
    """Refuses requests to other hosts and of other origins, and tells browsers which may ask."""

    def __init__(self, app: ASGIApp, allowed: Allowed) -> None:
        self._allowed = allowed
        self._app = app
        if allowed.origins:
            self._app = CORSMiddleware(
                app,
                allow_origins=list(allowed.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["content-type"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        if refusal:
            await JSONResponse({"error": refusal}, 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts, origins = self._allowed.hosts, self._allowed.origins
        if hosts and _name(host) not in hosts:
            return (
                f"this service does not answer to the name {host!r:.80}; use {', '.join(hosts)}, "
                "or start it with --allow-host"
            )
        if origin is None or origin in origins or "*" in origins:
            return None
        if host and _place(origin) == host.lower():
            return None
        return f"pages of {origin!r:.80} may not ask here, unless it is started with --allow-origin"


def _name(host: str) -> str:
    """The name in a Host header, without its port, in lower case; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    """The host and the port of an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
