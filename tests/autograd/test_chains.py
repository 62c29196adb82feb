"""Loops over rows that are played back as a chain do what they do one after the other."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd.cpu import loops
from autograd.cpu.commands import Record
from autograd.cpu.pool import COMMAND_CHAIN
from autograd.cpu.recording import LoopRecorder
from tests.autograd.test_playback import Layers, equal

pytestmark = pytest.mark.limit(600)

ROWS, SIZE = 96, 32


@loops.row_loop("x y")
def add_one(task, size, x, y):
    for i in loops.rows_of(task, len(x), size):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] + 1


@loops.row_loop("y")
def add_row_above(task, size, x, y):
    """It reads the rows of other tasks: so x is not named."""
    for i in loops.rows_of(task, len(y), size):
        for j in range(x.shape[1]):
            y[i, j] = x[max(i - 1, 0), j] + 1


@loops.row_loop("x", written="y")
def turn(task, size, x, y):
    for i in loops.rows_of(task, len(x), size):
        for j in range(x.shape[1]):
            y[len(x) - 1 - i, j] = x[i, j]


@loops.parallel_loop
def double(task, x):
    for i in loops.rows_of(task, len(x), SIZE):
        for j in range(x.shape[1]):
            x[i, j] *= 2


@loops.row_loop("x")
def out_of_memory(task, size, x):
    for i in loops.rows_of(task, len(x), size):
        x[i, 0] = np.ones(np.int64(x[i, 0])).sum()


def chains(calls: list[tuple[Any, ...]]) -> list[int]:
    """How many commands each chain has."""
    record = Record()
    with record.running():
        for loop, *arguments in calls:
            loop(*arguments)
    record.finish()
    found, at = [], 0
    while at < len(record._starts):
        found.append(int(record.commands[record._starts[at] + COMMAND_CHAIN]))
        at += found[-1]
    return found


def arrays(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((ROWS, 16), np.float32) for _ in range(count)]


def test_loops_on_the_same_rows_are_a_chain():
    a, b, c, d = arrays(4)
    row = 3, SIZE
    assert chains([(add_one, *row, a, b), (add_one, *row, b, c), (add_one, *row, c, c)]) == [3]
    assert chains([(add_one, *row, a, b), (turn, *row, b, c), (add_one, *row, a, d)]) == [3]
    assert chains([(add_row_above, *row, a, b), (add_row_above, *row, a, c)]) == [2]


def test_what_needs_rows_of_others_ends_a_chain():
    a, b, c, d = arrays(4)
    row = 3, SIZE
    first = add_one, *row, a, b
    assert chains([first, (add_row_above, *row, b, c)]) == [1, 1]  # written before
    assert chains([(add_row_above, *row, b, c), (add_one, *row, a, b)]) == [1, 1]  # after
    assert chains([first, (add_one, *row, b[::-1].copy(), c), (double, 3, d)]) == [2, 1]
    assert chains([first, (double, 3, b), (add_one, *row, b, c)]) == [1, 1, 1]


def test_what_is_written_elsewhere_ends_a_chain():
    """Whatever the chain has done with it, or the next loop does."""
    a, b, c, d = arrays(4)
    row = 3, SIZE
    writes = turn, *row, a, b
    assert chains([writes, (add_one, *row, b, c)]) == [1, 1]
    assert chains([writes, (add_row_above, *row, b, c)]) == [1, 1]
    assert chains([writes, (turn, *row, c, b)]) == [1, 1]
    assert chains([(add_one, *row, c, b), writes]) == [1, 1]
    assert chains([(add_row_above, *row, b, c), writes]) == [1, 1]
    assert chains([writes, (turn, *row, c, d), (add_row_above, *row, d, c)]) == [2, 1]


def test_a_matrix_of_one_row_is_as_long_as_it_is():
    """Whatever its stride, which counts for nothing."""
    a, b, c, _ = arrays(4)
    one = b.reshape(-1)[None]
    assert one.strides[0] == 0
    assert chains([(add_one, 3, SIZE, a, b), (add_row_above, 3, SIZE, one, c[:1])]) == [1, 1]


def test_other_rows_end_a_chain():
    a, b, c, _ = arrays(4)
    first = add_one, 3, SIZE, a, b
    assert chains([first, (add_one, 6, 16, b, c)]) == [1, 1]
    assert chains([first, (add_one, 2, SIZE, b[:64], c[:64])]) == [1, 1]
    moved = b[1:], c[1:]  # row i of these is row i + 1 of b
    assert chains([first, (add_one, 3, SIZE, *moved)]) == [1, 1]
    narrow = b.reshape(2 * ROWS, 8)[:ROWS], c.reshape(2 * ROWS, 8)[:ROWS]
    assert chains([first, (add_one, 3, SIZE, *narrow)]) == [1, 1]


class Chained(Layers):
    """Chains of several lengths, some of which end in the middle of it."""

    def __init__(self):
        super().__init__(ROWS)
        self.arrays = arrays(6)

    def __call__(self):
        found = super().__call__()
        a, b, c, d, e, f = self.arrays
        a[...] = 0
        row = 3, SIZE
        add_one(*row, c, b)
        add_one(*row, b, c)
        add_row_above(*row, c, d)
        turn(*row, d, e)
        add_one(*row, e, f)
        double(3, f)
        return *found, f


def test_chains_are_played_back_as_they_were_run():
    layers = Chained()
    recorded = LoopRecorder()(layers)
    other = Chained()
    for _ in range(8):
        layers.change()
        other.change()
        assert equal(recorded(), other())
    assert layers.calls == 2


def test_a_loop_of_a_chain_that_lacks_memory_is_named():
    (a, b, *_) = arrays(2)
    counts = np.ones((ROWS, 16), np.float32)

    def run():
        add_one(3, SIZE, a, b)
        out_of_memory(3, SIZE, counts)
        add_one(3, SIZE, b, b)
        return b

    recorded = LoopRecorder()(run)
    for _ in range(3):
        recorded()
    counts[40] = 1e18
    with pytest.raises(MemoryError, match="out_of_memory"):
        recorded()
    counts[...] = 1
    recorded()  # the next time, it is not told again
