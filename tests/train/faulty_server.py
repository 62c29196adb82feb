"""A local web server that fails in the ways in which servers fail."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FaultySite:
    """Files by name, and the faults of the first requests, in order.

    faults: "break N": the connection ends after N bytes; "status N"; "rangeless": all of the file
    is sent, whatever is asked for; "shift": a part that was not requested;
    "claim N": Content-Length N and that many bytes; "total N": a range of a file of N bytes;
    "lengthless"; "encoded": as gzip, without a length; "gzip": compressed on the way, with the
    length of that; "inverted": other bytes; "redirect ADDRESS"; "garbage": no answer of HTTP.
    tag: the ETag, none if it is empty. asked: the Range and If-Range of each request.
    """

    files: dict[str, bytes]
    faults: list[str] = field(default_factory=list)
    tag: str = '"version 1"'
    address: str = ""
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[FaultySite]:
    """The site, at `address`, inside a `with`."""
    site = FaultySite(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, site)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, site: FaultySite) -> None:
    content = site.files[request.path.rpartition("/")[2]]
    asked, condition = request.headers.get("Range"), request.headers.get("If-Range")
    site.asked.append((asked, condition))
    fault, _, number = (site.faults.pop(0) if site.faults else "").partition(" ")
    if fault == "status":
        request.send_error(int(number))
        return
    if fault == "redirect":
        request.send_response(302)
        request.send_header("Location", number)
        request.end_headers()
        return
    if fault == "garbage":
        request.wfile.write(b"\x1b[2J\x07 welcome\r\n")
        return
    begin, total = 0, len(content)
    if asked and fault != "rangeless" and condition in (None, site.tag):
        found = re.fullmatch(r"bytes=(\d+)-", asked)
        assert found
        begin = int(found[1])
    if begin >= total:
        request.send_error(416)
        return
    if begin and fault == "shift":
        begin -= 1
    body = content[begin:]
    request.send_response(206 if begin else 200)
    if begin:
        said = int(number) if fault == "total" else total
        request.send_header("Content-Range", f"bytes {begin}-{total - 1}/{said}")
    if site.tag:
        request.send_header("ETag", site.tag)
    if fault == "claim":
        body = (body * (int(number) // len(body) + 1))[: int(number)]
    if fault == "inverted":
        body = bytes(255 - byte for byte in body)
    if fault == "gzip":
        body = gzip.compress(body)
    if fault in ("encoded", "gzip"):
        request.send_header("Content-Encoding", "gzip")
    if fault not in ("lengthless", "encoded"):
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: int(number)] if fault == "break" else body)
