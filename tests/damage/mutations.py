"""Ways to damage a file, each drawn by a random generator."""

from __future__ import annotations

import json
import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from npformer.checkpoint import load_arrays, save_arrays
from train.corpora.manifest import signature

Damage = Callable[[Path, random.Random], str]
"""Damages the file at a path; returns a description of the damage."""


def flip_bits(path: Path, rng: random.Random) -> str:
    """Flip a few bits."""
    data = bytearray(path.read_bytes())
    positions = [rng.randrange(8 * len(data)) for _ in range(rng.choice((1, 1, 1, 2, 8)))]
    for position in positions:
        data[position // 8] ^= 1 << position % 8
    path.write_bytes(data)
    return f"bits {positions} flipped"


def spoil_block(path: Path, rng: random.Random) -> str:
    """Zero, randomise, reverse, repeat or remove a block of bytes, or exchange its halves."""
    data = path.read_bytes()
    size = min(len(data), rng.choice((1, 4, 16, 512, 4096)))
    start = rng.randrange(len(data) - size + 1)
    block, before, after = data[start : start + size], data[:start], data[start + size :]
    kind = rng.choice(("zeroed", "randomised", "reversed", "repeated", "left out", "exchanged"))
    other = {
        "zeroed": bytes(size),
        "randomised": rng.randbytes(size),
        "reversed": block[::-1],
        "repeated": block + block,
        "left out": b"",
        "exchanged": block[size // 2 :] + block[: size // 2],
    }[kind]
    path.write_bytes(before + other + after)
    return f"{size} bytes at {start} {kind}"


def cut(path: Path, rng: random.Random) -> str:
    """Cut off the end, or append bytes."""
    data = path.read_bytes()
    if rng.random() < 0.2:
        extra = rng.randbytes(rng.choice((1, 8, 1000)))
        path.write_bytes(data + extra)
        return f"{len(extra)} bytes added"
    size = rng.choice((0, 1, len(data) - 1, rng.randrange(len(data))))
    path.write_bytes(data[:size])
    return f"cut to {size} of {len(data)} bytes"


def replace_file(path: Path, rng: random.Random) -> str:
    """Remove the file, or replace it by a directory or a link to itself."""
    kind = rng.choice(("nothing", "a directory", "a link to itself"))
    path.unlink()
    if kind == "a directory":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    return f"{kind} in its place"


def put_pipe(path: Path, rng: random.Random) -> str:
    """Replace the file by a named pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)
    return "a named pipe in its place"


STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400),
    *(2.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "1", "../../x", "\x00", "\ud800"),
    *([], {}, [1], {"a": None}, [[[[]]]]),
]
_DEEP = 100_000


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values within nested dictionaries and lists, that of the whole first."""
    found = [path]
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += _paths(inner, (*path, key))
    return found


def strange(value: Any, rng: random.Random) -> tuple[Any, str]:
    """`value`, nested dictionaries and lists, with one value replaced, removed or renamed."""
    path = rng.choice(_paths(value))
    if not path:
        new = rng.choice(STRANGE)
        return new, f"the whole made {new!r:.40}"
    value = json.loads(json.dumps(value))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    name, last = ".".join(map(str, path)), path[-1]
    kind = rng.choice(("other", "other", "other", "lost", "renamed"))
    if kind == "lost" or (kind == "renamed" and not isinstance(parent, dict)):
        del parent[last]
        return value, f"{name} left out"
    if kind == "renamed":
        parent[f"{last}x"] = parent.pop(last)
        return value, f"{name} renamed"
    parent[last] = rng.choice(STRANGE)
    return value, f"{name} made {parent[last]!r:.40}"


def _strange_part(
    name: str, value: dict[str, Any], rng: random.Random
) -> tuple[dict[str, Any], str]:
    """Like `strange`, for a value that must stay a dictionary."""
    changed, what = strange({name: value}, rng)
    part = changed.get(name) if isinstance(changed, dict) else None
    return (part if isinstance(part, dict) else {}), what


def _written(text: str, path: Path) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _deep(rng: random.Random) -> tuple[str, str]:
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    return opening * _DEEP + "1" + closing * _DEEP, f"{opening} nested {_DEEP:,} deep"


def wrong_json(path: Path, rng: random.Random) -> str:
    """Replace, remove or rename a value in a JSON file."""
    if rng.random() < 0.05:
        text, what = _deep(rng)
    else:
        value, what = strange(json.loads(path.read_bytes()), rng)
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    _written(text, path)
    return what


def wrong_manifest(path: Path, rng: random.Random) -> str:
    """Replace, remove or rename a value in a corpus's manifest, and sign it anew."""
    manifest = json.loads(path.read_bytes())
    changed, what = _strange_part("manifest", manifest, rng)
    _written(json.dumps({**changed, "sha256": signature(changed)}), path)
    return f"{what}, signed"


def wrong_json_line(path: Path, rng: random.Random) -> str:
    """Replace, remove or rename a value in a line of a JSON Lines file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    chosen = rng.randrange(len(lines))
    if rng.random() < 0.05:
        lines[chosen], what = _deep(rng)
    else:
        value, what = strange(json.loads(lines[chosen]), rng)
        lines[chosen] = json.dumps(value)
    _written("".join(f"{line}\n" for line in lines), path)
    return f"line {chosen + 1}: {what}"


ODD_YAML = [
    *(
        "",
        "\t",
        "x",
        "{",
        "- 1\n",
        "model:\n",
        "a: &a [*a]\n",
        "1: 2\n",
        "[]: 3\n",
        "seed: 1\nseed: 2\n",
    ),
    *("seed: !!int abc\n", "seed: !!float abc\n", "seed: !!bool abc\n", "seed: !!timestamp abc\n"),
    *("seed: !!int ''\n", "!!merge <<: {}\n", "seed: !!python/name:os.system\n", "--- 1\n--- 2\n"),
]


def wrong_yaml(path: Path, rng: random.Random) -> str:
    """Change a value in a YAML file, or replace its whole text."""
    text = path.read_text(encoding="utf-8")
    first = re.match(r"#.*\n", text)
    comment = first[0] if first and rng.random() < 0.9 else ""
    if rng.random() < 0.05:
        body, what = _deep(rng)
    elif rng.random() < 0.2:
        body = rng.choice(ODD_YAML)
        what = f"the text made {body!r}"
    else:
        value, what = strange(yaml.safe_load(text), rng)
        body = yaml.safe_dump(value, sort_keys=False)
    _written(comment + body, path)
    return what


def wrong_header(path: Path, rng: random.Random) -> str:
    """Replace, remove or rename a value in the header of a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    value, what = strange(json.loads(data[8 : 8 + size]), rng)
    header = json.dumps(value).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    return f"header: {what}"


def wrong_metadata(path: Path, rng: random.Random) -> str:
    """Replace, remove or rename a value in the metadata of arrays, with a valid checksum."""
    arrays, metadata = load_arrays(path)
    changed, what = _strange_part("about", metadata, rng)
    save_arrays(path, arrays, changed)
    return f"{what}, signed"


def wrong_arrays(path: Path, rng: random.Random) -> str:
    """Remove or rename an array, or change its shape, dtype or values, with a valid checksum."""
    arrays, metadata = load_arrays(path)
    name = rng.choice(sorted(arrays))
    kind = rng.choice(("lost", "renamed", "longer", "flat", "float64", "int32", "nan"))
    array = arrays.pop(name)
    if kind == "renamed":
        arrays[f"{name}x"] = array
    elif kind == "longer":
        arrays[name] = array.repeat(2, axis=0)
    elif kind == "flat":
        arrays[name] = array.reshape(-1, 1)
    elif kind == "nan":
        arrays[name] = array * float("nan")
    elif kind != "lost":
        arrays[name] = array.astype(kind)
    save_arrays(path, arrays, metadata)
    return f"array {name} {kind}, signed"
