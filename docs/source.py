"""Where a symbol is defined, and its text. Files are parsed, and nothing is imported.

`autograd.ops.softmax` is found wherever it is defined, for imports are followed, and
`autograd.ops.softmax.vjp` is the function of that name inside it.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Source:
    """A definition: `path` from the repository's root, and its node in that file."""

    path: Path
    node: ast.stmt

    @property
    def first(self) -> int:
        """The number of its first line, decorators included, counted from 1."""
        decorators = getattr(self.node, "decorator_list", [])
        return min([self.node.lineno, *(d.lineno for d in decorators)])

    @property
    def last(self) -> int:
        return self.node.end_lineno or self.node.lineno

    @property
    def link(self) -> str:
        """The address, from a page in docs/, of its lines."""
        lines = f"L{self.first}-L{self.last}" if self.first < self.last else f"L{self.first}"
        return f"../{self.path.as_posix()}#{lines}"

    def text(self, docstring: bool = True, signature: bool = True) -> str:
        """Its lines, from the left margin, with or without its docstring and its signature."""
        lines = _lines(self.path)[: self.last]
        first = self.first
        if isinstance(self.node, ast.FunctionDef | ast.ClassDef):
            body = self.node.body
            has_docstring = ast.get_docstring(self.node) is not None
            if has_docstring and not docstring:
                end = body[0].end_lineno or body[0].lineno
                while end < len(lines) and not lines[end].strip():  # the blank lines behind it
                    end += 1
                lines[body[0].lineno - 1 : end] = []
            if not signature:
                first = body[0].lineno
        return textwrap.dedent("\n".join(lines[first - 1 :]))


def find(symbol: str) -> Source:
    """The definition of a dotted name. LookupError, in a sentence, where there is none."""
    path, names = _module(symbol)
    inside: ast.AST = _tree(path)
    for i, name in enumerate(names):
        for node in getattr(inside, "body", []):
            if name in _defines(node):
                break
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return find(".".join([node.module or "", alias.name, *names[i + 1 :]]))
        else:
            raise LookupError(f"{symbol}: there is no {name} in {path.as_posix()}")
        inside = node
    if not isinstance(inside, ast.stmt):
        raise LookupError(f"{symbol} is a module, and not a symbol in one")
    return Source(path, inside)


def exported(module: str) -> list[str]:
    """The symbols that a module imports from others, by where they are defined."""
    path, _ = _module(module)
    nodes = [node for node in _tree(path).body if isinstance(node, ast.ImportFrom)]
    return [f"{module}.{alias.asname or alias.name}" for node in nodes for alias in node.names]


def _module(symbol: str) -> tuple[Path, list[str]]:
    """The file of the module that a dotted name begins with, and the names that are left."""
    path, names = Path(), symbol.split(".")
    while names:
        inner = path / names[0]
        if (ROOT / inner).is_dir():
            path = inner
        elif (ROOT / inner).with_suffix(".py").is_file():
            return inner.with_suffix(".py"), names[1:]
        else:
            break
        names = names[1:]
    if not (ROOT / path / "__init__.py").is_file():
        raise LookupError(f"{symbol}: there is no module of that name")
    return path / "__init__.py", names


def _defines(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse("\n".join(_lines(path)))


def _lines(path: Path) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").split("\n")
