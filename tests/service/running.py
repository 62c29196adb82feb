"""A service that runs in this process, and a client that asks it over a socket."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

for needed in ("starlette", "uvicorn", "h11", "prometheus_client"):
    pytest.importorskip(needed, reason="the service needs the extra serve")

from npformer import Translator
from npformer.service.batcher import Batching
from npformer.service.engine import Engine
from npformer.service.facts import Facts
from npformer.service.languages import Languages
from npformer.service.limits import Limits
from npformer.service.server import Address, Server, server_of

ROOT = Path(__file__).parents[2]

JSON = {"content-type": "application/json"}


@dataclass
class Answer:
    """An answer of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal."""
        [(name, sentence)] = self.json().items()
        assert name == "error"
        assert "\n" not in sentence
        return sentence


@dataclass
class Service:
    """A running service."""

    server: Server | None
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        connection = HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return Answer(
                response.status,
                {k.lower(): v for k, v in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, fields: Any, **headers: str) -> Answer:
        """Send JSON."""
        return self.ask("POST", path, json.dumps(fields), {**JSON, **headers})

    def translate(self, text: Any, **options: Any) -> list[dict[str, Any]]:
        answer = self.post("/translate", {"text": text, **options})
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json()["translations"]
        return found

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=60)

    def metric(self, name: str) -> float:
        """A number of /metrics, by its name and labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
        return float(value)


@contextmanager
def running(
    translator: Translator,
    directory: Path,
    limits: Limits | None = None,
    engine: Engine | None = None,
    batching: Batching | None = None,
    languages: Languages | None = None,
    **address: Any,
) -> Iterator[Service]:
    """A service at a free port."""
    place = Address(port=0, **address)
    facts = Facts.of(translator, directory, languages or Languages())
    with place.listen() as own:
        host, port = own.getsockname()[:2]
        limits, batching = limits or Limits(), batching or Batching()
        server = server_of(translator, facts, place, limits, batching, engine)
        thread = threading.Thread(target=server.run, args=([own],))
        thread.start()
        try:
            yield Service(server, host, port)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def served(directory: Path, *flags: str) -> Iterator[tuple[Service, subprocess.Popen[str]]]:
    """A service in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "serve", "--model", directory, "--port", "0", *flags],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"is at http://127\.0\.0\.1:(\d+)$", line):
                yield Service(None, "127.0.0.1", int(found[1])), process
                break
        else:
            raise AssertionError(f"it has ended with {process.wait()}")
    finally:
        process.kill()
        process.communicate()


def request(service: Service, body: bytes, path: str = "/translate") -> bytes:
    """A request, as it is sent."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {service.host}:{service.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def answer_to(client: socket.socket) -> Answer:
    """The next answer that comes, when no other comes after it."""
    response = HTTPResponse(client)
    response.begin()
    return Answer(
        response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    )


def until(holds: Any, seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)
