"""Gradients that a `vjp` returns not as arrays but as writers: functions `into(out, add)`.

Most are called at once. A `LateWriter` may wait until the end of the playback, where it is called
together with others of its kind. Of the small gradients of biases and norms, all are then written
by a few launches of a kernel, and not by one each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from autograd.backend import Array
from autograd.tensor import Parameter


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
