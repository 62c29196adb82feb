"""The files of a run: those of other runs are refused, and remains of a kill are removed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from npformer.checkpoint import WEIGHTS, load_arrays, save_arrays
from tests.kills import kills_itself_at
from tests.train.runs import SETTINGS, assert_same_run, refusal, settings, start
from train.average import average_checkpoints
from train.corpora.corpus import Corpus
from train.runs.run import Run
from train.trainer import Trainer

SHORT = settings(max_steps=4, checkpoint_every=2, keep_checkpoints=3)
LONGER = settings(max_steps=8, checkpoint_every=2, keep_checkpoints=3)


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and another of the same shape."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("one", "other"):
        start(SHORT, corpus, folder / name)
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> tuple[Run, Run]:
    """Copies of both, for this test only."""
    shutil.copytree(made, tmp_path / "runs")
    return Run(tmp_path / "runs" / "one"), Run(tmp_path / "runs" / "other")


def test_a_state_of_another_run_is_refused_by_name(corpus: Corpus, runs: tuple[Run, Run]) -> None:
    one, other = runs
    shutil.copy(other.state, one.state)
    message = refusal(lambda: Trainer.resume(LONGER, corpus, one))
    assert f"{one.state} does not belong to the run in {one.directory}; move it" in message


def cut_short(path: Path, runs: tuple[Run, Run]) -> None:
    path.write_bytes(runs[0].checkpoints.paths()[0].read_bytes()[:1000])


def of_another_run(path: Path, runs: tuple[Run, Run]) -> None:
    shutil.copy(runs[1].checkpoints.paths()[0], path)


def copied_model(path: Path, runs: tuple[Run, Run]) -> None:
    shutil.copy(runs[0].directory / WEIGHTS, path)


@pytest.mark.parametrize("step", [2, 6, 99_999_999])
@pytest.mark.parametrize("put", [cut_short, of_another_run, copied_model])
def test_a_checkpoint_that_the_run_has_not_made_is_left_alone_with_a_warning(
    corpus: Corpus,
    runs: tuple[Run, Run],
    caplog: pytest.LogCaptureFixture,
    put: Callable[[Path, tuple[Run, Run]], None],
    step: int,
) -> None:
    one, _ = runs
    path = one.checkpoints.directory / f"{step:08d}.safetensors"
    put(path, runs)
    content = path.read_bytes()
    Trainer.resume(LONGER, corpus, one).train()
    assert path.read_bytes() == content
    [warning] = [record.getMessage() for record in caplog.records]
    assert f"{path} is damaged or not of this run, and is left alone" in warning
    own = [kept for kept in one.checkpoints.paths() if kept != path]
    assert [int(kept.stem) for kept in own] == [s for s in (2, 4, 6, 8) if s != step][-3:]
    if step > 4:
        assert str(path) in refusal(lambda: average_checkpoints(one.directory, 2))


def test_files_without_the_id_of_a_run_are_accepted(corpus: Corpus, runs: tuple[Run, Run]) -> None:
    one, _ = runs
    for path in (one.state, *one.checkpoints.paths()):
        arrays, about = load_arrays(path)
        assert about.pop("run") == one.identity.id
        save_arrays(path, arrays, about)
    Trainer.resume(LONGER, corpus, one).train()
    assert [path.stem for path in one.checkpoints.paths()] == ["00000004", "00000006", "00000008"]
    average_checkpoints(one.directory, 3)


def test_only_checkpoints_of_the_run_are_counted_and_removed(
    corpus: Corpus, runs: tuple[Run, Run]
) -> None:
    one, _ = runs
    newest = one.checkpoints.paths()[-1]
    mine = [
        one.checkpoints.directory / name
        for name in ("00000004-best.safetensors", "4.safetensors", "notes.txt", ".mine.tmp")
    ]
    for path in mine:
        shutil.copy(newest, path)
    trainer = Trainer.resume(LONGER, corpus, one)

    def put(entry: object) -> None:  # during the run
        foreign = one.checkpoints.directory / "00000001.safetensors"
        shutil.copy(runs[1].checkpoints.paths()[0], foreign)
        mine.append(foreign)

    trainer.train(put)
    assert all(path.exists() for path in mine)
    own = [path.stem for path in one.checkpoints.paths() if path not in mine]
    assert own == ["00000004", "00000006", "00000008"]


def test_a_start_that_is_killed_at_any_moment_can_be_repeated(
    corpus: Corpus, tmp_path: Path
) -> None:
    out, number = tmp_path / "run", 0
    while True:
        number += 1
        if not kills_itself_at(number, lambda: Trainer.start(SETTINGS, corpus, Run(out))):
            break
        if Run(out).state.is_file():
            Trainer.resume(SETTINGS, corpus, Run(out))
        else:
            again = shutil.copytree(out, tmp_path / f"again{number}") if out.exists() else out
            Trainer.start(SETTINGS, corpus, Run(Path(again)))
            assert not list(Path(again).rglob("*.tmp"))
            shutil.rmtree(again)
        shutil.rmtree(out, ignore_errors=True)
    assert number > 15


@pytest.mark.parametrize("name", ["run", "link", "link/../run"])
def test_a_killed_start_is_recognised_under_every_name_of_its_directory(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("run")
    started = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run")).run
    started.unlock()
    for path in (started.state, started.directory / WEIGHTS):
        path.rename(path.with_name(f".{path.name}.0123abcd.tmp"))  # not yet renamed into place
    run = Run(Path(name))
    assert run.was_never_saved()
    Trainer.start(SETTINGS, corpus, run)
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.parametrize("name", ["thesis.txt", "checkpoints/mine", "model.safetensors", ".x.tmp"])
def test_a_start_never_replaces_other_files(corpus: Corpus, tmp_path: Path, name: str) -> None:
    Trainer.start(SETTINGS, corpus, Run(tmp_path)).run.state.unlink()
    for path in tmp_path.glob("model.safetensors"):
        path.unlink()
    (tmp_path / name).write_text("mine")
    assert "not empty" in refusal(lambda: Trainer.start(SETTINGS, corpus, Run(tmp_path)))
    (tmp_path / name).unlink()
    Trainer.start(SETTINGS, corpus, Run(tmp_path))


def leftovers(run: Run) -> list[Path]:
    files = [run.state, run.settings, run.metrics, run.directory / "model.safetensors"]
    files.append(run.checkpoints.directory / "00000009.safetensors")
    files.append(run.ranks.report(1))
    files += [run.products_of(rank) / f"{rank:024x}" for rank in range(2)]
    return [path.with_name(f".{path.name}.0123abcd.tmp") for path in files]


def mines(run: Run) -> list[Path]:
    names = [".thesis.tmp", ".thesis.0123abcd.tmp", "a.tmp", "checkpoints/.a.safetensors.tmp"]
    return [run.directory / name for name in names]


@pytest.mark.parametrize(("files", "stays"), [(leftovers, False), (mines, True)])
def test_unfinished_files_are_removed_on_resuming(
    corpus: Corpus, runs: tuple[Run, Run], files: Callable[[Run], list[Path]], stays: bool
) -> None:
    one, _ = runs
    for path in files(one):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
    Trainer.resume(LONGER, corpus, one)
    assert [path.exists() for path in files(one)] == [stays] * len(files(one))


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.campaign)])
def test_a_run_killed_at_any_change_of_a_file_ends_the_same(
    corpus: Corpus, tmp_path: Path, stride: int
) -> None:
    chosen = settings(max_steps=4, checkpoint_every=2, validate_every=2, log_every=3)
    start(chosen, corpus, tmp_path / "whole")
    out, number = tmp_path / "run", 0
    shutil.rmtree(out, ignore_errors=True)
    Trainer.start(chosen, corpus, Run(out))
    begun = tmp_path / "begun"
    shutil.copytree(out, begun)

    def resume() -> None:
        Trainer.resume(chosen, corpus, Run(out)).train()

    while True:
        number += stride
        shutil.rmtree(out)
        shutil.copytree(begun, out)
        if not kills_itself_at(number, resume):
            break
        resume()
        assert_same_run(out, tmp_path / "whole")
    assert number > 30


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs to name open files")
def test_what_a_save_relies_on_is_on_the_disk_before(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others before the state, the state before older checkpoints are removed."""
    chosen = settings(
        max_steps=2, checkpoint_every=1, validate_every=1, samples=1, keep_checkpoints=1
    )
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    run, done = trainer.run, []
    sync, replace, remove = os.fsync, os.replace, Path.unlink

    def name(path: object) -> str:
        return str(Path(str(path)).relative_to(run.directory))

    def synced(descriptor: int) -> None:
        sync(descriptor)
        done.append(("sync", name(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def replaced(source: Path, target: Path) -> None:
        assert done[-1] == ("sync", name(source))
        replace(source, target)
        done.append(("replace", name(target)))

    def removed(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            done.append(("remove", name(path)))
        remove(path, missing_ok)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", removed)
    trainer.train()
    first, second = (f"checkpoints/0000000{step}.safetensors" for step in (1, 2))
    before = done[: done.index(("replace", second))]
    saved = done[len(before) - before[::-1].index(("sync", "metrics.jsonl")) - 1 :]
    order = [
        ("sync", "metrics.jsonl"),
        ("sync", "."),
        ("sync", "translations.jsonl"),
        ("replace", second),
        ("sync", "checkpoints"),
        ("replace", "training/state.safetensors"),
        ("sync", "training"),
        ("remove", first),
    ]
    places = [saved.index(event) for event in order]
    assert places == sorted(places)


def test_a_run_whose_id_is_lost_takes_it_from_its_state(
    corpus: Corpus, runs: tuple[Run, Run]
) -> None:
    one, _ = runs
    identity, lines = one.identity.id, one.settings.read_text().splitlines(keepends=True)
    one.settings.write_text("\ufeff" + "".join(s for s in lines if not s.startswith("# run ")))
    Trainer.resume(LONGER, corpus, Run(one.directory)).run.unlock()  # killed before it saves
    assert Run(one.directory).identity.id == identity
    Trainer.resume(LONGER, corpus, Run(one.directory)).train()
