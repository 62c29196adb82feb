"""`npformer serve` as a process: how it starts, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from npformer import Translator
from tests.npformer.test_translator import LINES
from tests.service.running import ROOT, answer_to, request, served, until
from train.__main__ import main

SLOW = {"text": "A dog runs.", "beam": 16, "extra_length": 4000, "min_length": 3999}
SLOW_TOO = ("--limit-extra-length", "5000")


def ended(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """The exit status, and what the process has said."""
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def test_weights_in_8_bits_and_several_models_are_served(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = ("--ensemble", directory, "--ensemble-weights", 1, 2, "--weights", "int8")
    expected = Translator.ensemble([directory] * 2, [1, 2], weights="int8").translate(LINES)
    with served(directory, *map(str, both)) as (service, _):
        assert [one["text"] for one in service.translate(LINES)] == [t.text for t in expected]
    model = ("--model", directory, "--port", 0)
    assert "2 models need as many weights" in refused(
        capfd, *model, "--ensemble", directory, "--ensemble-weights", 1
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_it_answers_what_is_in_flight_and_ends(
    directory: Path, translator: Translator, number: int
) -> None:
    lines = LINES * 20
    with served(directory) as (service, process):
        assert service.get("/health").status == 200
        with service.connect() as client, service.connect() as idle:
            client.sendall(request(service, json.dumps({"text": lines}).encode()))
            until(lambda: service.metric("npformer_queue_seconds_count") == 1)
            process.send_signal(number)
            answer = answer_to(client)
            assert idle.recv(1) == b""
        found = [one["text"] for one in answer.json()["translations"]]
        assert found == [t.text for t in translator.translate(lines)]
        assert ended(process) == (0, "")
        with pytest.raises(OSError, match="refused"):
            service.get("/health")


def test_it_waits_no_longer_than_it_may(directory: Path) -> None:
    with served(directory, *SLOW_TOO, "--limit-stop-seconds", "1") as (service, process):
        with service.connect() as client:
            client.sendall(request(service, json.dumps(SLOW).encode()))
            until(lambda: service.metric("npformer_queue_seconds_count") == 1)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            answer = answer_to(client)
            assert answer.status == 503
            assert "stopped before the answer" in answer.error
        status, said = ended(process)
        assert status == 0
        assert "Traceback" not in said
        assert time.monotonic() - begun < 20


def test_a_second_signal_ends_it_at_once(directory: Path) -> None:
    with served(directory, *SLOW_TOO) as (service, process), service.connect() as client:
        client.sendall(request(service, json.dumps(SLOW).encode()))
        until(lambda: service.metric("npformer_queue_seconds_count") == 1)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert ended(process, 20)[0] == 0


def refused(capfd: pytest.CaptureFixture[str], *words: Any) -> str:
    """The line that a command is refused with."""
    assert main(["serve", *map(str, words)]) == 2
    line = capfd.readouterr().err
    assert line.startswith("npformer: error: ")
    assert line.count("\n") == 1
    return line


def test_what_cannot_be_served_is_refused_in_one_line(
    directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "there is no model directory" in refused(capfd, "--model", tmp_path / "no", "--port", 0)
    assert "config.json" in refused(capfd, "--model", tmp_path, "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused(capfd, "--model", directory, "--port", taken.getsockname()[1])
        assert "Address already in use; give another --port" in line
    model = ("--model", directory)
    assert "is no address here" in refused(capfd, *model, "--host", "no.such.invalid", "--port", 0)
    assert "cannot listen" in refused(capfd, *model, "--host", "192.0.2.1", "--port", 0)
    assert "--port must be 0 to 65,535" in refused(capfd, *model, "--port", 65_536)
    assert "limit of beam" in refused(capfd, *model, "--limit-beam", 0)
    assert "limit of seconds" in refused(capfd, *model, "--limit-seconds", ".nan")
    assert "must be a code" in refused(capfd, *model, "--source-language", "English")
    assert "open files" in refused(capfd, *model, "--limit-connections", 10**9)


def test_without_its_libraries_it_says_what_to_install(
    directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("npformer.service.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refused(capfd, "--model", directory)
    assert "serve needs uvicorn" in line
    assert "npformer[serve]" in line


def test_nothing_else_needs_its_libraries() -> None:
    code = (
        "import sys, train.__main__, train.cli.parser as p; p.build_parser(); "
        "print([n for n in ('starlette', 'uvicorn', 'prometheus_client') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout == "[]\n"
