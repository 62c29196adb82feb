"""Only a program's own files are replaced or removed in a directory, even after a kill."""

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
    folder: Path, content: str = "ours", meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Make files in two steps, replacing earlier ones; `meanwhile` is called in between."""
    with replaced(folder, "mark", PLACES) as own_files:
        write(own_files.work / "text" / "train", content)
        write(own_files.work / "scratch", content)
        own_files.put_in_place()
        write(own_files.work / "run" / "below" / "model", content)
        write(own_files.work / "picture.png", content)
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


def test_own_files_are_replaced_and_others_stay(folder: Path) -> None:
    assert contents(folder) == OURS | MINE
    program(folder, "new")
    assert contents(folder) == dict.fromkeys(OURS, "new") | MINE
    assert set(os.listdir(folder)) == {"mark", "mine", "notes", "picture.png", "run", "text"}


def test_files_made_before_an_interruption_are_put_in_place_and_can_be_replaced(
    tmp_path: Path,
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program(tmp_path, "half", interrupted)
    assert contents(tmp_path) == dict.fromkeys(OURS, "half")
    program(tmp_path)
    assert contents(tmp_path) == OURS


@pytest.mark.parametrize("name", ["run/notes", "picture.png", "text/train"])
def test_a_file_of_somebody_else_stops_the_program(folder: Path, name: str) -> None:
    write(folder / name, "mine")
    before = contents(folder)
    with pytest.raises(UserError, match=f"{name} was not written by npformer"):
        program(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_links_and_pipes_count_as_files_of_somebody_else(folder: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(folder / "run" / "odd")
    else:
        target = folder / "mine" / "thesis" if kind == "file" else folder / "mine"
        (folder / "run" / "odd").symlink_to(target)
    with pytest.raises(UserError, match="run/odd was not written"):
        program(folder)
    assert (folder / "mine" / "thesis").read_text() == "mine"


@pytest.mark.parametrize("name", ["run", "run/notes", "picture.png"])
def test_files_that_appear_meanwhile_are_neither_overwritten_nor_adopted(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserError, match="has appeared meanwhile"):
        program(tmp_path, "ours", lambda: write(tmp_path / name, "mine"))
    assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(UserError, match=f"{name} was not written by npformer"):
        program(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).rename(tmp_path / "mine")
    program(tmp_path)
    assert contents(tmp_path) == OURS | {"mine": "mine"}


def test_a_file_in_the_place_of_a_folder_is_reported_before_any_work(tmp_path: Path) -> None:
    program(tmp_path)
    shutil.rmtree(tmp_path / "text")
    (tmp_path / "text").write_text("mine")
    with pytest.raises(UserError, match="text is not a directory"):
        program(tmp_path, "new")
    assert (tmp_path / "text").read_text() == "mine"
    assert (tmp_path / "picture.png").read_text() == "ours"


def test_a_directory_that_cannot_be_listed_leaves_all_files_in_place(
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
def test_an_empty_mark_owns_no_files(folder: Path, content: str) -> None:
    (folder / "mark").write_text(content)
    with pytest.raises(UserError, match="was not written by npformer"):
        program(folder)
    assert contents(folder) == OURS | MINE


@pytest.mark.parametrize("content", ["[]", "{", "{}", "[" * 100_000, "\0", '{"work": "mine"}'])
def test_a_damaged_mark_is_named(folder: Path, content: str) -> None:
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
def test_a_mark_that_names_another_directory_is_refused(folder: Path, work: Any) -> None:
    recorded = json.loads((folder / "mark").read_text())
    (folder / "mark").write_text(json.dumps(recorded | {"work": work}))
    with pytest.raises(UserError, match="mark holds no list of files"):
        program(folder)
    assert contents(folder) == OURS | MINE


def test_a_link_in_the_place_of_a_work_directory_is_not_followed(folder: Path) -> None:
    recorded = json.loads((folder / "mark").read_text())
    (folder / recorded["work"]).symlink_to("mine")
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
def test_a_damaged_mark_never_costs_a_file_of_somebody_else(tmp_path: Path, damage: Damage) -> None:
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
def test_a_killed_program_leaves_files_that_the_next_one_can_replace(
    tmp_path: Path, before: str
) -> None:
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
