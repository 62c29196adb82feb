"""Commands that several ranks run together, one after the other: mpiexec -n 2 python -m THIS FOLDER

FOLDER holds a corpus. What each rank has said, and its exit statuses, are left there as JSON.

mpiexec -n 2 python -m THIS FOLDER FAULT RANK trains, and has something happen to a rank at step 5.

mpiexec -n 4 python -m THIS FOLDER HIDDEN trains across hosts, of which only the first sees HIDDEN.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from npformer.errors import UnwritableError
from tests.integration.command_line import npformer
from train import loop
from train.__main__ import main
from train.ranks import alike, same_run
from train.ranks.world import world
from train.runs.run import Run

TINY = [
    *("--model.preset", "tiny", "--model.layers", "1", "--model.d_model", "8"),
    *("--model.d_ff", "8", "--model.heads", "2", "--batch_tokens", "150", "--warmup", "4"),
    *("--log_every", "1", "--validate_every", "4", "--checkpoint_every", "5", "--seed", "3"),
]

GENTLY = ["--max_steps", "9", "--rate_factor", "0.1"]  # so that rounding does not grow


def training(folder: Path, out: str, *words: object) -> list[str]:
    data = ["train", "--data", str(folder / "corpus"), "--out", str(folder / out), *TINY]
    return [*data, *map(str, words)]


def at_step(number: int, happens: Callable[[], object]) -> Callable[..., Any]:
    """`train_step`, after which something happens at a step."""
    take, taken = loop.train_step, 0

    def step(*given: Any) -> Any:
        nonlocal taken
        result = take(*given)
        taken += 1
        if taken == number:
            happens()
        return result

    return step


def signalled(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def scenarios(folder: Path) -> int:
    """Everything that ends as agreed, so that one job can do it all."""
    ranks = world()
    is_second = ranks.rank == 1
    said: dict[str, tuple[int, str]] = {}

    def run(name: str, *words: str) -> None:
        done = npformer(*words)
        said[name] = done.status, done.stderr

    run("unknown setting", *training(folder, "none", "--max_stepps", 1))
    run("wrong value", *training(folder, "none", "--batch_tokens", -1))
    run("no corpus", "train", "--data", str(folder / "nowhere"), "--out", str(folder / "none"))
    words = training(folder, "none")
    if is_second:
        words[2] = str(folder / "nowhere")
    run("no corpus for one", *words)
    run("other setting", *training(folder, "none", "--batch_tokens", 150 + 50 * ranks.rank))
    with pytest.MonkeyPatch.context() as patch:
        if is_second:
            patch.setattr(alike.platform, "python_version", lambda: "3.99.0")
        run("other Python", *training(folder, "none"))
    run("status", "status", str(folder))
    model = ["--model", str(folder / "nowhere")]
    run("no beam", "translate", *model, "--beam", "0")
    file = str(folder / "valid.0")
    text = ["--source", file]
    evaluating = ["evaluate", *model, *text, "--reference", file]
    run("own text", *evaluating, "--output", file)
    run("other command", *(["translate", *model, *text] if is_second else evaluating))
    own = str(folder / f"of-{ranks.rank}")  # as in a file system of each host
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(same_run, "_PATIENCE", 0.1)
        run("own directory", *training(folder, "none", "--out", own))
    run("train", *training(folder, "whole", "--max_steps", 9))
    run("again", *training(folder, "whole", "--max_steps", 9))
    with pytest.MonkeyPatch.context() as patch:
        if is_second:
            patch.setattr(loop, "train_step", at_step(3, signalled(signal.SIGTERM)))
        run("signal", *training(folder, "halves", "--max_steps", 9))
    run("resume", *training(folder, "halves", "--resume", "--max_steps", 9))
    with pytest.MonkeyPatch.context() as patch:
        save = Run.save

        def full(run: Run, *given: Any, **options: Any) -> None:
            if given[0].step:
                raise UnwritableError("cannot write the state: No space left on device")
            save(run, *given, **options)

        patch.setattr(Run, "save", full)
        run("full disk", *training(folder, "full", "--max_steps", 9))
    whole = ["translate", "--model", str(folder / "whole"), *text]
    run("other beam", *whole, "--beam", str(2 + ranks.rank))
    untrained = ["translate", "--model", str(folder / "full"), *text]
    run("other model", *(untrained if is_second else whole))
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(said))
    return 0


def across_hosts(folder: Path, hidden: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(same_run, "_PATIENCE", 0.1)
        refused = main(training(folder, "none", "--out", f"{hidden}/run"))
    assert refused == 2
    return main(training(folder, "hosts", *GENTLY))


def _bug() -> None:
    raise ValueError("a bug")


def _out_of_memory() -> None:
    raise MemoryError("cannot allocate 8 GB")


FAULTS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "bug": _bug,
    "memory": _out_of_memory,
    "left": lambda: os._exit(7),
}


def fault(folder: Path, name: str, rank: str) -> int:
    if world().rank == int(rank):
        loop.train_step = at_step(5, FAULTS[name])
    return main(training(folder, name, "--max_steps", 1_000_000))


def _main(folder: Path, *words: str) -> int:
    if len(words) == 2:
        return fault(folder, *words)
    return across_hosts(folder, *words) if words else scenarios(folder)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), *sys.argv[2:]))
