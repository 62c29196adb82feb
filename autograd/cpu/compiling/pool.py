"""Instructions that run a loop as a command, and play back several (autograd.cpu.pool)."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from autograd.cpu.compiling.slots import (
    BYTES,
    RUNS,
    WORD,
    are_shared,
    offer,
    release_pool,
    run_together,
    take_pool,
)
from autograd.cpu.pool import (
    COMMAND_ARGUMENTS,
    COMMAND_BYTES,
    COMMAND_CHAIN,
    COMMAND_COUNT,
    COMMAND_FAILED,
    COMMAND_TASK,
    MOST_BYTES,
    NOBODY,
)


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
        words = [builder.ptrtoint(task, WORD), count, WORD(0), WORD(0), WORD(1)]
        packed = _lent(context, builder, arguments, packed)
        command = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [*words, packed]))
        size = WORD(context.get_abi_sizeof(command.type.pointee))
        if size.constant > MOST_BYTES:
            raise ValueError(f"the arguments of a loop take {size.constant} bytes")
        builder.store(size, cgutils.gep_inbounds(builder, command, 0, COMMAND_BYTES))
        with builder.if_then(builder.icmp_unsigned("!=", record, WORD(0))):
            cgutils.raw_memcpy(builder, builder.inttoptr(record, BYTES), command, size, 1)
        shared = builder.bitcast(command, BYTES)
        with builder.if_then(builder.icmp_signed("!=", pool, WORD(NOBODY))):
            # In compiled code, where no signal can interrupt between taking and releasing the pool.
            taken = take_pool(builder, builder.select(are_shared(builder, count), pool, WORD(0)))
            with builder.if_else(taken) as (all_of_them, one):
                with all_of_them:
                    run_together(builder, pool, count, task, shared)
                    release_pool(builder, pool)
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
        failed = cgutils.alloca_once_value(builder, WORD(0))
        task = _task_of_a_chain(builder.module)
        taken = take_pool(builder, pool)
        names = "look", "chain", "command", "failed", "next", "done"
        look, chain, command, stop, go_on, done = map(builder.append_basic_block, names)
        builder.branch(look)

        builder.position_at_end(look)
        head = builder.load(at)
        builder.cbranch(builder.icmp_unsigned("<", head, end), chain, done)

        builder.position_at_end(chain)
        count = builder.load(_command_word(builder, head, COMMAND_COUNT))
        shared = builder.inttoptr(head, BYTES)
        shared_by_all = builder.and_(taken, are_shared(builder, count))
        with builder.if_else(shared_by_all) as (all_of_them, one):
            with all_of_them:
                run_together(builder, pool, count, task, shared)
            with one, cgutils.for_range(builder, count) as loop:
                builder.call(task, [shared, loop.index])
        left = builder.load(_command_word(builder, head, COMMAND_CHAIN))
        commands_left = cgutils.alloca_once(builder, WORD)
        builder.store(left, commands_left)
        builder.branch(command)

        # What failed, of the commands of the chain.
        builder.position_at_end(command)
        here = builder.load(at)
        has_failed = _command_word(builder, here, COMMAND_FAILED)
        builder.store(_after(builder, here), at)
        builder.store(builder.sub(builder.load(commands_left), WORD(1)), commands_left)
        is_error = builder.icmp_unsigned("!=", builder.load(has_failed), WORD(0))
        builder.cbranch(is_error, stop, go_on)

        builder.position_at_end(stop)
        builder.store(WORD(0), has_failed)
        with builder.if_then(builder.icmp_unsigned("==", builder.load(failed), WORD(0))):
            builder.store(here, failed)
        builder.branch(go_on)

        builder.position_at_end(go_on)
        is_last = builder.icmp_unsigned("==", builder.load(commands_left), WORD(0))
        with builder.if_then(builder.not_(is_last)):
            builder.branch(command)
        is_well = builder.icmp_unsigned("==", builder.load(failed), WORD(0))
        builder.cbranch(is_well, look, done)

        builder.position_at_end(done)
        with builder.if_then(taken):
            release_pool(builder, pool)
        return builder.load(failed)

    return types.intp(types.intp, types.intp, types.intp), generate


def _task_of_a_chain(module):
    """A C function task(command, number) that runs this task of all commands of a chain."""
    function = ir.Function(module, RUNS.pointee, module.get_unique_name("chain"))
    function.linkage = "internal"
    entry, run, done = map(function.append_basic_block, ("entry", "run", "done"))
    builder = ir.IRBuilder(entry)
    first = builder.ptrtoint(function.args[0], WORD)
    count = builder.load(_command_word(builder, first, COMMAND_CHAIN))
    builder.branch(run)

    builder.position_at_end(run)
    here, left = builder.phi(WORD), builder.phi(WORD)
    here.add_incoming(first, entry)
    left.add_incoming(count, entry)
    task = builder.inttoptr(builder.load(_command_word(builder, here, COMMAND_TASK)), RUNS)
    builder.call(task, [builder.inttoptr(here, BYTES), function.args[1]])
    here.add_incoming(_after(builder, here), run)
    fewer = builder.sub(left, WORD(1))
    left.add_incoming(fewer, run)
    builder.cbranch(builder.icmp_unsigned("==", fewer, WORD(0)), done, run)

    builder.position_at_end(done)
    builder.ret_void()
    return function


def _command_word(builder, command, number):
    """A pointer to a word of the command at an address."""
    return builder.inttoptr(builder.add(command, WORD(8 * number)), WORD.as_pointer())


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
    function = ir.Function(module, RUNS.pointee, name)
    function.linkage = "internal"
    inner = ir.IRBuilder(function.append_basic_block())
    words = [WORD] * COMMAND_ARGUMENTS
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
        inner.store(WORD(1), cgutils.gep_inbounds(inner, command, 0, COMMAND_FAILED))
    inner.ret_void()
    return function


@intrinsic
def publish(typingctx, slot, command):
    """Offer the tasks of the command at an address, in a slot in the background."""

    def generate(context, builder, own, values):
        slot, command = values
        count, task = (
            builder.load(_command_word(builder, command, word))
            for word in (COMMAND_COUNT, COMMAND_TASK)
        )
        offer(builder, slot, count, task, command)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate
