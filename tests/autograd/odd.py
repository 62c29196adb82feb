"""Cases with invalid or unusual arguments and settings, for every operation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from autograd import ops
from autograd.operation import Op
from tests.autograd.cases import CASES
from tests.autograd.drawing import Case


def resized(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of x in another shape, repeated if necessary, no two of them equal."""
    numbers = np.resize(x, shape)
    return np.asarray(numbers + 3e-3 * np.arange(numbers.size).reshape(shape))


SHAPES = {
    "no axes": lambda shape: (),
    "an axis less": lambda shape: shape[1:],
    "an axis more in front": lambda shape: (2, *shape),
    "an axis more at the end": lambda shape: (*shape, 1),
    "a first axis of none": lambda shape: (0, *shape[1:]),
    "a last axis of none": lambda shape: (*shape[:-1], 0),
    "a row more": lambda shape: (shape[0] + 1, *shape[1:]) if shape else (2,),
    "a column more": lambda shape: (*shape[:-1], shape[-1] + 1) if shape else (2,),
    "one number": lambda shape: (1,),
}

NUMBERS = {
    "too large": lambda x: x + 100,
    "below zero": lambda x: x - 100,
    "floats for integers": lambda x: x.astype(np.float64),
    "one more": lambda x: np.resize(x, x.size + 1),
    "one less": lambda x: x[:-1],
    "an axis more": lambda x: x[None],
    "no axes": lambda x: np.array(1),
    "a list": lambda x: x.tolist(),
    "a number": lambda x: 1,
    "not given": lambda x: None,
}


@st.composite
def odd_cases(draw: Any, op: Op) -> Case:
    """A case of an operation with one unusual argument or array of integers."""
    case = draw(CASES[op])
    whole = [k for k, v in case.settings.items() if isinstance(v, np.ndarray) and v.dtype != bool]
    if whole and draw(st.booleans()):
        name = draw(st.sampled_from(whole))
        wrong = NUMBERS[draw(st.sampled_from(sorted(NUMBERS)))]
        if case.settings[name].ndim == 1:
            return replace(case, settings={**case.settings, name: wrong(case.settings[name])})
    if "axis" in case.settings and draw(st.booleans()):
        axis = draw(st.sampled_from([0, -1, 7, -7, (0,), None]))
        return replace(case, settings={**case.settings, "axis": axis})
    arrays = list(case.arrays)
    i = draw(st.integers(0, len(arrays) - 1))
    if arrays[i].size:
        shape = SHAPES[draw(st.sampled_from(sorted(SHAPES)))](arrays[i].shape)
        arrays[i] = resized(arrays[i], shape)
    return replace(case, arrays=tuple(arrays))


def result_of(case: Case, arrays: Any) -> Any:
    """The result of a case, or None if it is refused at once with a clear error."""
    try:
        return case.run(*arrays)
    except (TypeError, IndexError, ValueError) as error:
        ours = str(error).startswith(f"{case.op.name}: ")
        # NumPy's own messages about shapes, axes and indices are clear, too.
        clear = (ValueError, IndexError) if case.op is ops.take else ValueError
        if not (ours or isinstance(error, clear)):
            raise AssertionError(f"{case.op.name} ends in {error!r}") from error
        return None
