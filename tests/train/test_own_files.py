"""A directory is emptied of a program's own files, and of no others."""

import os
from pathlib import Path

import pytest

from npformer.errors import UserError
from train.own_files import record_own, remove_own

PLACES = ("run", "picture.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with two files that are recorded, and one that has nothing to do with it."""
    (tmp_path / "run" / "below").mkdir(parents=True)
    (tmp_path / "run" / "below" / "model").write_text("ours")
    (tmp_path / "picture.png").write_text("ours")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    record_own(tmp_path, tmp_path / "mark", PLACES)
    return tmp_path


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_what_was_made_is_removed_and_the_rest_stays(folder: Path) -> None:
    remove_own(folder, folder / "mark", PLACES)
    assert contents(folder) == {"mark", "mine", "mine/thesis"}


def test_a_file_of_somebody_else_refuses_all(folder: Path) -> None:
    (folder / "run" / "notes").write_text("mine")
    before = contents(folder)
    with pytest.raises(UserError, match="run/notes is no file that npformer left"):
        remove_own(folder, folder / "mark", PLACES)
    assert contents(folder) == before


def test_a_file_that_was_changed_refuses_all(folder: Path) -> None:
    (folder / "picture.png").write_text("mine")
    before = contents(folder)
    with pytest.raises(UserError, match=r"picture\.png is no file that npformer left"):
        remove_own(folder, folder / "mark", PLACES)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_links_and_pipes_are_somebody_elses(folder: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(folder / "run" / "odd")
    else:
        target = folder / "mine" / "thesis" if kind == "file" else folder / "mine"
        (folder / "run" / "odd").symlink_to(target)
    record_own(folder, folder / "mark", PLACES)
    with pytest.raises(UserError, match="run/odd is no file"):
        remove_own(folder, folder / "mark", PLACES)
    assert (folder / "mine" / "thesis").read_text() == "mine"


@pytest.mark.parametrize("content", ["", "{}"])
def test_an_empty_record_owns_nothing(folder: Path, content: str) -> None:
    (folder / "mark").write_text(content)
    with pytest.raises(UserError, match="is no file that npformer left"):
        remove_own(folder, folder / "mark", PLACES)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "\0"])
def test_a_damaged_record_is_named(folder: Path, content: str) -> None:
    (folder / "mark").write_text(content)
    with pytest.raises(UserError, match="mark"):
        remove_own(folder, folder / "mark", PLACES)
    assert (folder / "picture.png").exists()
