"""Many trials, and a summary with those that failed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.backends.backend_agg  # noqa: F401, here once and not in every process

from tests.damage import trial
from tests.damage.subjects import SUBJECTS, Subject, prepare_files, results
from tests.small_demo import make_small
from train.__main__ import main


@dataclass(frozen=True)
class Outcome:
    """One trial: the damaged file, the damage, and the ending; `fault` is None if accepted."""

    number: int
    subject: str
    file: str
    damage: str
    ending: trial.Ending
    fault: str | None

    @property
    def kind(self) -> str:
        """Which of the accepted outcomes it was."""
        return "refused" if self.ending.status else "gave a result"

    def __str__(self) -> str:
        end = self.fault or (self.ending.last_line if self.ending.status else self.kind)
        return f"{self.number}: {self.subject}, {self.file}: {self.damage}: {end}"


class Campaign:
    """Intact files, and the results that each subject's commands give with them.

    Only the reading of files is tested, so that each trial starts at once: compiled loops are
    disabled, and demonstrations are small.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.intact = folder / "intact"
        self.intact.mkdir()
        self.folder = folder
        make_small()
        self._child("prepare", lambda: prepare_files(self.intact) or 0)
        self.expected = {}
        for subject in SUBJECTS:
            copy = self._copy(f"expected-{subject.name}")
            ending = self._child(f"log-{subject.name}", lambda s=subject, c=copy: _run(s, c))
            self.expected[subject.name] = ending.output, results(subject, copy)

    def _child(self, name: str, commands: Callable[[], int]) -> trial.Ending:
        """Run commands that must succeed, in a separate process."""
        directory = self.folder / name
        directory.mkdir()
        ending = trial.run(commands, directory)
        if ending.fault() or ending.status:
            raise AssertionError(f"{name} failed with intact files:\n{ending.errors}")
        return ending

    def _copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.intact, self.folder / name))

    def run(self, number: int, subjects: Sequence[Subject] = SUBJECTS) -> Outcome:
        """Run trial `number`, whose random choices depend only on the seed and this number."""
        rng = random.Random(f"{self.seed} {number}")
        subject = rng.choice(subjects)
        copy = self._copy(f"trial-{number}")
        try:
            file, damage = subject.choose(copy, rng)
            description = damage(copy / file, rng)
            before = _contents(copy)
            directory = self.folder / f"description-{number}"
            directory.mkdir()
            ending = trial.run(lambda: _run(subject, copy), directory)
            fault = ending.fault() or self._difference(subject, file, damage, copy, before, ending)
            return Outcome(number, subject.name, file, description, ending, fault)
        finally:
            shutil.rmtree(copy)
            shutil.rmtree(self.folder / f"description-{number}", ignore_errors=True)

    def _difference(
        self,
        subject: Subject,
        file: str,
        damage: object,
        copy: Path,
        before: dict[str, str],
        ending: trial.Ending,
    ) -> str | None:
        """How the results or files of a trial differ from what is accepted; None if they do not."""
        if ending.status:
            after = _contents(copy)
            changed = [name for name, content in before.items() if after.get(name) != content]
            return f"refused, but changed {changed[0]}" if changed else None
        if subject.is_free(file, damage):
            return None
        output, files = self.expected[subject.name]
        if (ending.output, results(subject, copy)) != (output, files):
            return "was accepted, but gave another result"
        return None


def _run(subject: Subject, folder: Path) -> int:
    os.chdir(folder)
    return trial.in_turn(main, subject.commands)


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def prepared(seed: int) -> Iterator[Campaign]:
    """A campaign in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="npformer-damage-") as folder:
        yield Campaign(Path(folder), seed)


def summarized(found: Iterable[Outcome]) -> tuple[str, list[Outcome]]:
    """The number of trials with each outcome, as text; and the outcomes that are faults."""
    counts: Counter[str] = Counter()
    faults = []
    for outcome in found:
        counts["bad" if outcome.fault else outcome.kind] += 1
        if outcome.fault:
            faults.append(outcome)
    total = sum(counts.values())
    ways = ", ".join(f"{n} {way}" for way, n in sorted(counts.items()))
    return f"{total - len(faults)} of {total} trials ended well ({ways})", faults
