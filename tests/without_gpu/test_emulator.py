"""The emulator refuses arrays that a kernel would misread."""

from __future__ import annotations

import numpy as np
import pytest

from tests.without_gpu.emulator import has_whole_rows

x = np.zeros((4, 6), np.int32)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (x, True),
        (x[:, :3], True),  # the launcher passes the stride of rows
        (x[:, 0], False),
        (x[:, ::2], False),
        (x.T, False),
        (x[0][:, None], True),  # strides (4, 0)
        (x[:, :1], False),  # (24, 4): a row of one element, but not the next row beside it
        (x[:1, ::2], False),
        (x[:1, :1], True),
        (x[:0, ::2], True),
    ],
    ids=lambda x: f"{x.shape} by {x.strides}" if isinstance(x, np.ndarray) else "",
)
def test_the_stride_of_an_axis_of_length_1_is_ignored(array: np.ndarray, expected: bool) -> None:
    assert has_whole_rows(array) is expected
