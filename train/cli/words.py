"""The words of a command line, before they are parsed, and what the parser says of wrong ones."""

from __future__ import annotations

import re
from collections.abc import Sequence


def underscored(words: Sequence[str]) -> list[str]:
    """Treats - and _ in long flags alike: --vocab-size becomes --vocab_size."""
    result = []
    for word in words:
        flag, equals, value = word.partition("=")
        long = flag.startswith("--") and len(flag) > 2
        result.append(f"--{flag[2:].replace('-', '_')}{equals}{value}" if long else word)
    return result


def readable(message: str) -> str:
    """jsonargparse's message about flags that are missing or have wrong values, shortened."""
    message = " ".join(message.split())
    if found := re.search(r"arguments are required: ([\w., ]+)", message):
        missing = (name.rpartition(".")[2] for name in found[1].split(", "))
        return f"{' and '.join(missing)} must be given"
    if found := re.match(r'Parser key "([^"]+)": .*surrogates not allowed', message):
        return f"{found[1]} is given in bytes that are not UTF-8"
    found = re.match(r'Parser key "([^"]+)": .*(?:Given|Got) value: (.*)$', message)
    if found is None:
        return message
    kinds = dict.fromkeys(re.findall(r"Expected an? <class '(\w+)'>", message))
    kinds.pop("NoneType", None)
    choices = re.findall(r"Literal\[([^\]]*)\]", message)
    names = [_KINDS.get(kind, kind) for kind in kinds]
    wanted = " or ".join([*names, *(f"one of {c}" for c in dict.fromkeys(choices))])
    return f"{found[1]} must be {wanted or 'something else'}; it is {found[2]!r}"


_KINDS = {"int": "a whole number", "float": "a number", "str": "a word"}
