"""The gradients that a `vjp` may return instead of arrays.

A writer is a function `into(out, add)`. Most are called at once. A `LateWriter` may wait until the
end of the playback, where it is called together with others of its kind. Of the small gradients of
biases and norms, all are then written by a few launches of a kernel, and not by one each.

The gradient of a bias is the sum over the rows of a gradient that another operation computed. If
that one adds the rows up while it has them at hand, and returns both as `WithSum`, nobody has to
read them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from autograd.backend import Array
from autograd.tensor import Parameter


class WithSum(NamedTuple):
    """A gradient: [rows, columns], and the writer of its sum over the rows: [columns]."""

    gradient: Array
    sum: Callable[[Array, bool], None]


def takes_sum(vjp: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Mark a `vjp` that takes a `WithSum`, if there is one; others get its gradient alone."""
    vjp.takes_sum = True  # type: ignore[attr-defined]
    return vjp


def parted(dy: Array | WithSum) -> tuple[Array, Callable[[Array, bool], None] | None]:
    """A gradient that a marked `vjp` takes, and the writer of its sum, if that comes with it."""
    return dy if isinstance(dy, WithSum) else (dy, None)


class LateWriter(Protocol):
    """A writer that reads nothing but what it owns, and so can be called later.

    `together` takes several writers of this kind, each with the arguments of its call, whose
    arrays do not overlap.
    """

    @property
    def together(self) -> Callable[[Sequence[tuple[Any, Array, bool]]], None]:
        """Calls them all."""

    def __call__(self, out: Array, add: bool) -> None: ...


class LateWriters:
    """The writers of a playback that wait, at most one for each Parameter."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[LateWriter, Array, bool]] = {}

    def __contains__(self, p: Parameter) -> bool:
        """Whether a writer waits for this Parameter."""
        return p.serial in self._waiting

    def put(self, writer: LateWriter, p: Parameter, out: Array, add: bool) -> None:
        """Let a writer wait; none waits yet for `p`, whose gradient is `out`."""
        self._waiting[p.serial] = writer, out, add

    def call(self) -> None:
        """Call those that wait."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for together in {writer.together: None for writer, *_ in waiting}:
            together([call for call in waiting if call[0].together == together])
