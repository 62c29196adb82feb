"""Progress displays: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from npformer.translation import Translation
from train.runs.log_entry import LogEntry
from train.validation import Validation
from train.wording import duration


def describe(entry: LogEntry | Validation) -> str:
    """A log entry or a validation as a line of text, with two more for each sample."""
    if isinstance(entry, LogEntry):
        skipped = f"  {entry.skipped} skipped" if entry.skipped else ""
        return (
            f"step {entry.step:>6}  loss {entry.loss:.3f}  ppl {entry.perplexity:.2f}  "
            f"rate {entry.rate:.2e}  norm {entry.gradient_norm:.2f}  "
            f"{entry.tokens_per_second:,.0f} tokens/s  {duration(entry.seconds)}, "
            f"{duration(entry.seconds_left)} left{skipped}"
        )
    line = (
        f"step {entry.step:>6}  validation: loss {entry.valid_loss:.3f}  "
        f"ppl {entry.valid_perplexity:.2f}"
    )
    if entry.chrf is not None:
        line += f"  chrF {entry.chrf:.2f}"
    if entry.bleu is not None:
        line += f"  BLEU {entry.bleu:.2f}  {entry.signature}"
    for sample in entry.samples:
        line += f"\n  {sample.source}\n  → {sample.translation}"
    return line


class TrainingDisplay:
    """Shows a run: a line for each entry, and a bar if standard error is a terminal."""

    def __init__(self, total_steps: int, max_minutes: float = 0.0) -> None:
        self.total_steps = total_steps
        self.max_seconds = max_minutes * 60
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=1.0, left="?")

    def __enter__(self) -> TrainingDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, entry: LogEntry | Validation) -> None:
        self.console.print(describe(entry), markup=False)
        if isinstance(entry, LogEntry):
            done = entry.step / self.total_steps
            if self.max_seconds:
                done = max(done, entry.seconds / self.max_seconds)
            self.bar.update(self.task, completed=min(done, 1.0), left=duration(entry.seconds_left))


def readable(piece: str) -> str:
    """A piece with SentencePiece's mark of the beginning of a word shown as a space."""
    return piece.replace("\u2581", " ")


_SHADES = " ░▒▓█"


def shades(encoding: str) -> str:
    """Five characters from light to dark that exist in this encoding."""
    try:
        _SHADES.encode(encoding)
    except UnicodeEncodeError:
        return " .:+#"
    return _SHADES


def heat_map(translation: Translation, shades: str = _SHADES) -> str:
    """The mean attention of each predicted token (row) to each source token (column), as text."""
    assert translation.attention is not None
    weights = translation.attention.cross[translation.attention.alignment_layer].mean(axis=0)
    rows = [readable(piece).strip() for piece in translation.predicted_pieces]
    columns = [readable(piece).strip() for piece in translation.source_pieces]
    widths = [max(len(column), 2) for column in columns]
    margin = max(map(len, rows))
    lines = [" " * margin + "  " + " ".join(map(str.ljust, columns, widths))]
    for name, row in zip(rows, weights, strict=True):
        shown = [shades[min(int(weight * 5), 4)] for weight in row]
        cells = (shade * width for shade, width in zip(shown, widths, strict=True))
        lines.append(f"{name:>{margin}}  {' '.join(cells)}")
    return "\n".join(lines)


class Advance(Protocol):
    """Called when `count` more units of work are done."""

    def __call__(self, count: int) -> None: ...


@contextmanager
def counting(what: str, total: int) -> Iterator[Advance]:
    """Shows progress of work of known size: a bar on a terminal, or a line every 10 s."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        with Progress(
            TextColumn(what),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr)

    yield advance


@contextmanager
def counting_stages() -> Iterator[Callable[[str, int, int], None]]:
    """Shows progress of the stages of `prepare`, (stage, done, total): of lines, and then of pairs.

    A bar for each stage on a terminal, and elsewhere a line for each and one every 10 s, with how
    many there are a second and the time that is left.
    """

    def unit(stage: str) -> str:
        return "lines" if stage == "vocabulary" else "pairs"

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        began: dict[str, float] = {}
        last = 0.0

        def say(stage: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if stage not in began:
                began[stage] = last = now
                print(f"{stage}: {total:,} {unit(stage)}", file=sys.stderr)
            elif now - last >= 10 and done:
                last, rate = now, done / (now - began[stage])
                print(
                    f"{stage}: {done:,} of {total:,} {unit(stage)}, {rate:,.0f} a second, "
                    f"{duration((total - done) / rate)} left",
                    file=sys.stderr,
                )

        yield say
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, unit=unit(stage), rate="")
            elapsed = bar.tasks[tasks[stage]].elapsed
            rate = f"{done / elapsed:,.0f} a second" if done and elapsed else ""
            bar.update(tasks[stage], completed=done, rate=rate)

        yield advance


@contextmanager
def counting_bytes() -> Iterator[Callable[[str, int, int], None]]:
    """Shows downloads, (name, bytes so far, all bytes): a bar for each, or a line every 10 s."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        last = time.monotonic()

        def say(name: str, done: int, size: int) -> None:
            nonlocal last
            if time.monotonic() - last >= 10:
                last = time.monotonic()
                print(f"{name}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB", file=sys.stderr)

        yield say
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, size: int) -> None:
            if name not in tasks:  # the speed is that of new bytes, after a download is resumed
                tasks[name] = bar.add_task(name, total=size, completed=done)
            bar.update(tasks[name], completed=done)

        yield advance
