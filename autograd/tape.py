"""The tape: it records operations, and plays them back to compute gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, NamedTuple

from autograd.backend import Array, Backend, array_module, backend_of, ordinary
from autograd.tensor import Parameter, Tensor
from autograd.writers import LateWriters, WithSum, parted

_running: ContextVar[Tape | None] = ContextVar("tape", default=None)


def running_tape() -> Tape | None:
    """The tape that is recording in this context, if any. Threads do not share it."""
    return _running.get()


class Value(NamedTuple):
    """What the tape keeps of a Tensor: enough to allocate a gradient, but not its value."""

    serial: int
    shape: tuple[int, ...]
    dtype: Any
    backend: Backend


class Node(NamedTuple):
    """One recorded operation.

    `inputs` has an entry for each positional argument, None for a constant. `vjp` maps the gradient
    of the output to those of the inputs. With `several` outputs it takes a tuple of gradients, with
    0.0 for each output that was not used.
    """

    name: str
    vjp: Callable[[Any], Any]
    inputs: tuple[Parameter | Value | None, ...]
    outputs: tuple[Value, ...]
    several: bool


class Tape:
    """Records operations inside a `with`, and plays them back once to compute gradients.

        with Tape() as tape:
            loss = model.loss(batch)
        tape.backward(loss)            # sets .grad of every Parameter that loss depends on

    The order of recording is a topological order, so playing back pops the last node, calls its
    `vjp` and drops it, which frees what only that node held. Second derivatives are not supported:
    what a `vjp` computes is not recorded. A Tensor that was computed on another tape, or on none,
    is a leaf. Values must not change between recording and the end of playing back, since gradients
    are computed from them.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._produced: dict[int, Value] = {}  # this tape's outputs, by serial number
        self._token: Token[Tape | None] | None = None
        self._state = "new"

    def __enter__(self) -> Tape:
        if self._state != "new":
            raise RuntimeError("this tape has been used already; make a new Tape() for each pass")
        self._state = "recording"
        self._token = _running.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _running.reset(self._token)
        self._state = "recorded"
        if kind is not None:
            self._empty()

    def __len__(self) -> int:
        """The number of operations on the tape."""
        return len(self._nodes)

    def longest_chain(self) -> int:
        """The most operations on the tape of which each needs a result of the one before.

        However many processors there are, they must run one after another. A recurrence over n
        tokens has a chain of at least n operations, attention to n tokens a single one.
        """
        chains: dict[int, int] = {}  # the longest chain up to each value, by its serial number
        for node in self._nodes:
            before = (chains.get(source.serial, 0) for source in node.inputs if source is not None)
            chain = 1 + max(before, default=0)
            chains.update((out.serial, chain) for out in node.outputs)
        return max(chains.values(), default=0)

    def record(
        self,
        name: str,
        arguments: Sequence[Any],
        outputs: Sequence[Tensor],
        vjp: Callable[[Any], Any],
        several: bool,
    ) -> None:
        """Record an operation: its arguments, its outputs and its gradient function."""
        produced = self._produced
        inputs: list[Parameter | Value | None] = []
        for a in arguments:
            if isinstance(a, Parameter):
                inputs.append(a)
            elif isinstance(a, Tensor):
                inputs.append(produced.get(a.serial) or _remember(a))
            else:
                inputs.append(None)
        made = tuple(map(_remember, outputs))
        for value in made:
            produced[value.serial] = value
        self._nodes.append(Node(name, vjp, tuple(inputs), made, several))

    def backward(
        self,
        output: Tensor,
        gradient: Array | None = None,
        *,
        wanted: Sequence[Tensor] = (),
        accumulate: bool = False,
        completed: Callable[[Parameter], None] | None = None,
    ) -> list[Array]:
        """Compute the gradient of `output` with respect to every Parameter that it depends on.

        Writes each Parameter's `.grad`, or adds to it with `accumulate`. `gradient` is the gradient
        of `output`; it may be left out if `output` is a single number. Returns the gradients of
        `wanted`, in order, each in a separate array: zeros for a Tensor that `output` does not
        depend on, and for a Parameter the gradient of this pass alone, even with `accumulate`. The
        tape is empty afterwards, also after an error, so it can be played back only once.

        `completed` is called with each Parameter as soon as nothing more will be added to its
        `.grad`, while the gradients of others are still being computed, of which some may depend on
        its value; never with one that `output` does not depend on.

        Gradients are written as they are computed, since holding them back would take as much
        memory as all Parameters again. If an operation's gradient raises an exception, each `.grad`
        therefore has all, a part or nothing of this pass, and what was accumulated before is lost:
        start again with a pass that does not `accumulate`.
        """
        if not (isinstance(output, Tensor) and _are_tensors(wanted)):
            raise TypeError("backward takes a Tensor, and in `wanted` a list of Tensors")
        if self._state != "recorded":
            reason = "still recording; leave its `with` first"
            if self._state != "recording":
                reason = "empty or played back already; make a new Tape() for each pass"
            raise RuntimeError(f"this tape is {reason}")
        try:
            if output.serial not in self._produced:
                raise ValueError("the output was not computed on this tape from any Tensor")
            # The dictionary has the only reference, so that a gradient is freed once it is used.
            gradients = {output.serial: _first_gradient(output, gradient)}
            return self._play_back(gradients, wanted, accumulate, completed)
        finally:
            self._empty()

    def _play_back(
        self,
        gradients: dict[int, Array],
        wanted: Sequence[Tensor],
        accumulate: bool,
        completed: Callable[[Parameter], None] | None,
    ) -> list[Array]:
        asked = {t.serial for t in wanted}
        completing = self._first_uses() if completed else {}
        collected: dict[int, Array] = {}
        written: dict[int, Parameter] = {}

        with LateWriters() as late:
            while self._nodes:
                node = self._nodes.pop()
                reached = [out.serial for out in node.outputs if out.serial in gradients]
                if reached:
                    collected.update(
                        (s, _alone(gradients, s).copy()) for s in reached if s in asked
                    )
                    for source, g in zip(node.inputs, _results(node, gradients), strict=True):
                        if isinstance(source, Parameter):
                            if source.serial in asked:
                                _collect(g, source, collected, node.name)
                            else:
                                add = source.serial in written or (
                                    accumulate and source.grad is not None
                                )
                                _give(g, source, add, late, node.name)
                            written[source.serial] = source
                        elif source is not None and (
                            source.serial in self._produced or source.serial in asked
                        ):
                            _keep(g, source, gradients, node.name)
                    del g
                del node  # with g, this frees what only this operation held
                if completed:
                    for p in completing.get(len(self._nodes), ()):
                        if p.serial in written and p.serial not in asked:
                            late.settle(p)
                            completed(p)

        for serial in asked & written.keys():
            p = written[serial]
            add = accumulate and p.grad is not None
            _deliver(collected[serial], p.gradient_store(), add, "a Parameter")
            if completed:
                completed(p)
        _clear_untouched(written, accumulate)
        collected.update((s, _alone(gradients, s)) for s in asked if s in gradients)
        return _in_order(collected, wanted)

    def _first_uses(self) -> dict[int, list[Parameter]]:
        """Parameters by the number of the operation that took them first.

        Played back, it is the last that adds to their gradients.
        """
        seen: set[int] = set()
        uses: dict[int, list[Parameter]] = {}
        for number, node in enumerate(self._nodes):
            for source in node.inputs:
                if isinstance(source, Parameter) and source.serial not in seen:
                    seen.add(source.serial)
                    uses.setdefault(number, []).append(source)
        return uses

    def _empty(self) -> None:
        self._nodes.clear()
        self._produced.clear()
        self._state = "played back"


