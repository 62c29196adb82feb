"""The page: a few files, which are read once."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response

from npformer.service.errors import RefusedError

# Not the system's, which may say that scripts are plain text, so that browsers do not run them.
_KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Page:
    """The files of the folder `page` beside this module, without folders in it."""

    def __init__(self) -> None:
        self._files = {
            entry.name: entry.read_bytes()
            for entry in files("npformer.service").joinpath("page").iterdir()
            if PurePath(entry.name).suffix in _KINDS
        }

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        """What the page refers to."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise RefusedError(404, f"there is no file {name!r:.80}")
        kind = _KINDS[PurePath(name).suffix]
        return Response(self._files[name], media_type=kind, headers=_HEADERS)
