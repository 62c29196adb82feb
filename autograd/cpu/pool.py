"""The threads that loops run on: as many as there are processors, the calling one among them.

A step has hundreds of short loops, so waking a thread for each would cost more than it gives
(some 200 µs on a virtual machine). A thread that has nothing to do therefore looks out for the next
loop for about a millisecond, and sleeps only then. For the same reason there is only this one pool:
matrix products run on it too (autograd.cpu.products), and not on a library's threads.

A loop is a function of the number of a task. All threads take tasks from one counter until none is
left, so an uneven share or a busy processor delays no other. The counter and the number of the loop
share one machine word, the *ticket*: a thread that comes late cannot take a task of another loop.
"""

from __future__ import annotations

import atexit
import os
import platform
import threading
from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# The words of the pool's memory, each alone in a cache line (128 bytes: processors fetch pairs).
_LINE = 16
_TICKET, _TASK, _ARGUMENTS, _SIZE, _FINISHED = (i * _LINE for i in range(5))
_WORDS = 5 * _LINE

_PATIENCE = 20_000  # looks at the ticket before a thread sleeps; about a millisecond

_WORD = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
_RUNS = ir.FunctionType(ir.VoidType(), [_BYTES, _WORD]).as_pointer()  # task(arguments, number)


@intrinsic
def run_tasks(typingctx, pool, count, body, arguments):
    """Call body(number, *arguments) for every number below `count`, on all threads of the pool.

    `pool` is the address of the pool's memory, or 0 for the calling thread alone.
    """
    signature = body.get_call_type(typingctx, (types.intp, *arguments.types), {})

    def generate(context, builder, own, values):
        pool, count, _, packed = values
        task = _task(context, builder, body, signature, arguments)
        place = builder.bitcast(cgutils.alloca_once_value(builder, packed), _BYTES)
        alone = builder.icmp_unsigned("==", pool, _WORD(0))
        with builder.if_else(alone) as (one, all_of_them):
            with one, cgutils.for_range(builder, count) as loop:
                builder.call(task, [place, loop.index])
            with all_of_them:
                _publish(builder, pool, count, task, place)
                _take_tasks(builder, pool)
                _await_the_others(builder, pool, count)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, body, arguments), generate


def _task(context, builder, body, signature, arguments):
    """A function of the C kind, task(arguments, number), that calls `body`."""
    module = builder.module
    name = module.get_unique_name("task")
    function = ir.Function(module, _RUNS.pointee, name)
    function.linkage = "internal"
    inner = ir.IRBuilder(function.append_basic_block())
    kind = context.get_value_type(arguments)
    packed = inner.load(inner.bitcast(function.args[0], kind.as_pointer()))
    compiled = body.dispatcher.overloads[signature.args]
    context.add_linking_libs([compiled.library])
    callee = context.declare_function(module, compiled.fndesc)
    values = [function.args[1], *cgutils.unpack_tuple(inner, packed)]
    context.call_conv.call_function(inner, callee, signature.return_type, signature.args, values)
    inner.ret_void()
    return function


def _word(builder, pool, offset):
    return builder.inttoptr(builder.add(pool, _WORD(offset * 8)), _WORD.as_pointer())


def _read(builder, pool, offset):
    return builder.load_atomic(_word(builder, pool, offset), "acquire", 8)


def _write(builder, pool, offset, value):
    builder.store_atomic(value, _word(builder, pool, offset), "release", 8)


def _left(builder, ticket):
    """The number of tasks that nobody has taken: the ticket's lower half."""
    return builder.and_(ticket, _WORD(0xFFFFFFFF))


def _publish(builder, pool, count, task, arguments):
    _write(builder, pool, _TASK, builder.ptrtoint(task, _WORD))
    _write(builder, pool, _ARGUMENTS, builder.ptrtoint(arguments, _WORD))
    _write(builder, pool, _SIZE, count)
    _write(builder, pool, _FINISHED, _WORD(0))
    loop_number = builder.lshr(_read(builder, pool, _TICKET), _WORD(32))
    loop_number = builder.shl(builder.add(loop_number, _WORD(1)), _WORD(32))
    _write(builder, pool, _TICKET, builder.or_(loop_number, count))


