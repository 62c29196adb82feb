"""Directories of other programs, changed for the worse, and what is said of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from npformer import UserError
from npformer.formats.importing import import_model


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_arrays(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    arrays = load_file(path)
    change(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def refusal(directory: Path, message: str = "") -> str:
    """The one line that refuses a directory, of which nothing is written."""
    out = directory.parent / "ours"
    with pytest.raises(UserError) as error:
        import_model(directory, out)
    found = str(error.value)
    assert "\n" not in found
    assert str(directory) in found
    assert found.count(f"{directory}/args.json") < 2
    assert found.count(f"{directory}/config.yaml") < 2
    assert re.search(message, found), found
    assert not out.exists()
    return found
