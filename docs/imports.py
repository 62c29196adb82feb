"""Who imports whom: the imports of the packages' files, parsed, with nothing imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("autograd", "npformer", "train")  # each may import those before it, and itself


class Import(NamedTuple):
    """That one module imports another; `at_top` where that happens when it is itself imported."""

    module: str
    imported: str
    at_top: bool


def modules_in(folder: Path) -> dict[str, Path]:
    """The files of the packages in a folder, by the names of their modules."""
    found = {}
    for package in PACKAGES:
        for file in sorted((folder / package).rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(module: str, file: Path, known: Iterable[str]) -> Iterator[Import]:
    """What a module imports of the packages, a line for each place where it does so."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for name in names_in(node, package, known):
            if name.partition(".")[0] in PACKAGES:
                yield Import(module, name, at_top and isinstance(node, ast.Import | ast.ImportFrom))
        body_at_top = at_top and not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        for field, value in ast.iter_fields(node):
            for_types = field == "body" and isinstance(node, ast.If) and is_type_checking(node.test)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, body_at_top and not for_types)

    return visit(ast.parse(file.read_text(encoding="utf-8")), True)


def names_in(node: ast.AST, package: str, known: Iterable[str]) -> list[str]:
    """The modules that a statement imports, or a call imports by a name that is written out."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        inside = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in known else base for name in inside]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        [name, *_] = node.args
        if isinstance(name, ast.JoinedStr):  # f"autograd.cpu.{module}": at least its package
            name = name.values[0]
        if isinstance(name, ast.Constant):
            return [str(name.value).rstrip(".")]
    return []


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def all_imports(folder: Path) -> list[Import]:
    known = modules_in(folder)
    return [i for module, file in known.items() for i in imports_of(module, file, known)]