def _are_tensors(wanted: Any) -> bool:
    return isinstance(wanted, list | tuple) and all(isinstance(t, Tensor) for t in wanted)


def _remember(t: Tensor) -> Value:
    value = t.value
    return Value(t.serial, value.shape, value.dtype, backend_of(value))


def _first_gradient(output: Tensor, gradient: Any) -> Array:
    """The gradient of the output, in an array that the playback may overwrite."""
    if gradient is None:
        if output.size != 1:
            raise ValueError(
                f"the output has shape {output.shape}: give its gradient, or reduce it to one "
                "number first"
            )
        return array_module(output.value).ones_like(output.value)
    gradient = ordinary(backend_of(output.value).asarray(gradient, output.dtype))
    if gradient.shape != output.shape:
        raise ValueError(f"a gradient of shape {gradient.shape} for an output of {output.shape}")
    return gradient.copy()


def _results(node: Node, gradients: dict[int, Array]) -> Sequence[Any]:
    """The gradient of each argument of an operation, whose outputs' gradients are used up."""
    if node.several:
        results = node.vjp(tuple(parted(gradients.pop(out.serial, 0.0))[0] for out in node.outputs))
    else:
        serial = node.outputs[0].serial
        if not hasattr(node.vjp, "takes_sum"):
            _alone(gradients, serial)
        results = node.vjp(gradients.pop(serial))
    if len(node.inputs) == 1:
        return (results,)
    if len(results) != len(node.inputs):
        raise RuntimeError(
            f"the gradient of {node.name} returned {len(results)} values for "
            f"{len(node.inputs)} arguments"
        )
    return results


