"""How threads share the tasks of the loops in the pool's slots (autograd.cpu.pool).

A slot, like the pool, is given by its address; the first slot has the pool's.
"""

from __future__ import annotations

import os
import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from autograd.cpu.pool import (
    ARGUMENTS,
    BUSY,
    FINISHED,
    MOST_TASKS,
    SIZE,
    SLOT_WORDS,
    SLOTS,
    TASK,
    TICKET,
)

_PATIENCE = 20_000  # looks for a task before a thread sleeps; about a millisecond
_SOON = 20  # looks whether the last tasks of a loop are done, before others are begun

WORD, BIT = ir.IntType(64), ir.IntType(1)
BYTES = ir.IntType(8).as_pointer()
RUNS = ir.FunctionType(ir.VoidType(), [BYTES, WORD]).as_pointer()  # task(command, number)


def _word(builder, pool, offset):
    return builder.inttoptr(builder.add(pool, WORD(offset * 8)), WORD.as_pointer())


def _read(builder, pool, offset):
    return builder.load_atomic(_word(builder, pool, offset), "acquire", 8)


def _write(builder, pool, offset, value):
    builder.store_atomic(value, _word(builder, pool, offset), "release", 8)


def _left(builder, ticket):
    """The number of tasks that are left."""
    return builder.and_(ticket, WORD(MOST_TASKS))


def _from_the_end(builder, ticket):
    """The number of tasks that were taken from the end."""
    return builder.lshr(ticket, WORD(MOST_TASKS.bit_length()))


def are_shared(builder, count):
    """Whether there are several tasks, and no more than a ticket has room for."""
    others = builder.sub(count, WORD(1))
    return builder.and_(
        builder.icmp_signed(">", others, WORD(0)),
        builder.icmp_signed("<", others, WORD(MOST_TASKS)),
    )


def take_pool(builder, pool):
    """Whether the pool, if there is one, could be taken for this thread's loops."""
    taken = cgutils.alloca_once_value(builder, ir.IntType(1)(0))
    with builder.if_then(builder.icmp_unsigned("!=", pool, WORD(0))):
        busy = _word(builder, pool, BUSY)
        swapped = builder.cmpxchg(busy, WORD(0), WORD(1), "acq_rel", "acquire")
        builder.store(builder.extract_value(swapped, 1), taken)
    return builder.load(taken)


def release_pool(builder, pool):
    _write(builder, pool, BUSY, WORD(0))


def run_together(builder, pool, count, task, command):
    offer(builder, pool, count, builder.ptrtoint(task, WORD), builder.ptrtoint(command, WORD))
    _take_tasks(builder, pool)
    _await_the_others(builder, pool, pool)


def offer(builder, slot, count, task, command):
    """Offer the tasks of a command in a slot whose loop before has ended. All are numbers."""
    _write(builder, slot, TASK, task)
    _write(builder, slot, ARGUMENTS, command)
    _write(builder, slot, SIZE, count)
    _write(builder, slot, FINISHED, WORD(0))
    _write(builder, slot, TICKET, count)


def _take_tasks(builder, slot):
    """Take tasks of a slot, from the first on, and run them until all are taken."""
    look, done = builder.append_basic_block("look"), builder.append_basic_block("done")
    builder.branch(look)
    builder.position_at_end(look)
    builder.cbranch(_take_a_task(builder, slot, False), look, done)
    builder.position_at_end(done)


def _take_a_task(builder, slot, last):
    """Run the first task of a slot that is left to take, or the last. Returns whether one was."""
    look = builder.append_basic_block("look")
    take = builder.append_basic_block("take")
    run = builder.append_basic_block("run")
    done = builder.append_basic_block("done")
    builder.branch(look)

    builder.position_at_end(look)
    ticket = _read(builder, slot, TICKET)
    left = _left(builder, ticket)
    builder.cbranch(builder.icmp_unsigned("==", left, WORD(0)), done, take)

    builder.position_at_end(take)
    swapped = builder.cmpxchg(
        _word(builder, slot, TICKET),
        ticket,
        builder.add(ticket, WORD(MOST_TASKS if last else -1)),  # one less is left
        "acq_rel",
        "acquire",
    )
    builder.cbranch(builder.extract_value(swapped, 1), run, look)

    # A ticket of an earlier loop may be the same as this one's. It is this one's task that is
    # taken: its loop cannot end before, so what is read here belongs to it.
    builder.position_at_end(run)
    task = builder.inttoptr(_read(builder, slot, TASK), RUNS)
    arguments = builder.inttoptr(_read(builder, slot, ARGUMENTS), BYTES)
    size, taken = _read(builder, slot, SIZE), _from_the_end(builder, ticket)
    number = builder.sub(builder.sub(size, WORD(1)), taken)
    if not last:
        number = builder.sub(builder.sub(size, left), taken)
    builder.call(task, [arguments, number])
    # The atomic operation also orders non-temporal stores before what follows.
    builder.atomic_rmw("add", _word(builder, slot, FINISHED), WORD(1), "acq_rel")
    builder.branch(done)

    builder.position_at_end(done)
    was_there = builder.phi(BIT)
    was_there.add_incoming(BIT(0), look)
    was_there.add_incoming(BIT(1), run)
    return was_there


