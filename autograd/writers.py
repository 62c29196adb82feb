"""The gradients that a `vjp` may return instead of arrays.

A writer is a function `into(out, add)`. Most are called at once. A `LateWriter` may wait until the
end of the playback, where it is called together with others of its kind. Of the small gradients of
biases and norms, all are then written by a few launches of a kernel, and not by one each. A
`BackgroundWriter` is called at once, and may go on when others are called.

The gradient of a bias is the sum over the rows of a gradient that another operation computed. If
that one adds the rows up while it has them at hand, and returns both as `WithSum`, nobody has to
read them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
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


class BackgroundWriter(Protocol):
    """A writer that may go on while others run.

    It reads what it owns, and values of the forward pass, to which no operation writes.
    """

    def begin(self, out: Array, add: bool) -> Callable[[], None] | None:
        """Begin to write. Returns what waits until it is done, or None if it has to be called.

        To wait again, after an error, does no harm.
        """

    def __call__(self, out: Array, add: bool) -> None: ...


class LateWriters:
    """The writers of a playback that have not written yet, at most one for each Parameter.

        with LateWriters() as late:
            late.put(writer, p, out, add)
            ...

    When the `with` is left, all have written; after an error, those that had not begun never do.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[LateWriter, Array, bool]] = {}
        self._begun: dict[int, Callable[[], None]] = {}

    def __enter__(self) -> LateWriters:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with ExitStack() as stack:  # which waits for all, whatever one of them raises
            for finish in self._begun.values():
                stack.callback(finish)
            if kind is None:
                self._call()

    def put(self, g: Any, p: Parameter, out: Array, add: bool) -> bool:
        """Whether the gradient `g` of `p` is a writer that writes to `out` later.

        What was put for `p` before has written.
        """
        if hasattr(g, "together"):
            self._waiting[p.serial] = g, out, add
            return True
        finish = g.begin(out, add) if hasattr(g, "begin") else None
        if finish is not None:
            self._begun[p.serial] = finish
        return finish is not None

    def settle(self, p: Parameter) -> None:
        """Return when nothing more is going to be written to the gradient of `p`."""
        if p.serial in self._waiting:
            self._call()
        if p.serial in self._begun:
            self._begun[p.serial]()  # still there if it is interrupted
            del self._begun[p.serial]

    def _call(self) -> None:
        waiting, self._waiting = list(self._waiting.values()), {}
        for together in {writer.together: None for writer, *_ in waiting}:
            together([call for call in waiting if call[0].together == together])
