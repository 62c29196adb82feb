"""What the processes that train one model together say to each other.

Each runs the same program. `Ranks` is the interface; an instance of it is a process alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from autograd import Parameter, ParameterBuffer
from autograd.backend import Array
from npformer.errors import UserError

_Value = TypeVar("_Value")


class AgreedError(UserError):
    """An error that all ranks raise at the same place.

    told: whether this rank tells it to the user, as one of them does
    """

    def __init__(self, message: str, told: bool) -> None:
        super().__init__(message)
        self.told = told


class Exchange(Protocol):
    """Sums the gradients of all ranks while they are being computed."""

    def completed(self, parameter: Parameter) -> None:
        """Takes notice that a Parameter's gradient of this rank is complete."""

    def finish(self, numbers: Array) -> Array:
        """Sum what is left, and `numbers` [n] of the same backend; returns their sum.

        Afterwards every gradient is the sum over all ranks, to the same bit on each.
        """


class Ranks:
    """A process alone: it is the first of one.

    Every method but `abort` is collective: all ranks call it at the same place.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run's files, and speaks for all."""
        return self.rank == 0

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

    def copy_from_first(self, array: Array) -> None:
        """Overwrite a contiguous array by that of the first rank."""

    def exchange(self, buffer: ParameterBuffer) -> Exchange | None:
        """What sums the gradients in a buffer; None where there is nothing to sum."""
        return None


ALONE = Ranks()
