"""TensorBoard's event files: every number of the log, written during the run.

Needs tensorboardX: pip install 'npformer[tensorboard]'. Its SummaryWriter writes in a thread, which
dies silently when the disk is full, and then its next events block forever. So events are written
here one by one.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npformer.errors import UnwritableError, UserError

if TYPE_CHECKING:
    from train.loop import Report
    from train.runs.log_entry import LogEntry
    from train.validation import Validation


def check_tensorboard() -> None:
    """Raise UserError if event files cannot be written."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UserError(
            "event files for TensorBoard need tensorboardX: pip install 'npformer[tensorboard]', "
            "or leave out the setting tensorboard"
        ) from error


@contextmanager
def event_files(wanted: bool | str, run: Path, step: int) -> Iterator[Report]:
    """What writes the log's entries to event files; nothing, if they are not wanted.

    wanted: the setting `tensorboard`, true for a folder in the directory `run`. step: of the state
    that the run continues from. TensorBoard forgets what was written of later steps, which the run
    takes again. Raises UnwritableError if the files cannot be written.
    """
    if not wanted:
        yield lambda entry: None
        return
    from tensorboardX.proto.event_pb2 import SessionLog
    from tensorboardX.record_writer import RecordWriter

    directory = run / "tensorboard" if wanted is True else Path(wanted)
    with _unwritable(directory):
        directory.mkdir(parents=True, exist_ok=True)
        writer = RecordWriter(str(_new_file(directory)))
        _write(writer, 0, file_version="brain.Event:2")
        _write(writer, step + 1, session_log=SessionLog(status=SessionLog.START))
        writer.flush()

    def write(entry: LogEntry | Validation) -> None:
        from tensorboardX.summary import scalar

        values = asdict(entry)
        part = "validation" if "valid_loss" in values else "training"
        with _unwritable(directory):
            for name, value in values.items():
                if isinstance(value, int | float) and name not in ("step", "beam"):
                    tag = f"{part}/{name.removeprefix('valid_')}"
                    _write(writer, entry.step, summary=scalar(tag, value))
            writer.flush()

    try:
        yield write
    finally:
        with _unwritable(directory):
            writer.close()


def _new_file(directory: Path) -> Path:
    """A file that comes after those of earlier sessions.

    TensorBoard reads files in the order of their names, which begin with a time. The clock may have
    been set back, or show the same second.
    """
    names = (_EVENT_FILE.match(path.name) for path in directory.iterdir())
    seconds = max([int(time.time()), *(int(found[1]) + 1 for found in names if found)])
    # Random, for another run may write to the same directory.
    ending = f"{socket.gethostname()}.{secrets.token_hex(4)}"
    return directory / f"events.out.tfevents.{seconds:010d}.{ending}"


_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d{10})\.", re.ASCII)


def _write(writer: Any, step: int, **what: Any) -> None:
    from tensorboardX.proto.event_pb2 import Event

    writer.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())


@contextmanager
def _unwritable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnwritableError(
            f"cannot write event files to {directory}: {error.strerror}"
        ) from error
