"""TensorBoard's event files: every number of the log, written as the run goes on.

Needs tensorboardX: pip install 'npformer[tensorboard]'.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from npformer.errors import UserError

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

    from train.log_entry import LogEntry
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
    that the run goes on from. TensorBoard forgets what was written of later steps, which the run
    takes again.
    """
    if not wanted:
        yield lambda entry: None
        return
    from tensorboardX import SummaryWriter

    directory = run / "tensorboard" if wanted is True else Path(wanted)
    try:
        with SummaryWriter(str(directory), purge_step=step + 1) as writer:
            yield lambda entry: _write(writer, entry)
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(directory):
            raise
        raise UserError(f"cannot write event files to {directory}: {error.strerror}") from error


def _write(writer: SummaryWriter, entry: LogEntry | Validation) -> None:
    part = "validation" if "valid_loss" in asdict(entry) else "training"
    for name, value in asdict(entry).items():
        if isinstance(value, int | float) and name != "step":
            writer.add_scalar(f"{part}/{name.removeprefix('valid_')}", value, entry.step)
