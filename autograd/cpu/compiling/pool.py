"""Instructions that run a loop on the pool's threads, and play back several (autograd.cpu.pool).

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
    COMMAND_ARGUMENTS,
    COMMAND_BYTES,
    COMMAND_CHAIN,
    COMMAND_COUNT,
    COMMAND_FAILED,
    COMMAND_TASK,
    FINISHED,
    MOST_BYTES,
    MOST_TASKS,
    NOBODY,
    SIZE,
    SLOT_WORDS,
    SLOTS,
    TASK,
    TICKET,
)

_PATIENCE = 20_000  # looks for a task before a thread sleeps; about a millisecond
_SOON = 20  # looks whether the last tasks of a loop are done, before others are begun

_WORD, _BIT = ir.IntType(64), ir.IntType(1)
_BYTES = ir.IntType(8).as_pointer()
_RUNS = ir.FunctionType(ir.VoidType(), [_BYTES, _WORD]).as_pointer()  # task(command, number)


@intrinsic
def run_tasks(typingctx, pool, record, count, body, arguments):
    """Call body(number, *arguments) for every number below `count`, on all threads of the pool.

    `pool` is the address of the pool's memory, 0 to use only the calling thread, which also runs
    alone while the pool is busy with another thread's loop, or NOBODY to run nothing. `record` is
    the address of memory for the command, which `play` can repeat, or 0. Returns 0, or 1 if a call
    failed: out of memory is the only error that compiled loops can have.
    """
    signature = body.get_call_type(typingctx, (types.intp, *arguments.types), {})

    def generate(context, builder, own, values):
        pool, record, count, _, packed = values
        task = _task(context, builder, body, signature, arguments)
        words = [builder.ptrtoint(task, _WORD), count, _WORD(0), _WORD(0), _WORD(1)]
        packed = _lent(context, builder, arguments, packed)
        command = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [*words, packed]))
        size = _WORD(context.get_abi_sizeof(command.type.pointee))
        if size.constant > MOST_BYTES:
            raise ValueError(f"the arguments of a loop take {size.constant} bytes")
        builder.store(size, cgutils.gep_inbounds(builder, command, 0, COMMAND_BYTES))
        with builder.if_then(builder.icmp_unsigned("!=", record, _WORD(0))):
            cgutils.raw_memcpy(builder, builder.inttoptr(record, _BYTES), command, size, 1)
        shared = builder.bitcast(command, _BYTES)
        with builder.if_then(builder.icmp_signed("!=", pool, _WORD(NOBODY))):
            # In compiled code, where no signal can interrupt between taking and releasing the pool.
            taken = _take(builder, builder.select(_are_shared(builder, count), pool, _WORD(0)))
            with builder.if_else(taken) as (all_of_them, one):
                with all_of_them:
                    _run_together(builder, pool, count, task, shared)
                    _release(builder, pool)
                with one, cgutils.for_range(builder, count) as loop:
                    builder.call(task, [shared, loop.index])
        return builder.load(cgutils.gep_inbounds(builder, command, 0, COMMAND_FAILED))

    return types.intp(types.intp, types.intp, types.intp, body, arguments), generate


@intrinsic
def play(typingctx, pool, first, end):
    """Run the commands from one address to another, one chain of them after the other.

    `pool` is as for `run_tasks`. Returns 0, or the address of the command that failed.
    """

    def generate(context, builder, own, values):
        pool, first, end = values
        at = cgutils.alloca_once_value(builder, first)
        failed = cgutils.alloca_once_value(builder, _WORD(0))
        task = _task_of_a_chain(builder.module)
        taken = _take(builder, pool)
        names = "look", "chain", "command", "failed", "next", "done"
        look, chain, command, stop, go_on, done = map(builder.append_basic_block, names)
        builder.branch(look)

        builder.position_at_end(look)
        head = builder.load(at)
        builder.cbranch(builder.icmp_unsigned("<", head, end), chain, done)

        builder.position_at_end(chain)
        count = builder.load(_command_word(builder, head, COMMAND_COUNT))
        shared = builder.inttoptr(head, _BYTES)
        shared_by_all = builder.and_(taken, _are_shared(builder, count))
        with builder.if_else(shared_by_all) as (all_of_them, one):
            with all_of_them:
                _run_together(builder, pool, count, task, shared)
            with one, cgutils.for_range(builder, count) as loop:
                builder.call(task, [shared, loop.index])
        left = builder.load(_command_word(builder, head, COMMAND_CHAIN))
        commands_left = cgutils.alloca_once(builder, _WORD)
        builder.store(left, commands_left)
        builder.branch(command)

        # What failed, of the commands of the chain.
        builder.position_at_end(command)
        here = builder.load(at)
        has_failed = _command_word(builder, here, COMMAND_FAILED)
        builder.store(_after(builder, here), at)
        builder.store(builder.sub(builder.load(commands_left), _WORD(1)), commands_left)
        is_error = builder.icmp_unsigned("!=", builder.load(has_failed), _WORD(0))
        builder.cbranch(is_error, stop, go_on)

        builder.position_at_end(stop)
        builder.store(_WORD(0), has_failed)
        with builder.if_then(builder.icmp_unsigned("==", builder.load(failed), _WORD(0))):
            builder.store(here, failed)
        builder.branch(go_on)

        builder.position_at_end(go_on)
        is_last = builder.icmp_unsigned("==", builder.load(commands_left), _WORD(0))
        with builder.if_then(builder.not_(is_last)):
            builder.branch(command)
        is_well = builder.icmp_unsigned("==", builder.load(failed), _WORD(0))
        builder.cbranch(is_well, look, done)

        builder.position_at_end(done)
        with builder.if_then(taken):
            _release(builder, pool)
        return builder.load(failed)

    return types.intp(types.intp, types.intp, types.intp), generate


def _task_of_a_chain(module):
    """A C function task(command, number) that runs this task of all commands of a chain."""
    function = ir.Function(module, _RUNS.pointee, module.get_unique_name("chain"))
    function.linkage = "internal"
    entry, run, done = map(function.append_basic_block, ("entry", "run", "done"))
    builder = ir.IRBuilder(entry)
    first = builder.ptrtoint(function.args[0], _WORD)
    count = builder.load(_command_word(builder, first, COMMAND_CHAIN))
    builder.branch(run)

    builder.position_at_end(run)
    here, left = builder.phi(_WORD), builder.phi(_WORD)
    here.add_incoming(first, entry)
    left.add_incoming(count, entry)
    task = builder.inttoptr(builder.load(_command_word(builder, here, COMMAND_TASK)), _RUNS)
    builder.call(task, [builder.inttoptr(here, _BYTES), function.args[1]])
    here.add_incoming(_after(builder, here), run)
    fewer = builder.sub(left, _WORD(1))
    left.add_incoming(fewer, run)
    builder.cbranch(builder.icmp_unsigned("==", fewer, _WORD(0)), done, run)

    builder.position_at_end(done)
    builder.ret_void()
    return function


def _command_word(builder, command, number):
    """A pointer to a word of the command at an address."""
    return builder.inttoptr(builder.add(command, _WORD(8 * number)), _WORD.as_pointer())


def _after(builder, command):
    """The address of the next command."""
    return builder.add(command, builder.load(_command_word(builder, command, COMMAND_BYTES)))


def _lent(context, builder, kind, value):
    """Arguments without what counts references to their arrays: commands outlive the call.

    The caller keeps the arrays.
    """
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = zip(kind.types, cgutils.unpack_tuple(builder, value, len(kind.types)), strict=True)
        return context.make_tuple(
            builder, kind, [_lent(context, builder, k, part) for k, part in parts]
        )
    return value


def _task(context, builder, body, signature, arguments):
    """A C function task(command, number) that calls `body`."""
    module = builder.module
    name = module.get_unique_name("task")
    function = ir.Function(module, _RUNS.pointee, name)
    function.linkage = "internal"
    inner = ir.IRBuilder(function.append_basic_block())
    words = [_WORD] * COMMAND_ARGUMENTS
    kind = ir.LiteralStructType([*words, context.get_value_type(arguments)])
    command = inner.bitcast(function.args[0], kind.as_pointer())
    packed = inner.load(cgutils.gep_inbounds(inner, command, 0, COMMAND_ARGUMENTS))
    compiled = body.dispatcher.overloads[signature.args]
    context.add_linking_libs([compiled.library])
    callee = context.declare_function(module, compiled.fndesc)
    values = [function.args[1], *cgutils.unpack_tuple(inner, packed)]
    status, _ = context.call_conv.call_function(
        inner, callee, signature.return_type, signature.args, values
    )
    with cgutils.if_unlikely(inner, status.is_error):
        inner.store(_WORD(1), cgutils.gep_inbounds(inner, command, 0, COMMAND_FAILED))
    inner.ret_void()
    return function


def _word(builder, pool, offset):
    return builder.inttoptr(builder.add(pool, _WORD(offset * 8)), _WORD.as_pointer())


def _read(builder, pool, offset):
    return builder.load_atomic(_word(builder, pool, offset), "acquire", 8)


def _write(builder, pool, offset, value):
    builder.store_atomic(value, _word(builder, pool, offset), "release", 8)


def _left(builder, ticket):
    """The number of tasks that are left."""
    return builder.and_(ticket, _WORD(MOST_TASKS))


def _from_the_end(builder, ticket):
    """The number of tasks that were taken from the end."""
    return builder.lshr(ticket, _WORD(MOST_TASKS.bit_length()))


def _are_shared(builder, count):
    """Whether there are several tasks, and no more than a ticket has room for."""
    others = builder.sub(count, _WORD(1))
    return builder.and_(
        builder.icmp_signed(">", others, _WORD(0)),
        builder.icmp_signed("<", others, _WORD(MOST_TASKS)),
    )


def _take(builder, pool):
    """Whether the pool, if there is one, could be taken for this thread's loops."""
    taken = cgutils.alloca_once_value(builder, ir.IntType(1)(0))
    with builder.if_then(builder.icmp_unsigned("!=", pool, _WORD(0))):
        busy = _word(builder, pool, BUSY)
        swapped = builder.cmpxchg(busy, _WORD(0), _WORD(1), "acq_rel", "acquire")
        builder.store(builder.extract_value(swapped, 1), taken)
    return builder.load(taken)


