"""Runs that are killed at random and resumed end as the run that was never killed, bit by bit.

    python -m tests.kill_campaign -n 200

Each trial drives the command line, in processes forked from this one. They are killed after a
random time, right before a change of a file, and in the middle of writing one; some are stopped by
SIGTERM in between. Then what is left is resumed, and in the end the parameters, moments, metrics
and checkpoints have to be the same.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from autograd import references
from tests.kills import kills_itself_at
from tests.train.runs import assert_same_run
from tests.train.small_corpus import make_corpus
from train.__main__ import main as command_line
from train.runs.metrics import metrics_path
from train.runs.samples import samples_path

SETTINGS = [
    "--model.preset=tiny",
    "--model.layers=1",
    "--model.d_model=16",
    "--model.d_ff=16",
    "--model.heads=2",
    "--batch-tokens=150",
    "--warmup=4",
    "--max-steps=14",
    "--log-every=3",
    "--validate-every=4",
    "--checkpoint-every=4",
    "--keep-checkpoints=2",
]
VARIANTS: list[list[str]] = [
    [],
    ["--accumulate=2", "--log-every=5"],
    ["--checkpoint-every=2", "--bleu-every=8", "--clip-norm=0.5", "--schedule=cosine"],
    [
        *("--ema=0.9", "--best-by=loss", "--samples=2", "--keep-every=8", "--validate-every=3"),
        *("--schedule=constant", "--peak-rate=1"),  # so high that the last step is not the best
    ],
    ["--sampling=0.2"],
]
MOST_KILLS = 4


def early(most: int, chance: random.Random) -> int:
    """A number from 1 to `most`, rather a small one, so that many kills find a run still going."""
    return 1 + int(most * chance.random() ** 2)


class Ended(NamedTuple):
    """How a trial ended: how its processes were killed, and what went wrong."""

    kills: Counter[str]
    fault: str


class Campaign:
    """Trials in a folder of their own, against runs that were never killed."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        self.data = make_corpus(folder, keep_text=True).directory
        self.whole, self.seconds = [], 0.0
        for number, variant in enumerate(VARIANTS):
            out = folder / f"whole{number}"
            started = time.monotonic()
            child = self._started(out, variant)
            _, status = os.waitpid(child, 0)
            self.seconds = max(self.seconds, time.monotonic() - started)
            if status:
                raise RuntimeError(self._said(out))
            self.whole.append(out)

    def trial(self, number: int) -> Ended:
        """One run that is killed up to MOST_KILLS times, resumed to its end, and compared."""
        chance = random.Random(f"{self.seed} {number}")
        variant = number % len(VARIANTS)
        out, kills = self.folder / f"trial{number}", Counter[str]()
        kinds: dict[str, Callable[[Path, list[str], random.Random], bool]] = {
            "by the clock": self._killed_by_the_clock,
            "before a change of a file": self._killed_before_a_change,
            "in the middle of a write": self._killed_in_a_write,
            "by SIGTERM": self._terminated,
        }
        for _ in range(chance.randint(1, MOST_KILLS)):
            kind = chance.choice(list(kinds))
            kills[kind] += kinds[kind](out, VARIANTS[variant], chance)
        _, status = os.waitpid(self._started(out, VARIANTS[variant]), 0)
        fault = f"status {status}: {self._said(out)}" if status else ""
        if not fault:
            try:
                assert_same_run(out, self.whole[variant])
                assert not list(out.rglob("*.tmp")), "something half written is left"
            except AssertionError as error:
                fault = str(error) or traceback.format_exc()
        if not fault:
            shutil.rmtree(out)
        return Ended(kills, fault)

    def _words(self, out: Path, variant: list[str]) -> list[str]:
        words = ["train", "--data", str(self.data), "--out", str(out)]
        if (out / "train.yaml").is_file():
            return [*words, "--resume"]
        return [*words, *SETTINGS, *variant]

    def _run(self, out: Path, variant: list[str]) -> None:
        """In a child: the command, which says what it has to say in a file."""
        said = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(said, descriptor)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115, to the end of the process
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        with references():  # compiled loops cannot be forked
            status = command_line(self._words(out, variant))
        if status:
            raise RuntimeError(f"the command ended with status {status}")

    def _started(self, out: Path, variant: list[str]) -> int:
        """The process id of a child that runs the command."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self._run(out, variant)
                status = 0
            finally:
                os._exit(status)
        return child

    def _said(self, out: Path) -> str:
        return out.with_suffix(".log").read_text(errors="replace").strip()

    def _signalled(self, out: Path, variant: list[str], chance: random.Random, kind: int) -> bool:
        child = self._started(out, variant)
        time.sleep(chance.uniform(0, self.seconds))
        os.kill(child, kind)
        _, status = os.waitpid(child, 0)
        return status != 0 or "stopped at step" in self._said(out)

    def _killed_by_the_clock(self, out: Path, variant: list[str], chance: random.Random) -> bool:
        return self._signalled(out, variant, chance, signal.SIGKILL)

    def _terminated(self, out: Path, variant: list[str], chance: random.Random) -> bool:
        return self._signalled(out, variant, chance, signal.SIGTERM)

    def _killed_before_a_change(self, out: Path, variant: list[str], chance: random.Random) -> bool:
        return kills_itself_at(early(80, chance), lambda: self._run(out, variant))

    def _killed_in_a_write(self, out: Path, variant: list[str], chance: random.Random) -> bool:
        """Killed when some of a new file's bytes have come to the disk, and not the others.

        Of files that grow, lines are in them that were written long before.
        """
        number, share = early(40, chance), chance.random()
        growing = [metrics_path(out), samples_path(out)]

        def run() -> None:
            left, sync = number, os.fsync

            def cut_short(descriptor: int) -> None:
                nonlocal left
                found = os.fstat(descriptor)
                is_new = stat.S_ISREG(found.st_mode) and not any(
                    path.exists() and os.path.samestat(found, path.stat()) for path in growing
                )
                left -= is_new
                if is_new and left == 0:
                    os.truncate(descriptor, int(share * found.st_size))
                    os.kill(os.getpid(), signal.SIGKILL)
                sync(descriptor)

            os.fsync = cut_short
            self._run(out, variant)

        return kills_itself_at(1 << 30, run)


def account(ended: list[Ended], seconds: float, seed: int) -> str:
    """The result of a campaign, in a line."""
    kills = sum((one.kills for one in ended), Counter[str]())
    how = ", ".join(f"{count} {kind}" for kind, count in sorted(kills.items()))
    faults = sum(bool(one.fault) for one in ended)
    same = f"{faults} ended differently" if faults else "all ended with the same bits"
    return (
        f"{len(ended)} runs were killed or stopped {kills.total()} times ({how}) and resumed: "
        f"{same}, in {seconds:.0f} s (seed {seed})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill_campaign", description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="how many runs")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--only", type=int, nargs="+", help="these trials alone")
    options = parser.parse_args()
    logging.getLogger("npformer").setLevel(logging.ERROR)  # the corpus is what it is
    started, ended = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), options.seed)
        for number in options.only or range(options.n):
            ended.append(campaign.trial(number))
            if ended[-1].fault:
                print(f"trial {number}: {ended[-1].fault}", flush=True)
    print(account(ended, time.monotonic() - started, options.seed))
    return any(one.fault for one in ended)


if __name__ == "__main__":
    sys.exit(main())
