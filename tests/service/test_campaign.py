"""Clients that send damaged, huge and right requests at random: every right one is answered."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from npformer import Translation, Translator
from tests.npformer.test_translator import LINES
from tests.service.running import Service, request, served

OPTIONS: list[dict[str, Any]] = [
    {"beam": 1, "extra_length": 5},
    {"beam": 4, "extra_length": 5},
    {"beam": 4, "extra_length": 5, "alternatives": 3},
    {"beam": 2, "extra_length": 5, "penalty": "power", "length_penalty": 1.0},
]


class Campaign:
    """What is asked for, what is right, and what has come of it.

    Attributes:
        done: how often each kind of client has done its work
        faults: what was not answered rightly
    """

    def __init__(self, service: Service, translator: Translator) -> None:
        self.service = service
        self.texts = [f"{line} {i}" for i, line in enumerate([*LINES, *LINES])] + ["", " "]
        self.expected = [translator.translate(self.texts, **options) for options in OPTIONS]
        self.libretranslate = translator.translate(self.texts, beam=4)
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, clients: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(n, end)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, number: int, end: float) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            [kind] = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])
            try:
                KINDS[kind][0](self, rng)
            except (OSError, HTTPException, AssertionError, ValueError, KeyError) as error:
                self.faults.append(f"{kind}: {error!r:.500}")
            self.done[kind] += 1


def same(told: dict[str, Any], expected: Translation) -> None:
    """Rounding depends on the batch, and so may the order of two that are equal."""
    assert told["score"] == pytest.approx(expected.score, abs=1e-4)
    others = {each.text for each in expected.ranked}
    assert told["text"] == expected.text or told["text"] in others


def right(campaign: Campaign, rng: random.Random) -> None:
    which = rng.randrange(len(OPTIONS))
    chosen = rng.choices(range(len(campaign.texts)), k=rng.choice([1, 1, 1, 3, 20]))
    texts = [campaign.texts[i] for i in chosen]
    found = campaign.service.translate(texts, **OPTIONS[which])
    assert len(found) == len(texts)
    for told, i in zip(found, chosen, strict=True):
        same(told, campaign.expected[which][i])


def streamed(campaign: Campaign, rng: random.Random) -> None:
    which, i = rng.randrange(len(OPTIONS)), rng.randrange(len(campaign.texts))
    answer = campaign.service.post("/stream", {"text": campaign.texts[i], **OPTIONS[which]})
    [told] = json.loads(answer.body.splitlines()[-1])["translations"]
    same(told, campaign.expected[which][i])


def as_libretranslate(campaign: Campaign, rng: random.Random) -> None:
    i = rng.randrange(len(campaign.texts))
    form = urlencode({"q": campaign.texts[i], "source": "en", "target": "de"})
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = campaign.service.ask("POST", "/translate", form, kind)
    assert answer.json() == {"translatedText": campaign.libretranslate[i].text}


def told(campaign: Campaign, rng: random.Random) -> None:
    path = rng.choice(["/health", "/model", "/metrics", "/languages", "/openapi.json", "/"])
    assert campaign.service.get(path).status == 200


def damaged(campaign: Campaign, rng: random.Random) -> None:
    body = bytearray(json.dumps({"text": rng.choice(campaign.texts), "beam": 4}).encode())
    for _ in range(rng.randrange(1, 5)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    answer = campaign.service.ask(
        "POST", "/translate", bytes(body), {"content-type": "application/json"}
    )
    assert answer.status in (200, 422)  # a byte of a text may be another letter


def not_http(campaign: Campaign, rng: random.Random) -> None:
    said = bytearray(request(campaign.service, b'{"text": "a"}'))
    for _ in range(rng.randrange(1, 9)):
        said[rng.randrange(60)] = rng.randrange(256)
    with campaign.service.connect() as client, suppress(ConnectionError, TimeoutError):
        client.settimeout(2)
        client.sendall(said)
        client.recv(1 << 16)


def cut_short(campaign: Campaign, rng: random.Random) -> None:
    body = json.dumps({"text": rng.choices(campaign.texts, k=20)}).encode()
    said = request(campaign.service, body, rng.choice(["/translate", "/stream"]))
    with campaign.service.connect() as client:
        client.sendall(said[: rng.choice([rng.randrange(len(said)), len(said)])])
        time.sleep(rng.random() * 0.2)


def huge(campaign: Campaign, rng: random.Random) -> None:
    text = "A dog runs. " * rng.choice([900, 10_000, 100_000])
    try:
        status = campaign.service.post("/translate", {"text": [text] * 2}).status
    except (BrokenPipeError, ConnectionResetError):
        return  # the service has refused it, and reads no more than a part of what still comes
    assert status == 413


def wrong(campaign: Campaign, rng: random.Random) -> None:
    fields = rng.choice([{}, {"text": 1}, {"text": "a", "beam": 99}, {"text": "\ud800"}])
    assert campaign.service.post("/translate", fields).status == 422


KINDS: dict[str, tuple[Callable[[Campaign, random.Random], None], float]] = {
    "right": (right, 8),
    "streamed": (streamed, 2),
    "as LibreTranslate": (as_libretranslate, 2),
    "told": (told, 1),
    "damaged": (damaged, 3),
    "not HTTP": (not_http, 2),
    "cut short": (cut_short, 3),
    "huge": (huge, 1),
    "wrong": (wrong, 2),
}


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [(30, 4), pytest.param(200, 60, marks=[pytest.mark.campaign, pytest.mark.limit(900)])],
)
def test_every_right_request_is_answered_rightly(
    directory: Path, translator: Translator, clients: int, seconds: float
) -> None:
    languages = ("--source-language", "en", "--target-language", "de")
    with served(directory, *languages) as (service, process):
        campaign = Campaign(service, translator)
        campaign.run(clients, seconds)
        assert campaign.faults == []
        assert set(campaign.done) == set(KINDS)
        assert service.metric("npformer_queue_sentences") == 0
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    print(dict(campaign.done))
