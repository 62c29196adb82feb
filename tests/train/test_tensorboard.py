"""Event files for TensorBoard hold every logged number once per step."""

import dataclasses
import errno
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from npformer.errors import UnwritableError, UserError
from train.cli.parser import build_parser
from train.cli.tensorboard import check_tensorboard, event_files
from train.runs.log_entry import LogEntry
from train.settings_file import as_flags, read_settings
from train.validation import Validation

LOGGED = LogEntry(20, 2.5, 12.0, 1e-3, 0.5, 1000.0, 10.0, 5.0, 1)
VALIDATED = Validation(20, 2.75, 15.0, 10.0, bleu=31.5, signature="nrefs:1")


def events(directory: Path) -> Iterator[Any]:
    """The events in the files of a directory."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(directory.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            [length] = struct.unpack("<Q", content[:8])
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def scalars(directory: Path) -> list[tuple[str, int, float]]:
    """The name, step and value of every number in the event files of a directory."""
    return [
        (value.tag, event.step, value.simple_value)
        for event in events(directory)
        for value in event.summary.value
    ]


def test_every_logged_number_is_written_with_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with event_files(True, tmp_path, 0) as write:
        write(LOGGED)
        write(VALIDATED)
    found = scalars(tmp_path / "tensorboard")
    assert ("training/loss", 20, 2.5) in found
    assert ("training/tokens_per_second", 20, 1000.0) in found
    assert ("validation/loss", 20, 2.75) in found
    assert ("validation/bleu", 20, 31.5) in found
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names) == 13
    assert {step for _, step, _ in found} == {20}


def test_a_resumed_run_discards_later_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with event_files(True, tmp_path, 20):
        pass
    started = 1  # SessionLog.START, at which TensorBoard drops events of this step and later
    steps = [e.step for e in events(tmp_path / "tensorboard") if e.session_log.status == started]
    assert steps == [21]


def test_sessions_are_in_their_order_whatever_the_clock_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    for step, clock in enumerate([2e9, 2e9, 1.5e9, 2e9, 1.9e9, 2.1e9]):
        monkeypatch.setattr("time.time", lambda now=clock: now)
        with event_files(True, tmp_path, 0) as write:
            write(dataclasses.replace(LOGGED, step=step))
    found = scalars(tmp_path / "tensorboard")  # in the order of names, as TensorBoard reads them
    assert [step for name, step, _ in found if name == "training/loss"] == list(range(6))


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ("false", False), ("events", "events"), ("a/b", "a/b")]
)
def test_the_setting_is_true_or_a_directory(word: str, value: bool | str, tmp_path: Path) -> None:
    words = ["train", "--data", "corpus", "--out", "run", "--tensorboard", word]
    assert build_parser().parse_args(words).train.tensorboard == value
    (tmp_path / "settings.yaml").write_text(f"tensorboard: {word}\n")
    flags = as_flags(read_settings(tmp_path / "settings.yaml"))
    assert build_parser().parse_args([*words[:5], *flags]).train.tensorboard == value


def test_another_directory_can_be_given(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with event_files(str(tmp_path / "events"), tmp_path / "run", 0) as write:
        write(VALIDATED)
    assert scalars(tmp_path / "events")
    assert not (tmp_path / "run").exists()


def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot write event files to"),
        event_files(str(tmp_path / "file" / "events"), tmp_path, 0),
    ):
        pass


def test_a_full_disk_is_an_error_and_not_an_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("tensorboardX.record_writer")
    with event_files(True, tmp_path, 0) as write:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(module.RecordWriter, "write", full)
        with pytest.raises(UnwritableError, match=r"cannot write event files to .*: No space left"):
            write(LOGGED)


def test_without_the_setting_nothing_is_written(tmp_path: Path) -> None:
    with event_files(False, tmp_path, 0) as write:
        write(LOGGED)
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboardx_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'npformer\[tensorboard\]'"):
        check_tensorboard()
