"""A cached build is made once, and again when an input changes."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from tests import kept as module
from tests.kept import forget, kept
from tests.without_gpu import build

fcntl = pytest.importorskip("fcntl", reason="only what Windows cannot build is kept")


@pytest.fixture
def home(monkeypatch, tmp_path):
    for user in (module, build):
        monkeypatch.setattr(user, "home", lambda: tmp_path)
    return tmp_path


def test_a_thing_is_made_once(home):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "thing").write_text("x")

    first = kept(("thing", 1), make)
    assert kept(("thing", 1), make) == first
    assert (first / "thing").read_text() == "x"
    assert kept(("thing", 2), make) != first
    assert len(made) == 2


def test_nothing_is_kept_of_what_fails(home):
    def fail(folder):
        (folder / "half").write_text("x")
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        kept(("thing",), fail)
    assert not [path for path in home.iterdir() if path.is_dir()]
    assert kept(("thing",), lambda folder: None).is_dir()


def make_slowly(home, at_once):
    module.home = lambda: home
    at_once.wait()

    def make(folder):
        time.sleep(0.05)
        with (home / "made").open("a") as file:
            file.write("once\n")

    kept(("thing",), make)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_processes_that_want_it_at_once_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    at_once = context.Barrier(4)
    processes = [context.Process(target=make_slowly, args=(tmp_path, at_once)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "made").read_text() == "once\n"


def test_what_was_not_used_for_the_longest_time_is_forgotten(tmp_path):
    now = time.time()
    for age in range(6):
        folder = tmp_path / f"{age} days"
        folder.mkdir()
        (folder / "thing").write_bytes(bytes(100))
        os.utime(folder, (now - 86400 * age,) * 2)
    (tmp_path / "making-x").mkdir()
    os.utime(tmp_path / "making-x", (now - 86400,) * 2)
    (tmp_path / "00.lock").touch()
    forget(tmp_path, limit=350)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("0 days", "00.lock", "1 days", "2 days")
    ]
    forget(tmp_path, limit=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 days", "00.lock"]


def test_without_a_place_things_are_kept_for_the_process(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    folder = module.home.__wrapped__()
    assert folder.is_dir()
    assert not folder.is_relative_to(tmp_path)


TEXTS = {"a.cpp": '#include "b.h"\nextern "C" int f() { return N + M; }\n', "b.h": "#define M 1\n"}
OPTIONS = ["-shared", "-DN=1", "a.cpp"]


@pytest.mark.skipif(
    build.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)
def test_a_change_to_anything_that_a_library_is_built_of_builds_it_anew(home, monkeypatch):
    other_compiler = (*build.identity(), "of another version")
    before = build.built("f.so", TEXTS, OPTIONS)
    assert build.built("f.so", dict(TEXTS), list(OPTIONS)) == before
    header = build.precompiled("b.h", TEXTS, [])
    other_header = build.precompiled("b.h", {**TEXTS, "b.h": "#define M 2\n"}, [])
    others = [
        build.built("f.so", {**TEXTS, "a.cpp": TEXTS["a.cpp"] + "\n"}, OPTIONS),
        build.built("f.so", {**TEXTS, "b.h": "#define M 2\n"}, OPTIONS),
        build.built("f.so", TEXTS, [*OPTIONS[:-1], "-DN=2", "a.cpp"]),
        build.built("f.so", TEXTS, ["-O1", *OPTIONS]),
        build.built("f.so", TEXTS, OPTIONS, [("-include", header)]),
        build.built("f.so", TEXTS, OPTIONS, [("-I", Path("somewhere/include"))], "1.0"),
        build.built("f.so", TEXTS, OPTIONS, [("-I", Path("somewhere/include"))], "1.1"),
    ]
    again = build.built("f.so", TEXTS, OPTIONS, [("-I", Path("elsewhere/include"))], "1.0")
    assert again in others  # a package may lie anywhere
    with pytest.raises(build.BuildError, match="redefined"):
        build.built("f.so", TEXTS, ["-Werror", *OPTIONS], [("-include", other_header)])
    monkeypatch.setattr(build, "identity", lambda: other_compiler)
    others.append(build.built("f.so", TEXTS, OPTIONS))
    assert len({before, *others}) == len(others) + 1
    assert all(path.is_file() for path in (before, *others))
