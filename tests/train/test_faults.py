"""Full disks, files that cannot be written and changed bits: a one-line error, and no loss."""

import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from npformer.checkpoint import load_arrays
from tests.train.runs import assert_same_run, refusal, settings, start
from train.average import average_checkpoints
from train.corpora.corpus import Corpus
from train.runs.run import Run
from train.trainer import Trainer

SHORT = settings(max_steps=4, checkpoint_every=2, keep_checkpoints=2)
LONGER = settings(max_steps=9, checkpoint_every=2, keep_checkpoints=2)


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, and one of nine."""
    folder = tmp_path_factory.mktemp("made")
    start(SHORT, corpus, folder / "short")
    start(LONGER, corpus, folder / "longer")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the short run, for this test only."""
    shutil.copytree(made / "short", tmp_path / "run")
    return Run(tmp_path / "run")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Simulates a full disk: only the first bytes of a file can be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def size_of(path: Callable[[Run], Path]) -> Callable[[Run], int]:
    return lambda run: path(run).stat().st_size


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        (lambda run: size_of(lambda run: run.checkpoints.paths()[0])(run) - 1, "00000006.safetens"),
        # Its header has times, which are written with more digits or fewer.
        (lambda run: size_of(lambda run: run.state)(run) - 1000, "state.safetensors"),
    ],
)
def test_a_full_disk_during_a_save_costs_only_the_steps_since_the_last_save(
    corpus: Corpus, made: Path, run: Run, limit: Callable[[Run], int], what: str
) -> None:
    size, kept = limit(run), set(run.checkpoints.paths())
    trainer = Trainer.resume(LONGER, corpus, run)
    with no_file_larger_than(size):
        message = refusal(trainer.train)
    assert what in message
    assert "File too large; the steps since step 4 are lost: once it can be written," in message
    assert message.endswith(" --resume continues from there")
    assert kept <= set(
        run.checkpoints.paths()
    )  # the old ones are removed after the new one is safe
    assert not list(run.directory.rglob("*.tmp"))
    Trainer.resume(LONGER, corpus, run).train()
    assert_same_run(run.directory, made / "longer")


@pytest.mark.parametrize("bytes_of_the_line", [0, 1, 50])
def test_a_full_disk_while_logging_costs_only_the_steps_since_the_last_save(
    corpus: Corpus, made: Path, run: Run, bytes_of_the_line: int
) -> None:
    trainer = Trainer.resume(LONGER, corpus, run)
    with no_file_larger_than(run.metrics.stat().st_size + bytes_of_the_line):
        message = refusal(trainer.train)
    assert f"cannot write {run.metrics}: File too large; the steps since step 4 are lost" in message
    Trainer.resume(LONGER, corpus, run).train()
    assert_same_run(run.directory, made / "longer")


def test_a_full_disk_while_resuming_loses_nothing(corpus: Corpus, made: Path, run: Run) -> None:
    for size in (0, 100, run.metrics.stat().st_size - 1, run.state.stat().st_size // 4):
        with no_file_larger_than(size):
            assert "File too large" in refusal(lambda: Trainer.resume(LONGER, corpus, run).train())
    Trainer.resume(LONGER, corpus, run).train()
    assert_same_run(run.directory, made / "longer")


def test_a_run_can_be_started_again_after_a_full_disk(
    corpus: Corpus, made: Path, tmp_path: Path
) -> None:
    for size in (0, 100, 3000, 20_000):
        out = Run(tmp_path / f"run{size}")
        with no_file_larger_than(size):
            message = refusal(lambda out=out: Trainer.start(LONGER, corpus, out))
        assert "cannot write " in message
        assert "lost" not in message
        Trainer.start(LONGER, corpus, out).train()
        assert_same_run(out.directory, made / "longer")


def test_a_directory_that_cannot_be_written_is_named_before_anything_is_read(
    corpus: Corpus, run: Run
) -> None:
    (run.state.parent / "lock").unlink()
    (run.state.parent / "lock").mkdir()
    message = refusal(lambda: Trainer.resume(LONGER, corpus, run))
    assert f"cannot write {run.state.parent / 'lock'}: Is a directory" in message


def flipped(path: Path, bit: int) -> bytes:
    """Change a bit of a file; returns its content before."""
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    return content


def test_every_changed_bit_of_a_state_is_detected(corpus: Corpus, run: Run) -> None:
    chance, size = random.Random(5), run.state.stat().st_size
    header = 8 * (8 + int.from_bytes(run.state.read_bytes()[:8], "little"))
    bits = [chance.randrange(8 * size) for _ in range(40)]
    bits += [chance.randrange(header) for _ in range(80)]
    for bit in bits:
        whole = flipped(run.state, bit)
        before = {path: path.read_bytes() for path in run.directory.rglob("*.*")}
        message = refusal(lambda: Trainer.resume(LONGER, corpus, run))
        assert "state.safetensors" in message, bit
        assert {path: path.read_bytes() for path in run.directory.rglob("*.*")} == before
        run.state.write_bytes(whole)
    Trainer.resume(LONGER, corpus, run)


def test_every_changed_bit_of_a_checkpoint_is_detected(run: Run) -> None:
    chance, path = random.Random(6), run.checkpoints.paths()[0]
    for _ in range(60):
        bit = chance.randrange(8 * path.stat().st_size)
        whole = flipped(path, bit)
        assert path.name in refusal(lambda: average_checkpoints(run.directory, 2)), bit
        path.write_bytes(whole)
    average_checkpoints(run.directory, 2)


def test_the_error_for_a_damaged_state_says_what_to_do(corpus: Corpus, run: Run) -> None:
    flipped(run.state, 8 * (run.state.stat().st_size - 9))
    message = refusal(lambda: Trainer.resume(LONGER, corpus, run))
    assert "has been altered since it was written: its checksum is wrong" in message
    assert "resume from a copy of it, or begin another run with --init-from" in message
    # The model of the last checkpoint is there.
    tuned = settings(init_from=str(run.directory))
    Trainer.start(tuned, corpus, Run(run.directory.parent / "tuned"))
    load_arrays(run.checkpoints.paths()[-1])
