"""What comes next is copied to the device while the device works on what is there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def ahead(prepare: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """prepare(item) of each item, as `map` gives it, one item ahead of what is asked for.

    What `prepare` copies is copied on a stream of its own. Where an item fails, those before it are
    given first.
    """
    cuda = importlib.import_module("cupy").cuda
    copies = cuda.Stream(non_blocking=True)
    prepared = None
    try:
        for item in items:
            # Memory of earlier items that is free by now may still be read by work that was asked
            # for before; what is asked for later cannot know it. CuPy gives memory back to the
            # stream that it was taken on, so it is only this stream that has to wait.
            copies.wait_event(cuda.get_current_stream().record())
            with copies:
                following = prepare(item), copies.record()
            if prepared is not None:
                yield _arrived(cuda, *prepared)
            prepared = following
    except Exception:  # the source's or that of `prepare`, which comes after what came before it
        if prepared is not None:
            yield _arrived(cuda, *prepared)
        raise
    if prepared is not None:
        yield _arrived(cuda, *prepared)


def _arrived(cuda: Any, item: Any, copied: Any) -> Any:
    """The item; what the device is asked for from here on waits for its copies."""
    cuda.get_current_stream().wait_event(copied)
    return item
