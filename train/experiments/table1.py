"""Table 1, "Why self-attention": operations, sequential operations and paths, time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from npformer.errors import UserError
from train.experiments.compared_layers import (
    LAYERS,
    STACKS,
    Layer,
    Size,
    cost,
    path_length,
)
from train.experiments.experiment import Experiment
from train.experiments.measurements import Measurements
from train.experiments.page import Page
from train.experiments.table1_page import GRID, page

_FEWEST = 3  # points that an exponent and its error are fitted to
_PATH_WIDTH, _PATH_HEADS = 8, 2  # enough to see what depends on what


@dataclass(frozen=True)
class Settings:
    """The sizes of layers. One varies, and the others have the value in the middle of theirs.

    A kernel is the smallest, and a window varies in the longest sentence.
    """

    lengths: Annotated[tuple[int, ...], "n, positions of a sentence"]
    widths: Annotated[tuple[int, ...], "d, the width of a layer"]
    kernels: Annotated[tuple[int, ...], "k, the kernels of convolutions"]
    windows: Annotated[tuple[int, ...], "r, the windows of restricted self-attention"]
    path_lengths: Annotated[tuple[int, ...], "n of which paths are measured"]
    path_window: Annotated[int, "r of which paths are measured"]
    path_kernel: Annotated[int, "k of which paths are measured"]
    heads: Annotated[int, "of attention"]
    timed: Annotated[float, "seconds of passes, of which the fastest counts"]
    seed: Annotated[int, "of inputs and parameters"]


def measure(settings: Settings, found: Measurements) -> Page:
    """Measure every layer at every size."""
    _check(settings)
    middle = Size(
        n=_middle(settings.lengths),
        d=_middle(settings.widths),
        k=min(settings.kernels),
        r=_middle(settings.windows),
        heads=settings.heads,
    )
    in_sweep = {
        "n": [middle._replace(n=n) for n in settings.lengths],
        "d": [middle._replace(d=d) for d in settings.widths],
        "k": [middle._replace(k=k) for k in settings.kernels],
        "r": [middle._replace(n=max(settings.lengths), r=r) for r in settings.windows],
    }
    in_grid = [middle._replace(n=n, d=d) for d in settings.widths for n in settings.lengths]
    sizes = {
        (layer, variable): in_sweep[variable] for layer in LAYERS for variable in layer.variables
    } | {(layer, "grid"): in_grid for layer in GRID}
    measured = found.all_of(
        {
            _name(layer, size): partial(cost, layer, size, settings.timed, settings.seed)
            for (layer, _), of_layer in sizes.items()
            for size in of_layer
        }
    )
    costs = {
        (layer.name, variable): [(size, measured[_name(layer, size)]) for size in of_layer]
        for (layer, variable), of_layer in sizes.items()
    }
    return page(costs, middle, found.of("paths", lambda: _paths(settings)))


def _middle(values: tuple[int, ...]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def _name(layer: Layer, size: Size) -> str:
    """With the sizes that the layer depends on."""
    return ", ".join([layer.name, *(f"{v} = {getattr(size, v)}" for v in layer.variables)])


def _paths(settings: Settings) -> dict[str, Any]:
    """The longest path of each kind of layer, by the number of positions."""
    size = Size(0, _PATH_WIDTH, settings.path_kernel, settings.path_window, _PATH_HEADS)
    lengths = sorted(settings.path_lengths)
    paths = {
        name: [
            path_length(stack(s), s, settings.seed) for s in (size._replace(n=n) for n in lengths)
        ]
        for name, stack in STACKS.items()
    }
    return {"n": lengths, "k": size.k, "r": size.r, "paths": paths}


def _check(settings: Settings) -> None:
    for name in ("lengths", "widths", "kernels", "windows", "path_lengths"):
        values = getattr(settings, name)
        # A single position has no path to another, and a recurrence of it no step.
        least = 2 if name in ("lengths", "path_lengths") else 1
        if len(set(values)) < _FEWEST or min(values) < least:
            raise UserError(
                f"--{name.replace('_', '-')} must be {_FEWEST} different numbers or more, {least} "
                f"at least; it is {' '.join(map(str, values))}"
            )
    if any(d % settings.heads for d in settings.widths) or settings.heads < 1:
        raise UserError(f"--widths must be divisible by --heads, {settings.heads}")
    if settings.path_kernel < 3 or settings.path_kernel % 2 == 0:
        raise UserError("--path-kernel must be odd, and 3 or more")
    if settings.path_window < 3:
        raise UserError("--path-window must be 3 or more, to lead in both directions")


EXPERIMENT = Experiment(
    "table1",
    {
        "toy": Settings(
            (16, 32, 64), (8, 16, 32), (3, 5, 9), (4, 8, 16), (4, 8, 16), 4, 3, 2, 0.0, 0
        ),
        "small": Settings(
            (64, 128, 256, 512, 1024, 2048),
            (64, 128, 256, 512),
            (3, 5, 9, 17, 33),
            (8, 16, 32, 64, 128),
            (8, 16, 32, 64, 128),
            *(8, 3, 4, 0.5, 0),
        ),
        "long": Settings(
            (64, 128, 256, 512, 1024, 2048, 4096),
            (64, 128, 256, 512, 1024),
            (3, 5, 9, 17, 33),
            (8, 16, 32, 64, 128, 256),
            (8, 16, 32, 64, 128, 256),
            *(8, 3, 8, 2.0, 0),
        ),
    },
    measure,
)