def _take_tasks(builder, pool):
    """Take tasks and run them until all are taken."""
    look = builder.append_basic_block("look")
    take = builder.append_basic_block("take")
    run = builder.append_basic_block("run")
    done = builder.append_basic_block("done")
    builder.branch(look)

    builder.position_at_end(look)
    ticket = _read(builder, pool, _TICKET)
    left = _left(builder, ticket)
    builder.cbranch(builder.icmp_unsigned("==", left, _WORD(0)), done, take)

    builder.position_at_end(take)
    swapped = builder.cmpxchg(
        _word(builder, pool, _TICKET), ticket, builder.sub(ticket, _WORD(1)), "acq_rel", "acquire"
    )
    builder.cbranch(builder.extract_value(swapped, 1), run, look)

    # The loop cannot end before this task has; so what is read here belongs to it.
    builder.position_at_end(run)
    task = builder.inttoptr(_read(builder, pool, _TASK), _RUNS)
    arguments = builder.inttoptr(_read(builder, pool, _ARGUMENTS), _BYTES)
    number = builder.sub(_read(builder, pool, _SIZE), left)
    builder.call(task, [arguments, number])
    builder.atomic_rmw("add", _word(builder, pool, _FINISHED), _WORD(1), "acq_rel")
    builder.branch(look)

    builder.position_at_end(done)


def _await_the_others(builder, pool, count):
    wait = builder.append_basic_block("wait")
    over = builder.append_basic_block("over")
    builder.branch(wait)
    builder.position_at_end(wait)
    _pause(builder)
    finished = _read(builder, pool, _FINISHED)
    builder.cbranch(builder.icmp_unsigned("==", finished, count), over, wait)
    builder.position_at_end(over)


def _pause(builder):
    """Tell the processor that this is a loop that waits."""
    if platform.machine() in ("x86_64", "AMD64"):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), []
        )


@intrinsic
def serve(typingctx, pool):
    """Take tasks as they come, until none has come for long."""

    def generate(context, builder, own, values):
        (pool,) = values
        looks = cgutils.alloca_once_value(builder, _WORD(0))
        look = builder.append_basic_block("watch")
        idle = builder.append_basic_block("idle")
        work = builder.append_basic_block("work")
        leave = builder.append_basic_block("leave")
        builder.branch(look)

        builder.position_at_end(look)
        left = _left(builder, _read(builder, pool, _TICKET))
        builder.cbranch(builder.icmp_unsigned("==", left, _WORD(0)), idle, work)

        builder.position_at_end(work)
        _take_tasks(builder, pool)
        builder.store(_WORD(0), looks)
        builder.branch(look)

        builder.position_at_end(idle)
        _pause(builder)
        count = builder.add(builder.load(looks), _WORD(1))
        builder.store(count, looks)
        builder.cbranch(builder.icmp_unsigned("<", count, _WORD(_PATIENCE)), look, leave)

        builder.position_at_end(leave)
        return context.get_dummy_value()

    return types.void(types.intp), generate


class Pool:
    """The threads beside the calling one, and the memory that they share with it.

    `watch` is `serve`, compiled: a thread calls it with the pool's address, and sleeps when it
    returns.
    """

    def __init__(self, threads: int, watch: Callable[[int], None]) -> None:
        self.threads = threads
        self._memory = np.zeros(_WORDS + _LINE, np.int64)
        self.address = self._memory.ctypes.data + -self._memory.ctypes.data % (8 * _LINE)
        self._watch = watch
        self._lock = threading.Lock()
        self._alarm = threading.Semaphore(0)
        self._asleep = 0
        self._closing = False
        self._helpers = [
            threading.Thread(target=self._help, name=f"loops-{i}", daemon=True)
            for i in range(1, threads)
        ]
        for helper in self._helpers:
            helper.start()
        atexit.register(self.close)

    def _help(self) -> None:
        while not self._closing:
            self._watch(self.address)
            with self._lock:
                self._asleep += 1
            # A loop that began before it could know must not be missed: look out once more.
            self._watch(self.address)
            self._alarm.acquire()

    def wake(self) -> None:
        """Let threads that sleep, or are about to, look out for tasks again."""
        if self._asleep:
            with self._lock:
                asleep, self._asleep = self._asleep, 0
            self._alarm.release(asleep)

    def close(self) -> None:
        """End the threads: the interpreter must not go while they run compiled code."""
        self._closing = True
        self._alarm.release(self.threads)
        for helper in self._helpers:
            helper.join()


_pool: Pool | None = None

# The pool runs one loop at a time. A child process must not inherit the lock in the hands of a
# thread that it has not got, nor a pool whose threads it has not got.
_one_at_a_time = threading.Lock()


def _forget_the_pool() -> None:
    global _pool
    _pool = None
    _one_at_a_time.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_forget_the_pool,
    )


def threads() -> int:
    """How many threads share a loop: NUMBA_NUM_THREADS, by default the process's processors."""
    return int(numba.config.NUMBA_NUM_THREADS)


def lend(watch: Callable[[int], None]) -> int:
    """The address of the pool for one loop, until `give_back`; 0 while another thread has it."""
    global _pool
    if not _one_at_a_time.acquire(blocking=False):
        return 0
    try:
        if _pool is None:
            _pool = Pool(threads(), watch)
        _pool.wake()
    except BaseException:
        _one_at_a_time.release()
        raise
    return _pool.address


def give_back() -> None:
    """Let another loop have the pool."""
    _one_at_a_time.release()
