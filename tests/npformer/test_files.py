"""Files written whole or not at all."""

import os
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


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's always full device")
def test_a_full_disk_is_the_users_mistake(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(UserError, match="No space left"),
        atomic_write(tmp_path / "a") as file,
    ):
        with open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), file.fileno())
        file.write(b"x")
    assert os.listdir(tmp_path) == []
