"""Where a rank's messages go: those of the first to the terminal, those of others to logs."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from npformer.errors import UserError
from train.ranks.ranks import Ranks


class RankOutput:
    """What a rank other than the first writes to standard output and error.

    The descriptors themselves are redirected, so it is also what libraries print that are not
    written in Python. It is held in a temporary file until it is known where the log is.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._file: IO[bytes] | None = None
        self._has_log = False

    def log_to(self, path: Path) -> None:
        """From now on, append to a log at `path`, also what was written before.

        Does nothing on the first rank. Raises UserError if the log cannot be written.
        """
        if self._file is None:
            return
        _flush()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            log = open(path, "ab")  # noqa: SIM115, closed by `end`
            self._file.seek(0)
            shutil.copyfileobj(self._file, log)
            log.flush()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        self._take(log)
        self._has_log = True
        for name in ("npformer", "autograd"):
            logging.getLogger(name).setLevel(logging.INFO)

    def begin(self) -> None:
        """Redirect both descriptors."""
        _flush()
        self._saved = [os.dup(number) for number in (1, 2)]
        self._ranks.terminal = self._saved[1]
        self._take(tempfile.TemporaryFile())  # noqa: SIM115, closed by `end`
        self._handlers = logging.root.handlers
        self._levels = {name: logging.getLogger(name).level for name in ("npformer", "autograd")}
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logging.root.handlers = [handler]

    def end(self, error: BaseException | None) -> None:
        """Direct the descriptors back, after a log has been told of the error, if there was one.

        Without a log, the terminal is told what was held if the error is a bug.
        """
        is_bug = error is not None and not isinstance(error, (UserError, KeyboardInterrupt))
        if isinstance(error, Exception) and self._has_log:
            lines = traceback.format_exception(error)
            logging.getLogger("npformer").error("%s", "".join(lines).rstrip() if is_bug else error)
        _flush()
        logging.root.handlers = self._handlers
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        for number, saved in enumerate(self._saved, start=1):
            os.dup2(saved, number)
        self._ranks.terminal = 2
        for saved in self._saved:
            os.close(saved)
        assert self._file is not None
        if is_bug and not self._has_log:
            self._file.seek(0)
            with suppress(OSError), open(2, "wb", closefd=False) as terminal:
                shutil.copyfileobj(self._file, terminal)
        self._file.close()
        self._file = None

    def _take(self, file: IO[bytes]) -> None:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        if self._file is not None:
            self._file.close()
        self._file = file


@contextmanager
def output_of(ranks: Ranks) -> Iterator[RankOutput]:
    """Keep what this process writes off the terminal, unless it is the first rank."""
    output = RankOutput(ranks)
    if ranks.is_first:
        yield output
        return
    output.begin()
    error: BaseException | None = None
    try:
        yield output
    except BaseException as caught:
        error = caught
        raise
    finally:
        output.end(error)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()