def _release(builder, pool):
    _write(builder, pool, BUSY, _WORD(0))


def _run_together(builder, pool, count, task, command):
    _publish(builder, pool, count, builder.ptrtoint(task, _WORD), builder.ptrtoint(command, _WORD))
    _take_tasks(builder, pool)
    _await_the_others(builder, pool, pool)


def _publish(builder, slot, count, task, command):
    """Offer the tasks of a command in a slot whose loop before has ended. All are numbers."""
    _write(builder, slot, TASK, task)
    _write(builder, slot, ARGUMENTS, command)
    _write(builder, slot, SIZE, count)
    _write(builder, slot, FINISHED, _WORD(0))
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
    builder.cbranch(builder.icmp_unsigned("==", left, _WORD(0)), done, take)

    builder.position_at_end(take)
    swapped = builder.cmpxchg(
        _word(builder, slot, TICKET),
        ticket,
        builder.add(ticket, _WORD(MOST_TASKS if last else -1)),  # one less is left
        "acq_rel",
        "acquire",
    )
    builder.cbranch(builder.extract_value(swapped, 1), run, look)

    # A ticket of an earlier loop may be the same as this one's. It is this one's task that is
    # taken: its loop cannot end before, so what is read here belongs to it.
    builder.position_at_end(run)
    task = builder.inttoptr(_read(builder, slot, TASK), _RUNS)
    arguments = builder.inttoptr(_read(builder, slot, ARGUMENTS), _BYTES)
    size, taken = _read(builder, slot, SIZE), _from_the_end(builder, ticket)
    number = builder.sub(builder.sub(size, _WORD(1)), taken)
    if not last:
        number = builder.sub(builder.sub(size, left), taken)
    builder.call(task, [arguments, number])
    # The atomic operation also orders non-temporal stores before what follows.
    builder.atomic_rmw("add", _word(builder, slot, FINISHED), _WORD(1), "acq_rel")
    builder.branch(done)

    builder.position_at_end(done)
    was_there = builder.phi(_BIT)
    was_there.add_incoming(_BIT(0), look)
    was_there.add_incoming(_BIT(1), run)
    return was_there


