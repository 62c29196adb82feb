"""Imports point one way, `autograd` <- `npformer` <- `train`, and go round in no circle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from docs.imports import PACKAGES, Import, all_imports

ROOT = Path(__file__).parents[1]

# Imports that would close a circle at the top of a module. They are deferred: within a function,
# by name, or for types alone. Each has its reason, and a new one must give its own.
DEFERRED = {
    ("autograd.tensor", "autograd.ops"): "methods of Tensors are operations, which take Tensors",
    ("autograd.tensor", "autograd.numpy_functions"): "NumPy's functions are those operations",
    ("autograd.tensor", "autograd.buffer"): "a Parameter says which buffer holds it",
    ("autograd.backend", "autograd.cuda.opening"): "CuPy is opened when it is first asked for",
    ("autograd.backend", "autograd.cpu"): "loops are imported when something is recorded",
    ("autograd.cuda.device", "autograd.cuda.gpu"): "a GPU is needed when a kernel first runs",
}


def pointing_back(imports: Iterable[Import]) -> list[Import]:
    """Those of a package by one that comes before it."""

    def rank(module: str) -> int:
        return PACKAGES.index(module.partition(".")[0])

    return [i for i in imports if rank(i.imported) > rank(i.module)]


def needed(imports: Iterable[Import]) -> dict[str, set[str]]:
    """What each module needs when it is imported.

    A package is imported before what is in it. So whoever imports a module needs its packages,
    too, except for those that it lies in itself, whose import has begun by then.
    """
    graph: dict[str, set[str]] = {}
    for module, imported, at_top in imports:
        if at_top:
            parts = imported.split(".")
            needs = {".".join(parts[:n]) for n in range(1, len(parts) + 1)} - {module}
            around = {p for p in needs if module.startswith(f"{p}.") and p != imported}
            graph.setdefault(module, set()).update(needs - around)
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each needs the next, and the last the first; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def closing_a_circle(imports: list[Import]) -> set[tuple[str, str]]:
    """Deferred imports, of modules that need the one that imports them."""
    graph = needed(imports)

    def reaches(begin: str, end: str) -> bool:
        seen, waiting = set(), [begin]
        while waiting:
            module = waiting.pop()
            if module == end:
                return True
            if module not in seen:
                seen.add(module)
                waiting.extend(graph.get(module, ()))
        return False

    return {
        (i.module, i.imported)
        for i in imports
        if not i.at_top and i.module != i.imported and reaches(i.imported, i.module)
    }


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return all_imports(ROOT)


def test_imports_point_one_way(imports):
    assert {i.module.partition(".")[0] for i in imports} == set(PACKAGES)
    assert pointing_back(imports) == []


def test_no_module_needs_itself(imports):
    assert circle(needed(imports)) == []


def test_a_deferred_import_has_a_reason(imports):
    assert closing_a_circle(imports) == set(DEFERRED)


# The checks themselves.


def written(folder: Path, files: Mapping[str, str]) -> list[Import]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return all_imports(folder)


@pytest.mark.parametrize(
    "text",
    [
        "import train.run",
        "from train import run",
        "from train.run import Run as R",
        "try:\n    import train\nexcept ImportError:\n    pass",
        "def f():\n    class A:\n        from train import run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import train.run",
        "import importlib\nf = lambda: importlib.import_module('train.run')",
        "from importlib import import_module\nimport_module(f'train.{name}')",
    ],
)
def test_an_import_of_what_comes_later_is_found(tmp_path, text):
    found = written(tmp_path, {"train/run.py": "", "npformer/model.py": text})
    assert [i.module for i in pointing_back(found)] == ["npformer.model"]
    back = {"train/run.py": text.replace("train", "npformer"), "npformer/model.py": ""}
    assert pointing_back(written(tmp_path, back)) == []


@pytest.mark.parametrize(
    "texts",
    [
        ("import autograd.b", "import autograd.a"),
        ("from autograd import b", "from autograd.a import x"),
        ("from . import b", "from ..a import x"),
        ("if flag:\n    from autograd import b", "class A:\n    import autograd.a"),
        ("import autograd.b.inner", "import autograd.a"),
        ("from autograd import x", ""),
    ],
)
def test_a_circle_is_found(tmp_path, texts):
    files = {
        "autograd/__init__.py": "from autograd import a",
        "autograd/a.py": texts[0],
        "autograd/b/__init__.py": texts[1],
        "autograd/b/inner.py": "",
    }
    assert "autograd.a" in circle(needed(written(tmp_path, files)))


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import autograd.a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from autograd import a",
        "import importlib\nimportlib.import_module('autograd.a')",
    ],
)
def test_a_circle_through_a_deferred_import_is_found_as_such(tmp_path, text):
    files = {"autograd/a.py": "from autograd import b", "autograd/b.py": text}
    found = written(tmp_path, files)
    assert circle(needed(found)) == []
    assert closing_a_circle(found) == {("autograd.b", "autograd.a")}


def test_what_lies_in_a_package_may_be_imported_by_it_and_by_its_neighbours(tmp_path):
    files = {
        "autograd/__init__.py": "from autograd import a, b",
        "autograd/a.py": "",
        "autograd/b.py": "from autograd.a import x\nfrom autograd import a",
    }
    assert circle(needed(written(tmp_path, files))) == []
