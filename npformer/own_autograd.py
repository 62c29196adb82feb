"""Checks, when it is imported, that Python finds npformer's own package autograd.

There is an unrelated package of the same name. What Python finds is examined without being run.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path


def check() -> None:
    """Raise ImportError, with the name "autograd", if another autograd is found first."""
    spec = find_spec("autograd")
    if spec is None or not _is_ours(spec):
        raise ImportError(_sentence(spec), name="autograd")


def _is_ours(spec: ModuleSpec) -> bool:
    read_source = getattr(spec.loader, "get_source", None)
    try:
        source = read_source("autograd") if read_source else None
    except (ImportError, SyntaxError, UnicodeDecodeError):  # it cannot be read or is not text
        source = None
    return source is not None and "check_gradients" in source


def _sentence(spec: ModuleSpec | None) -> str:
    if spec is None:
        return "npformer needs its own package autograd, which is missing; install npformer again"
    where = spec.origin or ", ".join(spec.submodule_search_locations or ["an unknown place"])
    distribution = _owner(where)
    return (
        "npformer needs its own package autograd, but Python finds another one of this name "
        f"first: {where}{f', of the distribution {distribution}' if distribution else ''}; install "
        f"npformer into a new environment{f' without {distribution}' if distribution else ''}"
    )


def _owner(file: str) -> str | None:
    """The distribution other than npformer that installed `file`, or None if unknown."""
    from importlib.metadata import distributions  # only here, for it takes time to load

    name = Path(file).name
    for distribution in distributions():
        if distribution.metadata["Name"] == "npformer":
            continue
        for owned in distribution.files or ():
            if owned.name == name and Path(str(distribution.locate_file(owned))) == Path(file):
                return distribution.metadata["Name"]
    return None


check()
