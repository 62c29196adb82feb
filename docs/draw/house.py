"""The house: who imports whom, from the imports themselves.

Modules are drawn in groups. An arrow says that modules of one group import some of another, and
is left out where the way over a third group says it already. `__init__` files only gather what
others offer: their own imports are not drawn, and `from autograd import Tensor` counts as an
import of the engine's core. Deferred imports are not drawn either.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from docs.draw.svg import Drawing, Point, width_of
from docs.imports import PACKAGES, all_imports, modules_in
from docs.source import ROOT

# By package, and within it from the ground up: a group's modules by name. A folder of modules is
# in a group as a whole, where its modules are not named; the package itself is in its first group.
GROUPS: dict[str, dict[str, str]] = {
    "autograd": {
        "tensors, tape, operations": "autograd",
        "reference operations": "autograd.ops numpy_functions",
        "fast loops for the CPU": "autograd.cpu",
        "fast kernels for the GPU": "autograd.cuda",
    },
    "npformer": {
        "files and text": "errors locks files directories reading own_autograd tokenizer "
        "vocabulary sentencepiece_model segmentation",
        "batches": "packed batch",
        "model": "config parameters layers attention embeddings positions parts shortlist "
        "projection encoder decoder kept transformer",
        "translation": "search_settings hypotheses ensemble rules sampling next_tokens "
        "recorded_steps beam beam_search checkpoint shortlist_file model_card model_directory "
        "attention_maps alignment translation described long_lines sentence_translator translator",
        "models of other programs": "npformer.formats",
        "the service": "npformer.service",
    },
    "train": {
        "settings, signals, files": "schedule settings settings_file signals own_files wording "
        "processors machine figures",
        "corpora": "train.corpora",
        "public datasets": "train.datasets",
        "ranks": "train.ranks",
        "a step": "optimizer adam moving_average placing recordings step paper_tokens evaluation",
        "a run's directory": "train.runs",
        "training": "timetable assembly validation guessing average loop trainer",
        "shortlists": "ibm_model1 shortlists",
        "the generated grammar": "train.grammar grammar_recipe",
        "parsing as translation": "train.parsing",
        "the paper's experiments": "train.experiments",
        "the command line": "__main__ train.cli",
    },
}

_WIDTH, _MARGIN, _BETWEEN, _ABOVE = 240, 34, 76, 30
_LINE = 15


def draw() -> str:
    """The figure."""
    groups = grouped()
    drawing = Drawing(
        "The house: who imports whom",
        "; ".join(f"{group}: {', '.join(modules)}" for group, modules in groups.items()),
    )
    boxes: dict[str, _Box] = {}
    for column, package in enumerate(PACKAGES):
        x, y = _MARGIN + column * (_WIDTH + _BETWEEN), 76.0
        drawing.text(x, 34, package, "heading")
        drawing.text(x, 52, _BELOW_HEADINGS[package], "note")
        for title in GROUPS[package]:
            lines = _wrapped(groups[title])
            height = 30 + _LINE * len(lines)
            boxes[title] = _Box(column, x, y, y + height)
            drawing.box(x, y, _WIDTH, height)
            drawing.text(x + 10, y + 18, title, "title")
            for i, line in enumerate(lines):
                drawing.text(x + 10, y + 35 + i * _LINE, line, "code")
            y += height + _ABOVE
    pairs = [(boxes[a], boxes[b]) for a, imported in arrows(groups).items() for b in imported]
    ways = [_way(begin, end, pairs, list(boxes.values())) for begin, end in sorted(pairs)]
    for way in ways:
        drawing.arrow(way)
    right = max(box.left + _WIDTH for box in boxes.values())
    right = max(right, *(x for way in ways for x, _ in way))
    return drawing.svg(right + _MARGIN, max(box.bottom for box in boxes.values()) + _MARGIN)


class _Box(NamedTuple):
    """Where a group is drawn."""

    column: int
    left: float
    top: float
    bottom: float


def _way(begin: _Box, end: _Box, pairs: list[tuple[_Box, _Box]], boxes: list[_Box]) -> list[Point]:
    """The points of an arrow."""
    if begin.column == end.column:
        between = [b for b in boxes if b.column == end.column and end.top < b.top < begin.top]
        if not between:
            middle = begin.left + _WIDTH / 2
            return [(middle, begin.top), (middle, end.bottom)]
        # Around them; on the right of the last column, where no other arrow is.
        last = begin.column == len(PACKAGES) - 1
        before = [a for a, b in pairs if a.column == b.column == begin.column and a < begin]
        lane = 9.0 + 7 * len({a.top for a in before})
        side, lane = (_WIDTH, _WIDTH + lane) if last else (0.0, -lane)
        up, down = (end.top + end.bottom) / 2, begin.top + 18
        way = [(side, down), (lane, down), (lane, up), (side, up)]
        return [(begin.left + x, y) for x, y in way]
    # To the left, where those that leave a box, or come into it, are spread over its side.
    leaving = sorted(b for a, b in pairs if a == begin and b.column < a.column)
    coming = sorted(a for a, b in pairs if b == end and b.column < a.column)
    y = _spread(begin, leaving.index(end), len(leaving))
    to = _spread(end, coming.index(begin), len(coming))
    passed = [b.bottom for b in boxes if end.column < b.column < begin.column]
    points = [(begin.left, y), (end.left + _WIDTH, to)]
    if passed:
        below = max(to, max(passed) + 20)
        points[1:1] = [
            (begin.left - _BETWEEN + 10, below),
            (end.left + _WIDTH + _BETWEEN - 10, below),
        ]
    return points


def _spread(box: _Box, i: int, count: int) -> float:
    return box.top + (box.bottom - box.top) * (i + 1) / (count + 1)


_BELOW_HEADINGS = {
    "autograd": "arrays and gradients",
    "npformer": "the model",
    "train": "everything about training",
}


def grouped() -> dict[str, list[str]]:
    """The modules of each group, by their names within the package.

    LookupError where one has no group, or a group names one that does not exist.
    """
    known, places = modules_in(ROOT), _places()
    missing = sorted(places.keys() - known.keys())
    if missing:
        raise LookupError(f"there is no module {missing[0]}; docs/draw/house.py names it")
    found: dict[str, list[str]] = {title: [] for groups in GROUPS.values() for title in groups}
    for module, file in known.items():
        if file.name != "__init__.py":
            found[_group_of(module, places)].append(module.rpartition(".")[2])
    return found


def arrows(groups: Mapping[str, list[str]]) -> dict[str, set[str]]:
    """Which groups each one imports, without those that follow. LookupError for a circle."""
    known, places = modules_in(ROOT), _places()
    graph: dict[str, set[str]] = {group: set() for group in groups}
    for module, imported, at_top in all_imports(ROOT):
        gathers = known[module].name == "__init__.py"
        if at_top and not gathers and (imported not in PACKAGES or imported in places):
            begin, end = _group_of(module, places), _group_of(imported, places)
            if begin != end:
                graph[begin].add(end)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise LookupError(f"groups of modules go round in a circle: {error.args[1]}") from None
    reached: dict[str, set[str]] = {}
    for group in order:  # those that are imported come first
        beyond = set().union(*(reached[other] for other in graph[group]))
        reached[group] = graph[group] | beyond
        graph[group] -= beyond
    return graph


def _places() -> dict[str, str]:
    """The group of each module, or of a folder of them, that GROUPS names."""
    return {
        name if name.partition(".")[0] == package else f"{package}.{name}": title
        for package, groups in GROUPS.items()
        for title, names in groups.items()
        for name in names.split()
    }


def _group_of(module: str, places: Mapping[str, str]) -> str:
    """Its own group, or that of the innermost folder that has one."""
    name = module
    while name not in places:
        name = name.rpartition(".")[0]
        if not name:
            raise LookupError(f"{module} needs a group in docs/draw/house.py")
    return places[name]


def _wrapped(names: list[str]) -> list[str]:
    """Names in lines that fit into a box."""
    lines = [""]
    for name in names:
        longer = f"{lines[-1]}{name}, "
        if width_of(longer, "code") <= _WIDTH - 10:  # the last space is not seen
            lines[-1] = longer
        else:
            lines.append(f"{name}, ")
    return [line.rstrip() for line in lines[:-1]] + [lines[-1].rstrip(", ")]
