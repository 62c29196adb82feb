"""TensorBoard's event files: every number of the log, written during the run.

Needs tensorboardX: pip install 'npformer[tensorboard]'. Its SummaryWriter writes in a thread, which
dies silently when the disk is full, and then its next events block forever. So events are written
here one by one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npformer.errors import UnwritableError, UserError

if TYPE_CHECKING:
    from train.runs.log_entry import LogEntry
    from train.trainer import Report
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
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import SessionLog

    directory = run / "tensorboard" if wanted is True else Path(wanted)
    with _unwritable(directory):
        directory.mkdir(parents=True, exist_ok=True)
        # Files that were begun in the same second would have one name.
        writer = EventsWriter(str(directory / "events"), f".{secrets.token_hex(4)}")
        _write(writer, step + 1, session_log=SessionLog(status=SessionLog.START))
        writer.flush()

    def write(entry: LogEntry | Validation) -> None:
        from tensorboardX.summary import scalar

        values = asdict(entry)
        part = "validation" if "valid_loss" in values else "training"
        with _unwritable(directory):
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    tag = f"{part}/{name.removeprefix('valid_')}"
                    _write(writer, entry.step, summary=scalar(tag, value))
            writer.flush()

    try:
        yield write
    finally:
        with _unwritable(directory):
            writer.close()


def _write(writer: Any, step: int, **what: Any) -> None:
    from tensorboardX.proto.event_pb2 import Event

    writer.write_event(Event(wall_time=time.time(), step=step, **what))


@contextmanager
def _unwritable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnwritableError(
            f"cannot write event files to {directory}: {error.strerror}"
        ) from error