def _keep(g: Any, source: Value, gradients: dict[int, Array], name: str) -> None:
    """Keep the gradient `g` of an intermediate value until its operation is reached.

    A separate function, so that no local variable of the playback keeps a gradient alive.
    """
    if source.serial in gradients:
        _deliver(g, _alone(gradients, source.serial), True, name)
    elif isinstance(g, WithSum) and _is_whole(g.gradient, source):
        gradients[source.serial] = g
    elif callable(g):
        out = source.backend.empty(source.shape, source.dtype)
        g(out, False)
        gradients[source.serial] = out
    else:
        # 0-d arithmetic returns immutable scalars, and constants of another dtype promote.
        gradients[source.serial] = source.backend.xp.asarray(
            unbroadcast(parted(g)[0], source.shape, name), source.dtype
        )


def _is_whole(g: Array, source: Value) -> bool:
    """Whether a gradient needs neither summing nor converting."""
    return tuple(g.shape) == source.shape and g.dtype == source.dtype


def _alone(gradients: dict[int, Any], serial: int) -> Array:
    """The gradient of a value, from now on without the sum that may have come with it."""
    g = gradients[serial] = parted(gradients[serial])[0]
    return g


def _collect(g: Any, p: Parameter, collected: dict[int, Array], name: str) -> None:
    """Add to the gradient of a wanted Parameter, in a separate array."""
    add = p.serial in collected
    if not add:
        collected[p.serial] = array_module(p.master).empty_like(p.master)
    _deliver(g, collected[p.serial], add, name)


def _in_order(collected: dict[int, Array], wanted: Sequence[Tensor]) -> list[Array]:
    """The gradient of each wanted Tensor, with a copy for one that is named again."""
    seen: set[int] = set()
    gradients = []
    for t in wanted:
        g = collected.get(t.serial)
        if g is None:
            like = t.master if isinstance(t, Parameter) else t.value
            gradients.append(array_module(like).zeros_like(like))
        else:
            gradients.append(g.copy() if t.serial in seen else g)
            seen.add(t.serial)
    return gradients


def _give(g: Any, p: Parameter, add: bool, late: LateWriters, name: str) -> None:
    """Write the gradient `g` of a Parameter, or add it, now or later."""
    late.settle(p)
    out = p.gradient_store()
    if not late.put(g, p, out, add):
        _deliver(g, out, add, name)


def _deliver(g: Any, out: Array, add: bool, name: str) -> None:
    """Write the gradient `g`, in any of its forms, to `out`, or add it to `out`."""
    if callable(g):
        g(out, add)
        return
    g = unbroadcast(parted(g)[0], tuple(out.shape), name)
    if add:
        backend_of(out).add_to(out, g)
    else:
        out[...] = g


def unbroadcast(g: Array, shape: tuple[int, ...], name: str = "an operation") -> Array:
    """Sum a gradient over the axes along which its argument, of `shape`, was broadcast."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    if extra >= 0:
        axes = tuple(range(extra)) + tuple(
            extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i] != 1
        )
        reduced = g.sum(axis=axes, keepdims=True)
        reduced = reduced.reshape(reduced.shape[extra:])
        if reduced.shape == shape:
            return reduced
    raise RuntimeError(
        f"the gradient of {name} has shape {g.shape} for an argument of shape {shape}"
    )


def _clear_untouched(written: dict[int, Parameter], accumulate: bool) -> None:
    """Zero the gradients of unused Parameters that share a buffer with a used one.

    An optimizer updates whole buffers, so a gradient left from an earlier step would count.
    """
    if accumulate:
        return
    for buffer in {p.buffer for p in written.values() if p.buffer is not None}:
        for p in buffer.parameters.values():
            if p.serial not in written and p.grad is not None:
                p.grad[...] = 0
