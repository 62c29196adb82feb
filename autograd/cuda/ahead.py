"""Copying the next item to the device while the device computes with the current one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def ahead(prepare: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Like `map(prepare, items)`, but prepares one item ahead of the one that is asked for.

    Copies in `prepare` run on a separate stream. If an item fails, the items before it are yielded
    before the exception is raised.
    """
    cuda = importlib.import_module("cupy").cuda
    copies = cuda.Stream(non_blocking=True)
    prepared = None
    try:
        for item in items:
            # Memory that earlier items have freed may still be read by work that is queued already.
            # CuPy reuses memory only on the stream that allocated it, so only this stream waits.
            copies.wait_event(cuda.get_current_stream().record())
            with copies:
                following = prepare(item), copies.record()
            if prepared is not None:
                yield _arrived(cuda, *prepared)
            prepared = following
    except Exception:  # from the source or from `prepare`
        if prepared is not None:
            yield _arrived(cuda, *prepared)
        raise
    if prepared is not None:
        yield _arrived(cuda, *prepared)


def _arrived(cuda: Any, item: Any, copied: Any) -> Any:
    """The item; work that is queued from here on waits for its copies."""
    cuda.get_current_stream().wait_event(copied)
    return item
