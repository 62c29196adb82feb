"""A time limit for every test, its fixtures included.

    @pytest.mark.limit(600)  # seconds

A test that takes longer ends its process, after a look at where each thread is: no exception would
reach compiled code, and the watchdog does not need Python's global lock. pytest-xdist then says
which test it was, and goes on with the others in a new process.
"""

import faulthandler
import os
from collections.abc import Generator

import pytest

SECONDS = 300  # several times what the slowest takes, for the machine may be slow, and busy besides

_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # which is the terminal's now, and will be a test's


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_stderr])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    mark = item.get_closest_marker("limit")
    seconds = mark.args[0] if mark else SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
