"""Files are written completely or not at all."""

import errno
import os
import socket
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from npformer.errors import UserError
from npformer.files import atomic_write


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(failure), atomic_write(path) as file:  # noqa: PT012
        file.write(b"new")
        raise failure(2, "the caller's own", "elsewhere")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_path_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*No such file"),
        atomic_write(tmp_path / "no" / "such"),
    ):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "up").touch()
    with (
        pytest.raises(UserError, match=r"cannot write .*directory"),
        atomic_write(tmp_path / "full"),
    ):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(UserError, match="No space left"),
        atomic_write(tmp_path / "a") as file,
    ):
        with open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), file.fileno())
        file.write(b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "is_written"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_file_system_that_cannot_flush_names_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_written: bool
) -> None:
    def flush(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", flush)
    told = nullcontext() if is_written else pytest.raises(UserError, match="Input/output error")
    with told, atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


# Links, pipes, devices and the attributes of files are kept


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o777])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(mode)
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    os.chown(path, 1234, 1235)
    path.chmod(0o640)
    with atomic_write(path) as file:
        file.write(b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1235, 0o640)


@pytest.mark.parametrize("changed", [True, False])
def test_a_group_that_cannot_be_kept_gets_only_the_permissions_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o674)
    if changed:  # as if the file were of another group, which the process may not set

        def forbidden(*_: object) -> None:
            raise PermissionError

        real = Path.stat
        group = path.stat().st_gid + 1

        def of_another(self: Path, **how: bool) -> os.stat_result:
            values = list(real(self, **how))
            values[stat.ST_GID] = group
            return os.stat_result(values)

        monkeypatch.setattr(os, "fchown", forbidden)
        monkeypatch.setattr(Path, "stat", of_another)
    with atomic_write(path) as file:
        file.write(b"new")
    monkeypatch.undo()
    assert stat.S_IMODE(path.stat().st_mode) == (0o604 if changed else 0o674)


@pytest.mark.parametrize("target_exists", [True, False])
def test_the_target_of_a_symbolic_link_is_written(tmp_path: Path, target_exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target"
    if target_exists:
        target.write_bytes(b"old")
    (tmp_path / "between").symlink_to("elsewhere/target")
    (tmp_path / "link").symlink_to("between")
    with pytest.raises(ValueError), atomic_write(tmp_path / "link") as file:  # noqa: PT011, PT012
        file.write(b"half")
        raise ValueError
    assert target.exists() == target_exists
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["between", "elsewhere", "link"]
    assert os.listdir(tmp_path / "elsewhere") == ["target"]


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_named_pipe_is_written_into(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(tmp_path / name) as file:
        file.write(b"new")
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        with atomic_write(path) as file:
            file.write(b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device_is_reported() -> None:
    with (
        pytest.raises(UserError, match="cannot write /dev/full: No space left"),
        atomic_write("/dev/full") as file,
    ):
        file.write(b"new")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to", ["file", "pipe"])
def test_an_open_file_is_continued_at_its_position(tmp_path: Path, name: str, to: str) -> None:
    program = f"""
from npformer.files import atomic_write
print("before", flush=True)
with atomic_write({name!r}) as file:
    file.write(b"new\\n")
print("after")
"""
    command = [sys.executable, "-c", program]
    if to == "pipe":
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    else:
        with open(tmp_path / "out", "wb") as out:
            subprocess.run(command, stdout=out, check=True)
        output = (tmp_path / "out").read_bytes()
        assert os.listdir(tmp_path) == ["out"]
    assert output == b"before\nnew\nafter\n"


@pytest.mark.parametrize("name", ["loop", "/proc/self/fd/999", "/dev/fd/x", "socket", ""])
def test_a_path_that_cannot_be_opened_is_refused_with_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        listening.bind("socket")
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(UserError, match="cannot write") as error, atomic_write(tmp_path / name):
            pass
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_without_a_reader_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"cannot write .*pipe"), atomic_write(tmp_path / "pipe"):
        pass
