"""Directories are written completely or not at all."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import npformer
from npformer import directories
from npformer.checkpoint import load_config
from npformer.directories import set_aside, whole_directory
from npformer.errors import UserError


def test_a_directory_appears_when_it_is_complete_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for text in ("old", "new"):
        with whole_directory(path) as new:
            (new / "weights").write_text(text)
            assert path.exists() == (text == "new")
        assert (path / "weights").read_text() == text
        path.chmod(0o750)
    with pytest.raises(KeyboardInterrupt), whole_directory(path) as new:
        raise KeyboardInterrupt
    assert (path / "weights").read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert os.listdir(tmp_path) == ["model"]


cannot_exchange = pytest.mark.parametrize("can_exchange", [True, False])


def write(path: Path, text: str) -> None:
    with whole_directory(path) as new:
        (new / "weights").write_text(text)


@cannot_exchange
def test_an_old_directory_is_replaced_and_removed(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        write(tmp_path / "model", text)
        assert (tmp_path / "model" / "weights").read_text() == text
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems exchange names in other ways")
def test_names_are_exchanged_at_once(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text(name)
    assert directories._exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "text").read_text() == "other"
    assert (tmp_path / "other" / "text").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        directories._exchange(tmp_path / "one", tmp_path / "none")


def test_a_directory_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    write(path, "old")
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        if target == path and source.suffix == ".tmp":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_directory(path):
        pass
    assert (path / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def killed(program: str, *arguments: object) -> None:
    """Run a program that kills itself."""
    root = Path(npformer.__file__).parents[1]
    header = "import os, shutil, signal, sys\nfrom pathlib import Path\n" + (
        "from npformer import directories\nfrom npformer.directories import whole_directory\n"
        "path = Path(sys.argv[1])\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", header + program, *map(str, arguments)], cwd=root)
    assert done.returncode == -signal.SIGKILL


def test_files_left_by_a_kill_are_removed_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write(path, "old")
    killed("with whole_directory(path) as new: (new / 'half').mkdir(); die()", path)
    (left,) = set(os.listdir(tmp_path)) - {"model"}
    assert left.startswith(".model.")
    assert (path / "weights").read_text() == "old"
    # Other files, and those of other processes, stay.
    others = [".model.x.tmp", ".model.0123456g.tmp", ".models.01234567.tmp", "model.01234567.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".model.01234567.tmp").write_text("a file")
    write(path, "new")
    assert set(os.listdir(tmp_path)) == {"model", ".model.01234567.tmp", *others}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems exchange names in other ways")
def test_a_kill_leaves_either_the_old_or_the_new_directory(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for before, text in (("directories._exchange", "old"), ("shutil.rmtree", "new")):
        write(path, "old")
        program = "with whole_directory(path) as new: (new / 'weights').write_text('new')"
        killed(f"{before} = die\n{program}", path)
        assert (path / "weights").read_text() == text
    write(path, "newest")
    assert os.listdir(tmp_path) == ["model"]


def test_between_two_renames_the_old_directory_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write(path, "old")
    assert set_aside(path) is None
    killed(
        "directories._exchange = lambda one, other: False\n"
        "rename = os.rename\n"
        "os.rename = lambda a, b: die() if b == path else rename(a, b)\n"
        "with whole_directory(path): pass",
        path,
    )
    old = set_aside(path)
    assert old is not None
    assert (old / "weights").read_text() == "old"
    assert not path.exists()
    with pytest.raises(UserError, match=f"rename {old} to {path}"):
        load_config(path)
    write(path, "new")
    assert set_aside(path) is None
    assert old.exists()  # until the new one exists
    write(path, "newer")
    assert os.listdir(tmp_path) == ["model"]


def test_a_directory_that_another_process_is_filling_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with whole_directory(path) as first:
        write(path, "second")
        assert first.exists()
        (first / "weights").write_text("first")
    assert (path / "weights").read_text() == "first"
    assert os.listdir(tmp_path) == ["model"]


def test_a_directory_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may consider it to be left by a kill."""
    lock, made = directories.lock_or_raise, []

    def too_late(descriptor: int) -> None:
        made.append(next(path for path in tmp_path.iterdir() if path.suffix == ".tmp"))
        if len(made) < 3:
            made[-1].rmdir()
        if len(made) == 1:
            raise BlockingIOError
        lock(descriptor)

    monkeypatch.setattr(directories, "lock_or_raise", too_late)
    with whole_directory(tmp_path / "model") as new:
        assert new.is_dir()
    assert (tmp_path / "model").is_dir()
    assert len(made) == 3
