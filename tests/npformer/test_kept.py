"""What is kept for the next search of a size."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from npformer.kept import Kept


@dataclass(eq=False)
class Thing:
    nbytes: int = 1


MADE_OF = (object(), None)


def use(
    kept: Kept[Thing], key: str, made_of: tuple[object, ...] = MADE_OF, nbytes: int = 1
) -> Thing:
    with kept.taken(key, "kind", made_of, lambda _: Thing(nbytes)) as thing:
        return thing


def test_the_next_one_with_a_key_gets_the_same_thing() -> None:
    kept: Kept[Thing] = Kept(2, 100)
    first = use(kept, "a")
    assert use(kept, "a") is first
    assert use(kept, "b") is not first


def test_one_of_the_same_kind_is_given_to_what_makes_another() -> None:
    kept: Kept[Thing] = Kept(9, 100)
    given: list[Thing | None] = []

    def make(relative: Thing | None) -> Thing:
        given.append(relative)
        return Thing()

    made: list[Thing] = []
    for size, kind in (1, "a"), (2, "a"), (1, "b"), (3, "a"):
        with kept.taken(size, kind, MADE_OF, make) as thing:
            made.append(thing)
    assert given == [None, made[0], None, made[1]]


def test_the_least_recently_used_are_dropped() -> None:
    kept: Kept[Thing] = Kept(2, 100)
    a, b = use(kept, "a"), use(kept, "b")
    assert use(kept, "a") is a
    use(kept, "c")  # in the place of b
    assert use(kept, "a") is a
    assert use(kept, "b") is not b
    assert len(kept) == 2


def test_there_is_a_bound_on_their_memory() -> None:
    kept: Kept[Thing] = Kept(9, 10)
    a, b = use(kept, "a", nbytes=6), use(kept, "b", nbytes=4)
    assert (use(kept, "a"), use(kept, "b")) == (a, b)
    use(kept, "c", nbytes=1)
    assert use(kept, "b") is b
    large = use(kept, "too large", nbytes=11)
    assert use(kept, "too large", nbytes=11) is not large
    assert use(kept, "b") is b  # and others stay


def test_what_was_made_of_something_else_is_dropped() -> None:
    kept: Kept[Thing] = Kept(9, 10)
    a = use(kept, "a")
    moved = (object(), None)
    assert use(kept, "a", moved) is not a
    assert len(kept) == 1


def test_all_can_be_dropped() -> None:
    kept: Kept[Thing] = Kept(9, 10)
    a = use(kept, "a")
    kept.clear()
    assert len(kept) == 0
    assert use(kept, "a") is not a


def test_what_was_in_use_when_an_error_came_is_dropped() -> None:
    kept: Kept[Thing] = Kept(9, 10)
    a = use(kept, "a")

    def fail() -> None:
        with kept.taken("a", "kind", MADE_OF, lambda _: Thing()) as thing:
            assert thing is a
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(kept) == 0


def test_a_second_thread_gets_another_one() -> None:
    kept, seen = Kept[Thing](9, 10), []
    with kept.taken("a", "kind", MADE_OF, lambda _: Thing()) as mine:
        thread = threading.Thread(target=lambda: seen.append(use(kept, "a")))
        thread.start()
        thread.join()
    assert seen[0] is not mine
    assert len(kept) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_does_not_wait_for_what_another_thread_held() -> None:
    kept: Kept[Thing] = Kept(9, 10)
    use(kept, "a")
    with kept._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            use(kept, "a")
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def read_again(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, read_again])
def test_copies_keep_nothing(again: Callable[[Any], Any]) -> None:
    kept: Kept[Thing] = Kept(9, 10)
    use(kept, "a")
    other = again(kept)
    assert (len(other), other.most, other.most_bytes) == (0, 9, 10)
