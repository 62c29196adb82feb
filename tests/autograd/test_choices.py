"""The fastest way is chosen once, and every later run uses this choice."""

import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from autograd.cache_folder import cache_folder
from autograd.cuda.choices import Choices


def file_of(about: str, purpose: str, chosen: str, version: str = "npformer choice 2") -> bytes:
    lines = f"{version}\n{about}\n{purpose}\n{chosen}\n".encode()
    return lines + f"sha256 {hashlib.sha256(lines).hexdigest()}\n".encode()


def test_a_choice_is_saved_for_later_runs(tmp_path):
    assert Choices(tmp_path, "card 1").get("a product") is None
    assert Choices(tmp_path, "card 1").keep("a product", "way 7") == "way 7"
    later = Choices(tmp_path, "card 1")
    assert later.get("a product") == "way 7"
    assert later.get("another product") is None
    assert Choices(tmp_path, "card 2").get("a product") is None


def test_the_first_choice_is_used_by_all(tmp_path):
    first, second = Choices(tmp_path, "card"), Choices(tmp_path, "card")
    assert second.get("a product") is None  # and meanwhile:
    first.keep("a product", "way 1")
    assert second.keep("a product", "way 2") == "way 1"
    assert second.get("a product") == "way 1"


TURNS = 30


def choose(folder, name, at_once, chosen):
    for turn in range(TURNS):
        choices = Choices(folder / str(turn), "card")
        at_once.wait()
        chosen.put((turn, choices.keep("a product", name)))


def test_concurrent_processes_agree_on_a_choice(tmp_path):
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    chosen, at_once = context.Queue(), context.Barrier(6)
    processes = [
        context.Process(target=choose, args=(tmp_path, f"way {i}", at_once, chosen))
        for i in range(6)
    ]
    for process in processes:
        process.start()
    found = {chosen.get(timeout=60) for _ in range(6 * TURNS)}
    for process in processes:
        process.join()
    assert found == {
        (turn, Choices(tmp_path / str(turn), "card").get("a product")) for turn in range(TURNS)
    }
    for turn in range(TURNS):  # no temporary files are left
        assert len(list((tmp_path / str(turn)).iterdir())) == 1


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"npformer choice 2\n",
        b"card\na product\nway 3\n",  # of version 1
        b"npformer choice 2\ncard\na product\nway 3\n",
        file_of("another", "a product", "way 3"),
        file_of("card", "another", "way 3"),
        file_of("card", "a product", "zzzz"),
        file_of("card", "a product", "way 3", "npformer choice 3"),
        file_of("card", "a product", "way 3") + b"\n",
        b"\xff\xfe\x80",
    ],
)
def test_a_damaged_or_foreign_choice_is_replaced(tmp_path, found):
    Choices(tmp_path, "card").keep("a product", "way 1")
    [file] = tmp_path.iterdir()
    file.write_bytes(found)
    choices = Choices(tmp_path, "card", lambda name: name.startswith("way "))
    assert choices.get("a product") is None
    assert choices.keep("a product", "way 2") == "way 2"
    assert Choices(tmp_path, "card").get("a product") == "way 2"


def test_no_bit_of_a_choice_may_change(tmp_path):
    Choices(tmp_path, "card").keep("a product", "way 1")
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    assert whole == file_of("card", "a product", "way 1")
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        assert Choices(tmp_path, "card").get("a product") is None
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        assert Choices(tmp_path, "card").get("a product") is None


def test_a_folder_that_cannot_be_written_gives_a_warning(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    choices = Choices(blocked / "products", "card")
    with pytest.warns(UserWarning, match="cannot keep .* set XDG_CACHE_HOME to a folder"):
        assert choices.keep("a product", "way 1") is None
    assert not choices.can_keep()


def test_the_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "npformer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "npformer"


def test_a_missing_home_directory_gives_a_warning(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    choices = Choices(cache_folder(), "card")
    with pytest.warns(UserWarning, match="set XDG_CACHE_HOME"):
        assert choices.keep("a product", "way 1") is None


def test_a_run_keeps_its_choices_if_the_cache_changes(tmp_path):
    cache, run = tmp_path / "cache", str(tmp_path / "run")
    choices = Choices(cache, "card")
    assert choices.get("a product", run) is None
    assert choices.keep("a product", "way 1", run) == "way 1"
    shutil.rmtree(cache)
    assert Choices(cache, "card").keep("a product", "way 2") == "way 2"  # another run's
    assert Choices(cache, "card").get("a product", run) == "way 1"
    assert Choices(cache, "card").get("a product") == "way 2"
    assert Choices(cache, "another card").get("a product", run) is None


def test_a_run_copies_earlier_choices_of_the_cache(tmp_path):
    cache, run = tmp_path / "cache", str(tmp_path / "run")
    Choices(cache, "card").keep("a product", "way 1")
    assert Choices(cache, "card").get("a product", run) == "way 1"
    Choices(cache, "card").keep("another", "way 2")
    assert Choices(cache, "card").keep("another", "way 3", run) == "way 2"
    shutil.rmtree(cache)
    later = Choices(cache, "card")
    assert [later.get(purpose, run) for purpose in ("a product", "another")] == ["way 1", "way 2"]


def test_a_damaged_choice_of_a_run_is_replaced(tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    Choices(cache, "card").keep("a product", "way 1", str(run))
    [file] = run.iterdir()
    file.write_bytes(b"card\n")
    assert Choices(cache, "card").get("a product", str(run)) == "way 1"
    assert file.read_bytes() == file_of("card", "a product", "way 1")


@pytest.mark.parametrize("blocked", ["cache", "run"])
def test_one_writable_folder_is_enough(tmp_path, blocked):
    (tmp_path / blocked).write_text("not a folder")
    choices, run = Choices(tmp_path / "cache", "card"), str(tmp_path / "run")
    with pytest.warns(UserWarning, match=f"cannot keep .*{blocked}"):
        assert choices.keep("a product", "way 1", run) == "way 1"
    assert choices.can_keep(run)
    later = Choices(tmp_path / "cache", "card")
    assert later.get("a product", run if blocked == "cache" else None) == "way 1"