def _take_a_task_in_the_background(builder, pool):
    """Run a task of the pool's other slots, if one is left. Returns whether there was one.

    It is a function, for every loop is compiled with a call of it.
    """
    name = "task_in_the_background"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(BIT, [WORD]), name)
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block())
        for number in range(1, SLOTS):
            slot = inner.add(function.args[0], WORD(8 * SLOT_WORDS * number))
            with inner.if_then(_take_a_task(inner, slot, False)):
                inner.ret(BIT(1))
        inner.ret(BIT(0))
    return builder.call(function, [pool])


def _await_the_others(builder, pool, slot):
    """Wait until all tasks of a slot are done. Meanwhile, take others in the background.

    A thread that has one may lack a processor: make room.
    """
    looks = cgutils.alloca_once(builder, WORD)
    builder.store(WORD(0), looks)
    names = "wait", "again", "elsewhere", "nothing", "long", "over"
    wait, again, elsewhere, nothing, long, over = map(builder.append_basic_block, names)
    builder.branch(wait)

    builder.position_at_end(wait)
    finished, count = _read(builder, slot, FINISHED), _read(builder, slot, SIZE)
    builder.cbranch(builder.icmp_unsigned("==", finished, count), over, again)

    builder.position_at_end(again)
    _pause(builder)
    seen = builder.add(builder.load(looks), WORD(1))
    builder.store(seen, looks)
    builder.cbranch(builder.icmp_unsigned("<", seen, WORD(_SOON)), wait, elsewhere)

    builder.position_at_end(elsewhere)
    took = _take_a_task_in_the_background(builder, pool)
    builder.cbranch(took, wait, nothing)

    builder.position_at_end(nothing)
    seen = builder.load(looks)
    builder.cbranch(builder.icmp_unsigned("<", seen, WORD(_PATIENCE // 20)), wait, long)

    builder.position_at_end(long)
    _yield(builder)
    builder.branch(wait)

    builder.position_at_end(over)


@intrinsic
def finish(typingctx, pool, slot):
    """Return when all tasks of a slot in the background are done, by this thread or by others."""

    def generate(context, builder, own, values):
        pool, slot = values
        _take_tasks(builder, slot)
        _await_the_others(builder, pool, slot)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


def _yield(builder):
    """Let another thread have the processor."""
    if os.name == "posix":
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])


def _pause(builder):
    """Tell the processor that this is a spin loop."""
    if platform.machine() in ("x86_64", "AMD64"):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), []
        )


@intrinsic
def serve(typingctx, pool):
    """Run tasks until none has arrived for some time."""

    def generate(context, builder, own, values):
        (pool,) = values
        looks = cgutils.alloca_once_value(builder, WORD(0))
        names = "watch", "elsewhere", "idle", "worked", "leave"
        look, elsewhere, idle, worked, leave = map(builder.append_basic_block, names)
        builder.branch(look)

        builder.position_at_end(look)
        builder.cbranch(_take_a_task(builder, pool, True), worked, elsewhere)

        builder.position_at_end(elsewhere)
        builder.cbranch(_take_a_task_in_the_background(builder, pool), worked, idle)

        builder.position_at_end(worked)
        builder.store(WORD(0), looks)
        builder.branch(look)

        builder.position_at_end(idle)
        _pause(builder)
        count = builder.add(builder.load(looks), WORD(1))
        builder.store(count, looks)
        builder.cbranch(builder.icmp_unsigned("<", count, WORD(_PATIENCE)), look, leave)

        builder.position_at_end(leave)
        return context.get_dummy_value()

    return types.void(types.intp), generate
