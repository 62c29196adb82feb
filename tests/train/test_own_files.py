"""Only a program's own files are removed from a directory, even after a kill."""

import contextlib
import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from npformer.errors import UserError
from tests.damage import mutations
from tests.damage.mutations import Damage
from tests.kills import kills_itself_at
from train.own_files import replaced

PLACES = ("run", "picture.png", "text/train")


def program(
    folder: Path, said: str = "ours", meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Make files in two steps, replacing earlier ones; `meanwhile` is called in between."""
    with replaced(folder, "mark", PLACES) as own:
        write(own.work / "text" / "train", said)
        write(own.work / "scratch", said)
        own.put_in_place()
        write(own.work / "run" / "below" / "model", said)
        write(own.work / "picture.png", said)
        meanwhile()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)


MINE = {"mine/thesis": "mine", "text/downloaded": "mine", "notes": "mine"}
OURS = {"text/train": "ours", "run/below/model": "ours", "picture.png": "ours"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with recorded files and unrelated ones."""
    program(tmp_path)
    for name, text in MINE.items():
        write(tmp_path / name, text)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """The files other than the mark."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / "mark"
    }


def test_what_was_made_is_replaced_and_the_rest_stays(folder: Path) -> None:
    assert contents(folder) == OURS | MINE
    program(folder, "new")
    assert contents(folder) == dict.fromkeys(OURS, "new") | MINE
    assert set(os.listdir(folder)) == {"mark", "mine", "notes", "picture.png", "run", "text"}


def test_what_was_made_until_an_error_lies_in_place_and_can_be_replaced(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program(tmp_path, "half", interrupted)
    assert contents(tmp_path) == dict.fromkeys(OURS, "half")
    program(tmp_path)
    assert contents(tmp_path) == OURS


@pytest.mark.parametrize("name", ["run/notes", "picture.png", "text/train"])
def test_a_file_of_somebody_else_refuses_all(folder: Path, name: str) -> None:
    write(folder / name, "mine")
    before = contents(folder)
    with pytest.raises(UserError, match=f"{name} is no file that npformer left"):
        program(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_links_and_pipes_are_somebody_elses(folder: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(folder / "run" / "odd")
    else:
        target = folder / "mine" / "thesis" if kind == "file" else folder / "mine"
        (folder / "run" / "odd").symlink_to(target)
    with pytest.raises(UserError, match="run/odd is no file"):
        program(folder)
    assert (folder / "mine" / "thesis").read_text() == "mine"


@pytest.mark.parametrize("name", ["run", "run/notes", "picture.png"])
def test_what_has_come_into_being_meanwhile_is_neither_overwritten_nor_adopted(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserError, match="has come into being meanwhile"):
        program(tmp_path, "ours", lambda: write(tmp_path / name, "mine"))
    assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(UserError, match=f"{name} is no file that npformer left"):
        program(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).rename(tmp_path / "mine")
    program(tmp_path)
    assert contents(tmp_path) == OURS | {"mine": "mine"}


def test_a_file_where_a_folder_has_to_be_is_told_before_any_work(tmp_path: Path) -> None:
    program(tmp_path)
    shutil.rmtree(tmp_path / "text")
    (tmp_path / "text").write_text("mine")
    with pytest.raises(UserError, match="text is no directory"):
        program(tmp_path, "new")
    assert (tmp_path / "text").read_text() == "mine"
    assert (tmp_path / "picture.png").read_text() == "ours"


def test_a_look_that_is_refused_leaves_all_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files", path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        program(tmp_path, meanwhile=lambda: patch.setattr(os, "scandir", refuse))
    program(tmp_path, "ours")
    assert contents(tmp_path) == OURS


def test_a_folder_without_a_mark_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "thesis", "mine")
    with pytest.raises(UserError, match="is not empty and holds no demonstration"):
        program(tmp_path)
    assert contents(tmp_path) == {"thesis": "mine"}


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    def second() -> None:
        with pytest.raises(UserError, match="another process is working in"):
            program(tmp_path, "second")

    program(tmp_path, "ours", second)
    assert contents(tmp_path) == OURS


@pytest.mark.parametrize("content", ["", '{"work": ".npformer-0123456789abcdef", "files": {}}'])
def test_an_empty_record_owns_nothing(folder: Path, content: str) -> None:
    (folder / "mark").write_text(content)
    with pytest.raises(UserError, match="is no file that npformer left"):
        program(folder)
    assert contents(folder) == OURS | MINE


@pytest.mark.parametrize("content", ["[]", "{", "{}", "[" * 100_000, "\0", '{"work": "mine"}'])
def test_a_damaged_record_is_named(folder: Path, content: str) -> None:
    (folder / "mark").write_text(content)
    with pytest.raises(UserError, match="mark"):
        program(folder)
    assert contents(folder) == OURS | MINE


@pytest.mark.parametrize(
    "work",
    [
        *("mine", ".", "..", "", "/", "./mine", "../other", ".npformer-", None, 7, ["mine"]),
        *(".npformer-0123456789abcdef/../mine", ".npformer-0123456789abcdef\n"),
        *(".npformer-0123456789ABCDEF", "mine/.npformer-0123456789abcdef"),
    ],
)
def test_nothing_but_a_work_directory_is_removed(folder: Path, work: Any) -> None:
    said = json.loads((folder / "mark").read_text())
    (folder / "mark").write_text(json.dumps(said | {"work": work}))
    with pytest.raises(UserError, match="mark holds no list of files"):
        program(folder)
    assert contents(folder) == OURS | MINE


def test_a_link_in_the_place_of_a_work_directory_is_not_followed(folder: Path) -> None:
    said = json.loads((folder / "mark").read_text())
    (folder / said["work"]).symlink_to("mine")
    with pytest.raises(UserError, match="is a link"):
        program(folder, "new")
    assert contents(folder) == OURS | MINE


@pytest.mark.parametrize(
    "damage",
    [
        mutations.flip_bits,
        mutations.spoil_block,
        mutations.cut,
        mutations.replace_file,
        mutations.put_pipe,
        mutations.wrong_json,
    ],
)
def test_a_damaged_mark_never_takes_a_file_with_it(tmp_path: Path, damage: Damage) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        program(folder)
        for name, text in MINE.items():
            write(folder / name, text)
        damage(folder / "mark", random.Random(number))
        expected = OURS
        with contextlib.suppress(UserError):
            program(folder, "new")
            expected = dict.fromkeys(OURS, "new")
        assert contents(folder) == expected | MINE


@pytest.mark.parametrize("before", ["nothing", "finished", "killed"])
def test_a_kill_leaves_what_the_next_can_replace(tmp_path: Path, before: str) -> None:
    number = 0
    killed = True
    while killed:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        if before != "nothing":
            program(folder, "old")
        if before == "killed":
            assert kills_itself_at(20, lambda folder=folder: program(folder, "older"))
        if before != "nothing":
            for name, text in MINE.items():
                write(folder / name, text)
        killed = kills_itself_at(number, lambda folder=folder: program(folder, "half"))
        mine = MINE if before != "nothing" else {}
        assert contents(folder).items() >= mine.items()
        program(folder)
        assert contents(folder) == OURS | mine
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert number > 20