def _take_a_task_in_the_background(builder, pool):
    """Run a task of the pool's other slots, if one is left. Returns whether there was one.

    It is a function, for every loop is compiled with a call of it.
    """
    name = "task_in_the_background"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(_BIT, [_WORD]), name)
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block())
        for number in range(1, SLOTS):
            slot = inner.add(function.args[0], _WORD(8 * SLOT_WORDS * number))
            with inner.if_then(_take_a_task(inner, slot, False)):
                inner.ret(_BIT(1))
        inner.ret(_BIT(0))
    return builder.call(function, [pool])


def _await_the_others(builder, pool, slot):
    """Wait until all tasks of a slot are done. Meanwhile, take others in the background.

    A thread that has one may lack a processor: make room.
    """
    looks = cgutils.alloca_once(builder, _WORD)
    builder.store(_WORD(0), looks)
    names = "wait", "again", "elsewhere", "nothing", "long", "over"
    wait, again, elsewhere, nothing, long, over = map(builder.append_basic_block, names)
    builder.branch(wait)

    builder.position_at_end(wait)
    finished, count = _read(builder, slot, FINISHED), _read(builder, slot, SIZE)
    builder.cbranch(builder.icmp_unsigned("==", finished, count), over, again)

    builder.position_at_end(again)
    _pause(builder)
    seen = builder.add(builder.load(looks), _WORD(1))
    builder.store(seen, looks)
    builder.cbranch(builder.icmp_unsigned("<", seen, _WORD(_SOON)), wait, elsewhere)

    builder.position_at_end(elsewhere)
    took = _take_a_task_in_the_background(builder, pool)
    builder.cbranch(took, wait, nothing)

    builder.position_at_end(nothing)
    seen = builder.load(looks)
    builder.cbranch(builder.icmp_unsigned("<", seen, _WORD(_PATIENCE // 20)), wait, long)

    builder.position_at_end(long)
    _yield(builder)
    builder.branch(wait)

    builder.position_at_end(over)


@intrinsic
def publish(typingctx, slot, command):
    """Offer the tasks of the command at an address, in a slot in the background."""

    def generate(context, builder, own, values):
        slot, command = values
        count, task = (
            builder.load(_command_word(builder, command, word))
            for word in (COMMAND_COUNT, COMMAND_TASK)
        )
        _publish(builder, slot, count, task, command)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


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
        looks = cgutils.alloca_once_value(builder, _WORD(0))
        names = "watch", "elsewhere", "idle", "worked", "leave"
        look, elsewhere, idle, worked, leave = map(builder.append_basic_block, names)
        builder.branch(look)

        builder.position_at_end(look)
        builder.cbranch(_take_a_task(builder, pool, True), worked, elsewhere)

        builder.position_at_end(elsewhere)
        builder.cbranch(_take_a_task_in_the_background(builder, pool), worked, idle)

        builder.position_at_end(worked)
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
