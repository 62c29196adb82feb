"""The subcommand that runs the paper's experiments: flags from settings, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

from train.experiments.catalogue import experiment
from train.experiments.experiment import Experiment, run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_settings(parser: ArgumentParser, name: str, path: Callable[[str], Path]) -> None:
    """Add --out, --scale and a flag for each setting. path: converts an argument to a path."""
    of = experiment(name)
    parser.add_argument(
        "--out",
        type=path,
        help=f"by default {_directory(name, 'small')}, or {name}-SCALE beside it",
    )
    parser.add_argument(
        "--scale", choices=list(of.scales), default="small", help="what other flags do not say"
    )
    for setting in _settings(of):
        parser.add_argument(
            f"--{setting.name}",
            type=path if setting.type is Path else setting.type,
            nargs="+" if setting.several else None,
            help=setting.about,
        )


def run_experiment(name: str, options: Namespace, tell: Callable[[str], None]) -> str:
    """Run an experiment with these flags. Returns its page in Markdown."""
    of = experiment(name)
    given = {
        setting.name: tuple(value) if setting.several else value
        for setting in _settings(of)
        if (value := options[setting.name]) is not None
    }
    settings = dataclasses.replace(of.scales[options.scale], **given)
    out = options.out or _directory(name, options.scale)
    page = run(of, settings, out, tell, _command(name, options.scale, given))
    tell(f"written to {out / name}.md, with its pictures, and to {out / name}.json")
    return page


def _directory(name: str, scale: str) -> Path:
    """Where an experiment goes unless --out is given: each scale to a folder of its own."""
    return Path("runs", "experiments", name if scale == "small" else f"{name}-{scale}")


def _command(name: str, scale: str, given: dict[str, Any]) -> list[str]:
    """What a user types for these settings."""
    words = ["npformer", "experiment", name, "--scale", scale]
    for flag, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{flag.replace('_', '-')}", *map(str, values)]
    return words


class _Setting(NamedTuple):
    """A field of an experiment's settings, or a tuple of several such values."""

    name: str
    type: type
    several: bool
    about: str


def _settings(of: Experiment[Any]) -> list[_Setting]:
    some = next(iter(of.scales.values()))
    found = []
    for name, annotated in get_type_hints(type(some), include_extras=True).items():
        kind, about = get_args(annotated)
        if isinstance(kind, UnionType):  # or None, which no flag gives
            [kind] = (one for one in get_args(kind) if one is not NoneType)
        several = get_origin(kind) is tuple
        found.append(_Setting(name, get_args(kind)[0] if several else kind, several, about))
    return found
