r"""The service under load, compared with translating offline, and with CTranslate2 behind it.

    python -m benchmarks.service --model DIR --source FILE --peer ctranslate2 --json

64 clients send a sentence each, wait for the answer, and send the next, over connections that stay
open. Offline, the same engine in the same process translates the same sentences, 64 in a batch,
from text to text. CTranslate2 has the same model, exported, and is the engine of the same service.
All take turns. Each service has its own process, and the clients have another: where there are few
cores, they are part of the load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import Side, Turn, load_compiled_loops, take_turns
from benchmarks.report import positive, publish, result_file
from npformer.formats.exporting import export_model
from npformer.search_settings import SearchSettings
from npformer.service.batcher import Batching
from npformer.service.engine import Engine, Sentence, TranslatorEngine
from npformer.service.facts import Facts
from npformer.service.languages import Languages
from npformer.service.limits import Limits
from npformer.service.server import Address, server_of
from npformer.translation import Translation
from npformer.translator import Translator

PENALTY: dict[str, Any] = {"penalty": "power", "length_penalty": 1.0}
"""What CTranslate2 has, too."""

Batches = list[list[str]]


class CTranslate2Engine:
    """CTranslate2 with the pieces of our tokenizers."""

    def __init__(self, directory: Path, translator: Translator) -> None:
        import ctranslate2

        self._theirs = ctranslate2.Translator(str(directory), compute_type="float32")
        self._tokenizers = translator.tokenizers
        target = self._tokenizers.target
        self._ids = {piece: i for i, piece in enumerate(target.pieces(range(target.vocab_size)))}

    def translate(
        self, sentences: Sequence[Sentence], settings: SearchSettings
    ) -> list[Translation | None]:
        pieces = [self._tokenizers.source.pieces(sentence.ids) for sentence in sentences]
        found = self._theirs.translate_batch(
            pieces,
            beam_size=settings.beam,
            length_penalty=settings.length_penalty,
            max_decoding_length=max(map(len, pieces)) + settings.extra_length,
            return_scores=True,
        )
        return [self._translation(each.hypotheses[0], each.scores[0]) for each in found]

    def _translation(self, pieces: Sequence[str], score: float) -> Translation:
        ids = [self._ids[piece] for piece in pieces]
        return Translation(self._tokenizers.target.decode(ids), score)


def side(
    imported: Any, model: Path, engine: str, own: socket.socket, batches: Batches, beam: int
) -> Turn:
    """A service that runs in a thread; a turn translates offline meanwhile."""
    load_compiled_loops()
    imported()
    translator = Translator.load(model)
    used: Engine = TranslatorEngine(translator)
    if engine == "ctranslate2":
        with tempfile.TemporaryDirectory() as directory:
            exported = Path(directory, "model")
            export_model(model, exported, "ctranslate2")
            used = CTranslate2Engine(exported, translator)
    facts = Facts.of(translator, model, Languages())
    server = server_of(translator, facts, Address(), Limits(), Batching(), used)
    threading.Thread(target=server.run, args=([own],), daemon=True).start()
    settings = SearchSettings(beam=beam, **PENALTY)

    def turn() -> None:
        for batch in batches:
            encoded = translator.tokenizers.source.encode_lines(batch)
            sentences = [Sentence(ids, [], i, lambda: True) for i, ids in enumerate(encoded)]
            assert None not in used.translate(sentences, settings)

    return turn


class Clients:
    """The clients of a service: in a turn, each sends its sentences, one after another.

    Attributes:
        seconds: that each answer of the last turn took
        turns: the seconds of all turns, as above
        answers: the translation of each sentence
    """

    def __init__(self, port: int, batches: Batches, beam: int) -> None:
        self._port, self._beam = port, beam
        self._sentences = list(zip(*batches, strict=True))
        self.seconds: list[float] = []
        self.turns: list[list[float]] = []
        self.answers: dict[str, str] = {}

    def turn(self) -> float:
        """Returns the seconds between the first request and the last answer."""
        self.seconds = []
        self.turns.append(self.seconds)
        return asyncio.run(self._turn())

    async def _turn(self) -> float:
        place = "127.0.0.1", self._port
        streams = [await asyncio.open_connection(*place) for _ in self._sentences]
        started = time.perf_counter()
        await asyncio.gather(*map(self._client, *zip(*streams, strict=True), self._sentences))
        took = time.perf_counter() - started
        for _, writer in streams:
            writer.close()
        return took

    async def _client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sentences: Sequence[str]
    ) -> None:
        for sentence in sentences:
            body = json.dumps({"text": sentence, "beam": self._beam, **PENALTY}).encode()
            head = (
                "POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            started = time.perf_counter()
            writer.write(head.encode() + body)
            answered = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answered.startswith(b"http/1.1 200 "), answered
            length = int(answered.partition(b"content-length:")[2].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            self.seconds.append(time.perf_counter() - started)
            self.answers[sentence] = answer["translations"][0]["text"]


def summary(offline: list[float], served: list[float], clients: Clients, n: int) -> dict[str, Any]:
    """What a side has come to; n: sentences of a turn."""
    ratios = [a / b for a, b in zip(offline, served, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    seconds = sorted(s for turn in clients.turns[-len(served) :] for s in turn)
    percentiles = statistics.quantiles(seconds, n=100)
    return {
        "sentences_per_s": round(n / statistics.median(served), 1),
        "offline_sentences_per_s": round(n / statistics.median(offline), 1),
        "of_offline": round(middle, 3),
        "of_offline_quartiles": [round(low, 3), round(high, 3)],
        "p50_ms": round(percentiles[49] * 1000, 1),
        "p99_ms": round(percentiles[98] * 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="directory of a model or a run")
    parser.add_argument("--source", type=Path, required=True, help="sentences, one a line")
    parser.add_argument("--peer", choices=["ctranslate2", "none"], default="ctranslate2")
    parser.add_argument("--clients", type=positive, default=64)
    parser.add_argument("--sentences", type=positive, default=5, help="of each client, in a turn")
    parser.add_argument("--beam", type=positive, default=4)
    parser.add_argument("--rounds", type=positive, default=10, help="turns of each side")
    parser.add_argument("--warmup", type=int, default=2, help="turns before those, not measured")
    parser.add_argument("--json", action="store_true", help="for scripts: the result is one line")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()

    n = options.clients
    lines = options.source.read_text(encoding="utf-8").splitlines()[: n * options.sentences]
    batches = [lines[i : i + n] for i in range(0, len(lines), n)]
    engines = ["ours", *([options.peer] if options.peer != "none" else [])]
    services: dict[str, Side] = {}
    clients: dict[str, Clients] = {}
    for engine in engines:
        with Address(port=0).listen() as own:
            clients[engine] = Clients(own.getsockname()[1], batches, options.beam)
            services[engine] = Side(side, options.model, engine, own, batches, options.beam)
    turns: dict[str, Any] = {}
    for engine in engines:
        turns |= {f"{engine} offline": services[engine], f"{engine} served": clients[engine]}
    took = take_turns(turns, options.rounds, options.warmup)
    found = {
        engine: {
            **summary(
                took[f"{engine} offline"], took[f"{engine} served"], clients[engine], len(lines)
            ),
            **services[engine].close(),
        }
        for engine in engines
    }
    ours = clients["ours"].answers
    publish(
        {
            "benchmark": "service",
            "config": options.model.resolve().name,
            "backend": "numpy",
            "clients": n,
            "beam": options.beam,
            "sentences": len(lines),
            "ours": found.pop("ours"),
            "peers": found,
            "same_translations": {
                engine: round(
                    sum(clients[engine].answers[line] == text for line, text in ours.items())
                    / len(ours),
                    4,
                )
                for engine in found
            },
        },
        options.out,
    )


if __name__ == "__main__":
    main()
