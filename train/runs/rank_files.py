"""What the ranks of a run say of themselves, in its folder ranks/.

ranks/1.log     the log of each rank but the first, whose log is the terminal
ranks/1.json    what each rank is doing, rewritten now and then

A run that a process has always trained alone has no such folder.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from npformer.errors import UnwritableError, UserError
from npformer.files import atomic_write, unfinished
from npformer.reading import JSON_LIMIT, parse_json, read_plain
from train.ranks.work import Work

SECONDS_BETWEEN = 10.0
"""Between two reports of a rank."""


@dataclass(frozen=True)
class RankReport:
    """What a rank says of itself.

    Attributes:
        rank, size: which of how many it is
        host, process, processes: where it runs: its host, its process id, and the name of the
            space that the id belongs to (containers on a host have ids of their own)
        device: what it computes on
        doing: training, validating, saving; in the end ended or failed
        waiting_seconds: for how long it is waiting for the others now; 0 while it is not
        step: the last that it has taken
        time: when it said so, in seconds since the epoch
        step_seconds, waiting, tokens_per_second: its pace; see `Pace`. None before it is known
    """

    rank: int
    size: int
    host: str
    process: int
    processes: str
    device: str
    doing: str
    waiting_seconds: float
    step: int
    time: float
    step_seconds: float | None = None
    waiting: float | None = None
    tokens_per_second: float | None = None

    @classmethod
    def of(cls, work: Work, device: str, doing: str = "") -> RankReport:
        """What this process says of its work; doing: if it is not what the work says."""
        ranks, since, pace = work.ranks, work.ranks.waiting_since, work.pace
        return cls(
            rank=ranks.rank,
            size=ranks.size,
            host=socket.gethostname(),
            process=os.getpid(),
            processes=process_space(),
            device=device,
            doing=doing or work.doing,
            waiting_seconds=0.0 if since is None else time.monotonic() - since,
            step=work.step,
            time=time.time(),
            **(asdict(pace) if pace else {}),
        )

    @classmethod
    def read(cls, path: Path) -> RankReport:
        """Raises FileNotFoundError if the file is not there, and UserError if it is no report."""
        try:
            said = parse_json(read_plain(path, JSON_LIMIT), path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        kinds = get_type_hints(cls)
        if not (
            isinstance(said, dict)
            and said.keys() == kinds.keys()
            and all(_is_of(kinds[name], value) for name, value in said.items())
            and said["rank"] < said["size"]
        ):
            raise UserError(f"{path} is not what a rank says of itself; delete it")
        return cls(**said)

    def is_gone(self) -> bool:
        """Whether its process should be on this host, and is not."""
        if (self.host, self.processes) != (socket.gethostname(), process_space()):
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # there is one, of another user
            pass
        return False


def process_space() -> str:
    """The name of the space of process ids that this process is in; empty where there is one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class RankFiles:
    """The folder of a run's ranks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def log(self, rank: int) -> Path:
        return self.directory / f"{rank}.log"

    def report(self, rank: int) -> Path:
        return self.directory / f"{rank}.json"

    def unfinished(self) -> list[Path]:
        """Reports that killed ranks left unfinished."""
        return unfinished(self.directory, _REPORT.fullmatch)

    def _reports(self) -> list[Path]:
        paths = [path for path in self.directory.glob("*.json") if _REPORT.fullmatch(path.name)]
        return sorted(paths, key=lambda path: int(path.stem))

    def read(self) -> list[RankReport]:
        """All reports, by rank. Raises UserError for a file that is no report."""
        found = []
        for path in self._reports():
            with suppress(FileNotFoundError):  # a new job is dropping them
                found.append(RankReport.read(path))
        return found

    @contextmanager
    def reporting(self, work: Work, device: str) -> Iterator[None]:
        """Report a rank's work now and then while the block runs, and in the end how it ended.

        All ranks of a job call it. Reports of an earlier job, which may have had more ranks, are
        dropped. Another thread writes them, so that a rank reports also while it waits, or is
        long in one operation.
        """
        ranks = work.ranks
        ranks.on_first(lambda: self._begin(ranks.size))
        if ranks.size == 1:
            yield
            return
        ended = threading.Event()

        def report_until_the_end() -> None:
            while not ended.is_set():
                self._write(RankReport.of(work, device))
                ended.wait(SECONDS_BETWEEN)

        thread = threading.Thread(target=report_until_the_end, name="reports", daemon=True)
        thread.start()
        end = "failed"
        try:
            yield
            end = "ended"
        finally:
            ended.set()
            thread.join()
            self._write(RankReport.of(work, device, end))

    def _begin(self, size: int) -> None:
        try:
            for path in [*self._reports(), *self.unfinished()]:
                path.unlink(missing_ok=True)
            if size > 1:
                self.directory.mkdir(exist_ok=True)
        except OSError as error:
            raise UnwritableError(f"cannot write {error.filename}: {error.strerror}") from error

    def _write(self, report: RankReport) -> None:
        with suppress(UnwritableError), atomic_write(self.report(report.rank)) as file:
            file.write(json.dumps(asdict(report)).encode() + b"\n")  # training goes on without it


_REPORT = re.compile(r"(0|[1-9][0-9]{0,8})\.json")


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value from JSON is of the type of a field."""
    kinds = get_args(kind) or (kind,)
    if (type(value) is int and value < 0) or (type(value) is str and not value.isprintable()):
        return False
    return type(value) in kinds or (type(value) is int and float in kinds)
