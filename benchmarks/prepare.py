"""How fast `prepare` encodes a large corpus, and in how much memory, beside spm_encode.

    python -m benchmarks.prepare --source a.en b.en --target a.de b.de --pairs 4500000

The corpus is made from real text: lines drawn at random, each with some words replaced by others
of the same language. It is made in a folder of its own, which is removed in the end. `prepare`
learns a vocabulary from it and encodes it; then it encodes the same text with that vocabulary.
spm_encode, SentencePiece's own program, encodes the same lines in as many processes, each with its
share of them, and writes the ids to nowhere. It must be installed (Debian and Ubuntu: apt install
sentencepiece).

`cpu_seconds` are those of all processes; unlike `seconds`, they hardly depend on what else the
machine does. `peak_bytes` is the most memory that all processes of `prepare` had at one time, and
`peak_bytes_of_one` the most that one of them had.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import positive, publish, result_file
from train.corpora.text import read_lines
from train.corpora.workers import cores

_SAMPLE = 20_000  # lines whose words replace others
_EVERY = 8  # words, of which one is replaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for side in ("source", "target"):
        parser.add_argument(f"--{side}", type=Path, nargs="+", required=True, help="real text")
    parser.add_argument("--pairs", type=positive, default=4_500_000)
    parser.add_argument("--vocab-size", type=positive, default=32_000)
    parser.add_argument("--jobs", type=positive, default=cores(), help="processes that encode")
    parser.add_argument("--work", type=Path, help="where to make the corpus, and remove it again")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work, prefix="benchmark.") as work:
        publish(_measured(options, Path(work)), options.out)


def _measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    texts = [work / "text.source", work / "text.target"]
    _make_text([options.source, options.target], texts, options.pairs)
    learn = _prepare(texts, work / "learned", options.jobs, f"--vocab-size={options.vocab_size}")
    encode = _prepare(texts, work / "encoded", options.jobs, f"--tokenizer={work / 'learned'}")
    split = json.loads((work / "encoded" / "manifest.json").read_text())["splits"]["train"]
    tokens = split["source_tokens"] + split["target_tokens"]
    arrays = sum(path.stat().st_size for path in (work / "encoded").glob("train.*.npy"))
    theirs = _spm_encode(work / "learned" / "tokenizer.spm", texts, work, options.jobs)
    return {
        "benchmark": "prepare",
        "config": {
            "pairs": options.pairs,
            "tokens": tokens,
            "bytes_of_text": sum(path.stat().st_size for path in texts),
            "vocab_size": options.vocab_size,
            "jobs": options.jobs,
        },
        "ours": {
            **encode,
            "pairs_per_s": round(options.pairs / encode["seconds"]),
            "bytes_per_token": round(arrays / tokens, 3),
        },
        "with_vocabulary": learn,
        "peers": {
            "spm_encode": {
                **theirs,
                "pairs_per_s": round(options.pairs / theirs["seconds"]),
                "version": _version_of_spm_encode(),
            }
        },
        "speedup": {"spm_encode": round(theirs["seconds"] / encode["seconds"], 3)},
    }


def _make_text(real: Sequence[Sequence[Path]], texts: Sequence[Path], pairs: int) -> None:
    """Write parallel text of `pairs` pairs, made from parallel real text."""
    numbers = random.Random(1)
    lines = [[line for path in paths for line in read_lines(path)] for paths in real]
    words = [
        [word for line in numbers.sample(side, min(_SAMPLE, len(side))) for word in line.split()]
        for side in lines
    ]
    with (
        open(texts[0], "w", encoding="utf-8") as source,
        open(texts[1], "w", encoding="utf-8") as t,
    ):
        for _ in range(pairs):
            drawn = numbers.randrange(len(lines[0]))
            for side, file in enumerate((source, t)):
                sentence = lines[side][drawn].split(" ")
                for _ in range(1 + len(sentence) // _EVERY):
                    sentence[numbers.randrange(len(sentence))] = numbers.choice(words[side])
                file.write(" ".join(sentence) + "\n")


def _prepare(texts: Sequence[Path], out: Path, jobs: int, vocabulary: str) -> dict[str, Any]:
    """Prepare a corpus, in a process of its own. Returns its time and memory."""
    few = [path.with_suffix(f".few{path.suffix}") for path in texts]
    for path, valid in zip(texts, few, strict=True):
        with open(path, "rb") as file:
            valid.write_bytes(b"".join(file.readline() for _ in range(1000)))
    words = [f"--train-source={texts[0]}", f"--train-target={texts[1]}"]
    words += [f"--valid-source={few[0]}", f"--valid-target={few[1]}", f"--out={out}"]
    command = [sys.executable, "-m", "train", "prepare", *words, f"--jobs={jobs}", vocabulary]
    memory: list[_Memory] = []

    def run() -> None:
        process = subprocess.Popen(command)
        memory.append(_Memory(process.pid))
        if process.wait() != 0:
            sys.exit("prepare has failed")

    seconds = _seconds(run)
    memory[0].stop()
    return {
        **seconds,
        "peak_bytes": memory[0].of_all,
        "peak_bytes_of_one": memory[0].of_one,
    }


def _seconds(run: Callable[[], None]) -> dict[str, float]:
    """The time of something that other processes do, and that of the processors."""

    def processors() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begun, before = time.perf_counter(), processors()
    run()
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(processors() - before, 1),
    }


class _Memory:
    """The most memory that a process and those that it starts have, observed as they run."""

    def __init__(self, pid: int) -> None:
        self.of_all = self.of_one = 0
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._observe)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _observe(self) -> None:
        while not self._stopped.wait(0.1):
            now = [_resident(pid) for pid in _with_children(self._pid)]
            self.of_all = max(self.of_all, sum(now))
            self.of_one = max(self.of_one, max(now, default=0))


def _with_children(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [pid, *(p for child in children for p in _with_children(int(child)))]


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _spm_encode(model: Path, texts: Sequence[Path], work: Path, jobs: int) -> dict[str, float]:
    """The time in which as many processes of `spm_encode` encode the same lines."""
    if shutil.which("spm_encode") is None:
        sys.exit("spm_encode is not installed: apt install sentencepiece")
    shares = [work / f"share.{job}" for job in range(jobs)]
    files = [path.open("wb") for path in shares]
    for path in texts:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                files[number % jobs].write(line)
    for share in files:
        share.close()

    def run() -> None:
        processes = [
            subprocess.Popen(
                ["spm_encode", f"--model={model}", "--output_format=id", f"--input={share}"],
                stdout=subprocess.DEVNULL,
            )
            for share in shares
        ]
        if any(process.wait() for process in processes):
            sys.exit("spm_encode has failed")

    return _seconds(run)


def _version_of_spm_encode() -> str:
    said = subprocess.run(["spm_encode", "--version"], capture_output=True, text=True, check=False)
    return (said.stdout + said.stderr).strip().split("\n")[0]


if __name__ == "__main__":
    main()
