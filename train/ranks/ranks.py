"""What the processes that train one model together say to each other.

Each runs the same program. `Ranks` is the interface; an instance of it is a process alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from autograd import Parameter, ParameterBuffer
from autograd.backend import Array
from npformer.errors import UserError

_Value = TypeVar("_Value")


class AgreedError(UserError):
    """An error that all ranks raise at the same place. The first of them tells it to the user."""


class Ending(NamedTuple):
    """How a command ends.

    status: the exit status
    text: what the user is told, without the end of the line
    agreed: whether all ranks end so, at the same place
    """

    status: int
    text: str = ""
    agreed: bool = False


class Exchange(Protocol):
    """Sums the gradients of all ranks while they are being computed.

    In each step, every rank calls `begin`, `completed` any number of times, and `finish`.
    """

    def begin(self, numbers: Array) -> None:
        """Begin with a step, whose gradients come next.

        numbers: [n], of the gradients' dtype and backend, to be overwritten by their sum. Raises
        RuntimeError if an exception has ended an earlier step between `begin` and `finish`.
        """

    def completed(self, parameter: Parameter) -> None:
        """Takes notice that a Parameter's gradient of this rank is complete."""

    def finish(self) -> None:
        """Sum what is left. Gradients that were not reported are complete by now, too.

        Afterwards every gradient is the sum over all ranks, to the same bit on each, and so are the
        numbers.
        """


class Ranks:
    """A process alone: it is the first of one.

    Every method but `name`, `await_sums` and `end` is collective: all ranks call it at the same
    place.

    Attributes:
        processors: how many processors are this rank's part of its host's; None if it shares them
            with no other rank
        terminal: the descriptor of the user's standard error, where this process's own may lead
            into a log
        waited: seconds for which this rank has waited for the others, sending included
        waiting_since: when the present wait began, by `time.monotonic`; None while it works
    """

    rank = 0
    size = 1
    processors: int | None = None
    terminal = 2
    waited = 0.0
    waiting_since: float | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run's files, and speaks for all."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """A rank and its host, as "rank 1 on node7"; nothing for a process alone."""
        return ""

    def all(self, value: _Value) -> list[_Value]:
        """The values that the ranks have called this with, in their order."""
        return [value]

    def on_first(self, function: Callable[[], _Value]) -> _Value:
        """Call `function` on the first rank alone; returns its value on all.

        A UserError of it is raised on all, as an AgreedError. It must not be collective itself.
        """
        return function()

    @contextmanager
    def together(self) -> Iterator[None]:
        """A UserError of one rank in the block is raised on all, as an AgreedError.

        Nothing in the block may be collective.
        """
        yield

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any rank is to stop, and the first rank's clock."""
        return stop, seconds

    def choose_device(self, backend: str) -> None:
        """Have each rank's arrays of a backend on a device of its own, where there are several.

        To be called before the backend is opened. Raises UserError if there is none for one.
        """

    def copy_from_first(self, array: Array) -> None:
        """Overwrite a contiguous array by that of the first rank."""

    def exchange(self, buffer: ParameterBuffer) -> Exchange | None:
        """What sums the gradients in a buffer; None where there is nothing to sum."""
        return None

    def await_sums(self) -> None:
        """Wait until the exchanges that are under way on a GPU are done.

        What waits for the GPU itself, to read an array, can neither be interrupted nor learn that
        the connection to another rank has failed. So this comes first. Raises UserError if it has.
        """

    def end(self, ending: Ending) -> int:
        """Tell the user how the command ends; returns the exit status.

        If the ranks have not agreed to end so, all end here, and one of them tells why.
        """
        if ending.text:
            print(ending.text, file=sys.stderr)
        return ending.status


ALONE = Ranks()
