"""What one search leaves to the next of the same size: arrays, and recordings that read them."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakSet


class Sized(Protocol):
    """Something that knows its memory in bytes."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class _Entry(NamedTuple, Generic[T]):
    size: Hashable
    kind: Hashable
    made_of: Sequence[Any]
    thing: T


class Kept(Generic[T]):
    """Things that are slow to make, by size and kind. Each is used by one thread at a time.

    At most `most` are kept, of at most `most_bytes` together; the least recently used are dropped.
    Copies, and what is read from a pickle, keep nothing.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._entries: list[_Entry[T]] = []  # the last was used last
        self._lock = threading.Lock()
        _all.add(self)

    def __reduce__(self) -> Any:
        return Kept, (self.most, self.most_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def taken(
        self,
        size: Hashable,
        kind: Hashable,
        made_of: Sequence[Any],
        make: Callable[[T | None], T],
    ) -> Iterator[T]:
        """Something of this size and kind, for this thread alone inside a `with`.

        If none is free, it is made, given one of the same kind and another size, if there is one.
        made_of: objects that it was made of. What was made of others is dropped, and so is what was
        in use when an error came.
        """
        with self._lock:
            self._entries = [e for e in self._entries if _same(e.made_of, made_of)]
            alike = [e for e in reversed(self._entries) if e.kind == kind]
            found = next((e for e in alike if e.size == size), None)
            if found is not None:
                self._entries.remove(found)
        relative = alike[0].thing if alike else None
        thing = make(relative) if found is None else found.thing
        yield thing
        if thing.nbytes > self.most_bytes:
            return
        with self._lock:
            self._entries.append(_Entry(size, kind, made_of, thing))
            while len(self) > self.most or self._bytes() > self.most_bytes:
                del self._entries[0]

    def clear(self) -> None:
        """Drop all that is not in use, and its memory."""
        with self._lock:
            self._entries.clear()

    def _bytes(self) -> int:
        return sum(e.thing.nbytes for e in self._entries)


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


_all: WeakSet[Kept[Any]] = WeakSet()


def _renew_locks() -> None:
    """In a child process, no other thread has them."""
    for kept in _all:
        kept._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
