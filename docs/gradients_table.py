"""All operations on one screen: value and gradient, in the operations' own lines.

Shortened so that a row can be read: `array_module(x)` is written `xp`, names for an attribute
(`shape = x.shape`) are replaced by it, and branches (`if ...:`) for special cases are left out.
"""

from __future__ import annotations

import ast
import copy
import re

from docs.source import Source, exported, find


def gradients_table(package: str, sections: dict[str, str]) -> str:
    """The table in Markdown, of all operations that a package exports.

    An operation in `sections` gets a link to that section of the page in place of its gradient.
    """
    operations = {
        symbol.rpartition(".")[2]: source
        for symbol in exported(package)
        if _is_operation(source := find(symbol))
    }
    unknown = sections.keys() - operations.keys()
    if unknown:
        raise LookupError(f"{package} has no operation {', '.join(sorted(unknown))}")
    in_order = sorted(operations, key=lambda n: (n in sections, _place(operations[n])))
    lines = ["", "| operation | value | gradient |", "|---|---|---|"]
    helpers: dict[str, str] = {}
    for name in in_order:
        source = operations[name]
        if name in sections:
            value = _first_sentence(source.node).split(" (section")[0].rstrip(".")
            gradient = f"[derived above](#{sections[name]})"
        else:
            value_code, gradient_code = _Row(source.node).cells()
            value, gradient = f"`{value_code}`", f"`{gradient_code}`"
            helpers.update(_helpers(name, source, f"{value_code}; {gradient_code}"))
        cells = (cell.replace("|", "\\|") for cell in (value, gradient))
        lines.append(f"| [`{name}`]({source.link}) | {' | '.join(cells)} |")
    lines += ["", "| helper | what it gives |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in helpers.items()]
    return "\n".join(lines)


def _is_operation(source: Source) -> bool:
    decorators = getattr(source.node, "decorator_list", [])
    names = [d.func if isinstance(d, ast.Call) else d for d in decorators]
    return any(isinstance(n, ast.Name) and n.id == "op" for n in names)


def _place(source: Source) -> tuple[str, int]:
    return source.path.as_posix(), source.first


def _first_sentence(node: ast.stmt) -> str:
    assert isinstance(node, ast.FunctionDef)
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return text.split(". ")[0]


def _helpers(operation: str, source: Source, code: str) -> dict[str, str]:
    """The functions of its own file that an operation calls, and what their docstrings say."""
    module = ".".join(source.path.with_suffix("").parts)
    found = {}
    for called in re.findall(r"(?<![.\w])\w+(?=\()", code):
        for inside in (module, f"{module}.{operation}"):
            try:
                helper = find(f"{inside}.{called}")
            except LookupError:
                continue
            found[f"[`{called}`]({helper.link})"] = _first_sentence(helper.node)
    return found


class _Row:
    """An operation's lines, sorted into those that make its value and those of its gradient."""

    def __init__(self, operation: ast.stmt) -> None:
        assert isinstance(operation, ast.FunctionDef)
        self.names: dict[str, ast.expr] = {}
        self.statements = self._simplified(operation.body)
        self.functions = {n.name: n for n in operation.body if isinstance(n, ast.FunctionDef)}
        returned = _returned(operation)
        if not isinstance(returned, ast.Tuple) or len(returned.elts) != 2:
            raise LookupError(f"{operation.name} does not end in `return value, vjp`")
        self.value, self.vjp = returned.elts

    def cells(self) -> tuple[str, str]:
        """Value and gradient, each on one line; what both need stands with the value."""
        gradient_statements, gradient = self._gradient()
        of_value = _needed(self.statements, [self.value])
        of_gradient = _needed(self.statements, [*gradient_statements, gradient])
        extra = [s for s in of_gradient if s not in of_value]
        return (
            self._short([*of_value, self.value]),
            self._short([*extra, *gradient_statements, gradient]),
        )

    def _gradient(self) -> tuple[list[ast.stmt], ast.expr]:
        """Statements and result of the vector-Jacobian product."""
        if isinstance(self.vjp, ast.Lambda):
            return [], self.vjp.body
        if isinstance(self.vjp, ast.Name) and self.vjp.id in self.functions:
            vjp = self.functions[self.vjp.id]
            return self._simplified(vjp.body), _returned(vjp)
        return [], self.vjp  # a call that makes it

    def _simplified(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Assignments and loops; tuples are taken apart, and other names for attributes noted."""
        statements: list[ast.stmt] = []
        for node in body:
            for single in _taken_apart(node):
                if isinstance(single, ast.Assign) and _is_other_name(single):
                    self.names.update(dict.fromkeys(_assigned(single), single.value))
                elif isinstance(single, ast.Assign | ast.AugAssign | ast.For | ast.Expr):
                    statements.append(single)
        return statements

    def _short(self, parts: list[ast.AST]) -> str:
        """Statements and a last expression on one line."""
        *statements, result = parts
        if isinstance(result, ast.Name) and any(result.id in _assigned(s) for s in statements):
            parts = statements  # its name says that it is the result
        shorter = [_Shorter(self.names).visit(copy.deepcopy(part)) for part in parts]
        lines = "\n".join(_unparsed(part) for part in shorter)
        return re.sub(r"\s*\n\s*", "; ", lines).replace(":;", ":")


def _unparsed(node: ast.AST) -> str:
    """A node's text; a tuple without its parentheses."""
    return ", ".join(map(ast.unparse, node.elts if isinstance(node, ast.Tuple) else [node]))


class _Shorter(ast.NodeTransformer):
    """Writes `xp` for the array library, and attributes for the names that stand for them."""

    def __init__(self, names: dict[str, ast.expr]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.names:
            return self.visit(copy.deepcopy(self.names[node.id]))
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _is_array_module(node):
            return ast.Name("xp")
        return self.generic_visit(node)


def _is_other_name(node: ast.Assign) -> bool:
    """Whether it names an attribute, or the array library."""
    value = node.value
    named = isinstance(value, ast.Attribute) or _is_array_module(value)
    return named and isinstance(node.targets[0], ast.Name)


def _is_array_module(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "array_module"
    )


def _taken_apart(node: ast.stmt) -> list[ast.stmt]:
    """`a, b = x, y` as two assignments; anything else as it is, without docstrings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return []
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        target = node.targets[0]
        if isinstance(target, ast.Tuple):
            pairs = zip(target.elts, node.value.elts, strict=True)
            return [ast.Assign([name], value, lineno=node.lineno) for name, value in pairs]
    return [node]


def _returned(function: ast.FunctionDef) -> ast.expr:
    """What a function returns at its end."""
    last = function.body[-1]
    if not isinstance(last, ast.Return) or last.value is None:
        raise LookupError(f"{function.name} does not end in a return")
    return last.value


def _assigned(node: ast.AST) -> set[str]:
    names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in names if isinstance(n.ctx, ast.Store)}


def _needed(statements: list[ast.stmt], by: list[ast.AST]) -> list[ast.stmt]:
    """The statements that make what `by` uses."""
    used = {n.id for node in by for n in ast.walk(node) if isinstance(n, ast.Name)}
    needed: list[ast.stmt] = []
    for statement in reversed(statements):
        if _assigned(statement) & used:
            needed.insert(0, statement)
            used |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    return needed
