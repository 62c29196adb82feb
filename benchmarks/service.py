r"""The service under load, compared with translating offline, and with CTranslate2 behind it.

    python -m benchmarks.service --model DIR --source FILE --peer ctranslate2 --json

64 clients send a sentence each, wait for the answer, and send the next, over connections that stay
open. Offline, the same engine in the same process translates the same sentences, 64 in a batch,
from text to text. CTranslate2 has the same model, exported, and is an engine of the same service.
All take turns. Each side has its own process, and the clients have another; on a machine with few
cores, the clients are part of the load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import Side, Turn, load_compiled_loops, ratio, take_turns
from benchmarks.report import positive, result_file
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

SETTINGS = {"penalty": "power", "length_penalty": 1.0}
"""The penalty that CTranslate2 has, too."""


class CTranslate2Engine:
    """CTranslate2, with the pieces of our tokenizers."""

    def __init__(self, directory: Path, translator: Translator) -> None:
        import ctranslate2

        self._theirs = ctranslate2.Translator(str(directory), compute_type="float32")
        self._tokenizers = translator.tokenizers
        target = translator.tokenizers.target
        self._ids = {piece: i for i, piece in enumerate(target.pieces(range(target.vocab_size)))}

    def translate(
        self, sentences: Sequence[Sentence], settings: SearchSettings
    ) -> list[Translation | None]:
        source, target = self._tokenizers.source, self._tokenizers.target
        found = self._theirs.translate_batch(
            [source.pieces(sentence.ids) for sentence in sentences],
            beam_size=settings.beam,
            length_penalty=settings.length_penalty,
            return_scores=True,
        )
        return [
            Translation(
                target.decode([self._ids[piece] for piece in one.hypotheses[0]]), one.scores[0]
            )
            for one in found
        ]


def side(
    imported: Any, model: Path, engine: str, own: socket.socket, batches: list[list[str]], beam: int
) -> Turn:
    """A service in a thread; its turn is the offline one."""
    load_compiled_loops()
    imported()
    translator = Translator.load(model)
    used: Engine = TranslatorEngine(translator)
    if engine == "ctranslate2":
        exported = tempfile.mkdtemp()
        export_model(model, Path(exported, "model"), "ctranslate2")
        used = CTranslate2Engine(Path(exported, "model"), translator)
    facts = Facts.of(translator, model, Languages())
    server = server_of(translator, facts, Address(), Limits(), Batching(), used)
    threading.Thread(target=server.run, args=([own],), daemon=True).start()
    settings = SearchSettings(beam=beam, **SETTINGS)

    def turn() -> None:
        for batch in batches:
            ids = translator.tokenizers.source.encode_lines(batch)
            used.translate(
                [Sentence(own, [], i, lambda: True) for i, own in enumerate(ids)], settings
            )

    return turn


class Load:
    """The clients; in a turn each sends all of its sentences."""

    def __init__(self, port: int, batches: list[list[str]], beam: int) -> None:
        self._port, self._clients = port, list(zip(*batches, strict=True))
        self._beam = beam
        self.latencies: list[float] = []
        self.answers: dict[str, str] = {}

    def turn(self) -> float:
        return asyncio.run(self._turn())

    def close(self) -> dict[str, Any]:
        return {}

    async def _turn(self) -> float:
        self.latencies.clear()
        streams = [await asyncio.open_connection("127.0.0.1", self._port) for _ in self._clients]
        started = time.perf_counter()
        await asyncio.gather(*map(self._client, streams, self._clients))
        took = time.perf_counter() - started
        for _, writer in streams:
            writer.close()
        return took

    async def _client(self, stream: Any, sentences: Sequence[str]) -> None:
        reader, writer = stream
        for sentence in sentences:
            body = json.dumps({"text": sentence, "beam": self._beam, **SETTINGS}).encode()
            started = time.perf_counter()
            writer.write(
                b"POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(body) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r")[0])
            answer = json.loads(await reader.readexactly(length))
            self.latencies.append(time.perf_counter() - started)
            self.answers[sentence] = answer["translations"][0]["text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
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

    lines = options.source.read_text(encoding="utf-8").splitlines()
    n = options.clients
    batches = [lines[i * n : (i + 1) * n] for i in range(options.sentences)]
    sides: dict[str, Any] = {}
    for engine in ["ours"] + [options.peer] * (options.peer != "none"):
        with Address(port=0).listen() as own:
            port = own.getsockname()[1]
            sides[f"{engine}-offline"] = Side(
                side, options.model, engine, own, batches, options.beam
            )
        sides[f"{engine}-served"] = Load(port, batches, options.beam)
    took = take_turns(sides, options.rounds, options.warmup)
    for name in took:
        print(name, [round(n * options.sentences / s) for s in took[name]])
        if "served" in name:
            l = sorted(sides[name].latencies)
            print("  p50", l[len(l) // 2], "p99", l[int(len(l) * 0.99)])
            print("  ratio", ratio(took[name], took[name.replace("served", "offline")]))
        sides[name].close()


if __name__ == "__main__":
    main()
