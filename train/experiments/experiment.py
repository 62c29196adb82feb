"""An experiment: its settings at several scales, and how it is measured."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from npformer.errors import UserError
from npformer.files import atomic_write
from train.experiments.measurements import Measurements, Tell, measurements
from train.experiments.page import Page
from train.figures import new_figure
from train.wording import counted, duration

S = TypeVar("S")


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """An experiment of the paper.

    Its settings are a frozen dataclass without defaults, whose fields are Annotated with what
    --help says: int, float, str, bool or Path, a tuple of any number of one of these, or None.

    Attributes:
        name: of the command, and of its files: "table1"
        scales: settings by the name of a scale; "small" ends within 15 minutes on two cores
        measure: measures each part once, and returns the page
    """

    name: str
    scales: Mapping[str, S]
    measure: Callable[[S, Measurements], Page]


def run(
    experiment: Experiment[S], settings: S, out: Path, tell: Tell, command: Sequence[str]
) -> str:
    """Measure what is not in `out` yet, and write NAME.md, NAME.json and pictures there.

    command: what a user types to measure it again. Returns the page in Markdown. Raises UserError
    if `out` was begun with other settings or holds something else, or matplotlib is missing.
    """
    new_figure((1, 1))  # without matplotlib, an error before hours of work
    about = {"experiment": experiment.name, **asdict(settings)}  # type: ignore[call-overload]
    for key, value in about.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{key} must be a finite number; it is {value}")
    about = {key: str(v) if isinstance(v, Path) else v for key, v in about.items()}
    with measurements(out, about, tell) as found:
        page = experiment.measure(settings, found)
        page.draw(out)
        text = page.markdown(_made(command, found))
        result = {
            "command": list(command),
            "settings": about,
            "seconds": round(found.seconds, 1),
            "machines": found.machines,
            "measured": found.values(),
        }
        for ending, content in (("json", json.dumps(result, indent=1) + "\n"), ("md", text)):
            with atomic_write(out / f"{experiment.name}.{ending}") as file:
                file.write(content.encode())
    return text


def _made(command: Sequence[str], found: Measurements) -> str:
    machines = "; ".join(map(_described, found.machines))
    return f"`{shlex.join(command)}`: {duration(found.seconds)} on {machines}."


def _described(machine: Mapping[str, Any]) -> str:
    """A machine in a few words: AMD EPYC, AVX-512, 2 cores (python 3.11.2, numpy 2.3.5)."""
    vectors = [machine["vectors"]] if "vectors" in machine else []
    parts = [machine["cpu"], *vectors, counted(machine["cores"], "core"), *machine.get("gpus", [])]
    versions = [
        f"{name} {version}"
        for name, version in machine["versions"].items()
        if name.startswith(_COMPUTES)
    ]
    return f"{', '.join(parts)} ({', '.join(versions)})"


_COMPUTES = ("python", "numpy", "numba", "cupy")  # the other packages are in the JSON
