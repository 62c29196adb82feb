"""The layers of Table 1: what the paper says of each, and what one forward and backward pass costs.

Operations are counted by the code that runs, sequential operations by the tape, and the longest
path between positions from which inputs the gradient of each output reaches.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autograd import Parameter, Sentences, Tape, Tensor, count_flops, ops
from autograd.flops import SUMS


class Size(NamedTuple):
    """n: positions; d: width; k: kernel; r: positions of a window; heads: of attention."""

    n: int
    d: int
    k: int
    r: int
    heads: int


class Inputs:
    """Random inputs and parameters of a layer, float32."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def tokens(self, n: int, columns: int) -> Tensor:
        return Tensor(self.rng.standard_normal((n, columns), dtype=np.float32))

    def weight(self, *shape: int) -> Parameter:
        """With a fan-in that is the product of all axes but the last."""
        scale = np.prod(shape[:-1]) ** -0.5
        return Parameter(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def bias(self, d: int) -> Parameter:
        return Parameter(np.zeros(d, np.float32))


# From inputs and a size: the number of columns of x, and the layer as a function of x.
Function = Callable[[Tensor, Sentences], Tensor]
Make = Callable[[Inputs, Size], tuple[int, Function]]


def _attention(window: bool) -> Make:
    def make(inputs: Inputs, size: Size) -> tuple[int, Function]:
        """softmax(QKᵀ/√d_k) V alone, of Q‖K‖V that are given."""
        shape = {"heads": size.heads, "d_k": size.d // size.heads}
        reach = {"window": size.r if window else None}

        def layer(x: Tensor, sentences: Sentences) -> Tensor:
            y: Tensor = ops.attention(x, sentences=sentences, **shape, **reach)
            return y

        return 3 * size.d, layer

    return make


def _with_projections(inputs: Inputs, size: Size) -> tuple[int, Function]:
    _, attention = _attention(window=False)(inputs, size)
    qkv, output = inputs.weight(size.d, 3 * size.d), inputs.weight(size.d, size.d)

    def layer(x: Tensor, sentences: Sentences) -> Tensor:
        y: Tensor = ops.linear(attention(ops.linear(x, qkv), sentences), output)
        return y

    return size.d, layer


def _recurrent(inputs: Inputs, size: Size) -> tuple[int, Function]:
    w, u, b = inputs.weight(size.d, size.d), inputs.weight(size.d, size.d), inputs.bias(size.d)
    return size.d, lambda x, sentences: ops.recurrence(x, w, u, b, sentences=sentences)


def _recurrent_step(inputs: Inputs, size: Size) -> tuple[int, Function]:
    """One step at all positions at once: each state from its own x and the state before it."""
    w, u, b = inputs.weight(size.d, size.d), inputs.weight(size.d, size.d), inputs.bias(size.d)

    def layer(x: Tensor, sentences: Sentences) -> Tensor:
        before = np.arange(len(x)) - 1
        begins = sentences.offsets[:-1]
        before[begins] = begins
        is_first = np.isin(np.arange(len(x)), begins)[:, None]
        h = ops.where(is_first, 0.0, x[before])
        y: Tensor = ops.recurrent_step(h, ops.linear(x, w, b), u)
        return y

    return size.d, layer


def _convolution(dilation: int) -> Make:
    def make(inputs: Inputs, size: Size) -> tuple[int, Function]:
        w, b = inputs.weight(size.k, size.d, size.d), inputs.bias(size.d)

        def layer(x: Tensor, sentences: Sentences) -> Tensor:
            y: Tensor = ops.convolution(x, w, b, sentences=sentences, dilation=dilation)
            return y

        return size.d, layer

    return make


def _separable(inputs: Inputs, size: Size) -> tuple[int, Function]:
    depthwise, pointwise = inputs.weight(size.k, size.d), inputs.weight(size.d, size.d)
    b = inputs.bias(size.d)
    return size.d, lambda x, sentences: ops.separable_convolution(
        x, depthwise, pointwise, b, sentences=sentences
    )


@dataclass(frozen=True)
class Layer:
    """A row of the table.

    Attributes:
        name: as the page has it
        complexity, sequential, path: what the paper says
        formula: the paper's complexity as a number
        variables: what the complexity depends on
        make: the layer
    """

    name: str
    complexity: str
    sequential: str
    path: str
    formula: Callable[[Size], float]
    variables: str
    make: Make


ATTENTION = Layer(
    "self-attention", "n² d", "1", "1", lambda s: s.n**2 * s.d, "nd", _attention(window=False)
)
PROJECTED = Layer(
    "self-attention with projections",
    "n² d + n d²",
    "1",
    "1",
    lambda s: s.n**2 * s.d + 2 * s.n * s.d**2,  # four projections, and two products of attention
    "nd",
    _with_projections,
)
RECURRENT = Layer("recurrent", "n d²", "n", "n", lambda s: s.n * s.d**2, "nd", _recurrent)
CONVOLUTION = Layer(
    "convolution", "k n d²", "1", "n / k", lambda s: s.k * s.n * s.d**2, "ndk", _convolution(1)
)
SEPARABLE = Layer(
    "separable convolution",
    "k n d + n d²",
    "1",
    "n / k",
    lambda s: s.k * s.n * s.d + s.n * s.d**2,
    "ndk",
    _separable,
)
RESTRICTED = Layer(
    "restricted self-attention",
    "r n d",
    "1",
    "n / r",
    lambda s: s.r * s.n * s.d,
    "ndr",
    _attention(window=True),
)
LAYERS = (ATTENTION, PROJECTED, RECURRENT, CONVOLUTION, SEPARABLE, RESTRICTED)

DILATED = "dilated convolutions"


def _dilated(size: Size) -> list[Make]:
    """Convolutions with dilations that grow k-fold from layer to layer, and shrink again.

    Without the second half, many paths would lead over the ends of a sentence.
    """
    dilations = [1]
    while dilations[-1] * size.k < size.n:
        dilations.append(dilations[-1] * size.k)
    return [_convolution(dilation) for dilation in [*dilations, *dilations[-2:0:-1]]]


STACKS: dict[str, Callable[[Size], list[Make]]] = {
    ATTENTION.name: lambda _: [_with_projections],
    RECURRENT.name: lambda _: [_recurrent_step],
    CONVOLUTION.name: lambda _: [CONVOLUTION.make],
    SEPARABLE.name: lambda _: [SEPARABLE.make],
    RESTRICTED.name: lambda _: [RESTRICTED.make],
    DILATED: _dilated,
}
"""The layers that a path leads through, again and again; of a recurrent layer, its step."""


def cost(layer: Layer, size: Size, timed: float, seed: int) -> dict[str, Any]:
    """What a forward and a backward pass over a sentence costs.

    forward, backward: floating-point operations, sums of gradients included; steps: the longest
    chain of operations of the forward pass; seconds: of the fastest of the passes that fit into
    `timed` seconds, of at least one; bytes: the most memory at a time, without parameters and the
    input.
    """
    inputs, sentences = Inputs(seed), Sentences([size.n])
    columns, function = layer.make(inputs, size)
    x, dy = inputs.tokens(size.n, columns), inputs.tokens(size.n, size.d).value

    def run() -> int:
        with Tape() as tape:
            y = function(x, sentences)
        chain = tape.longest_chain()
        tape.backward(y, dy, wanted=[x])
        return chain

    with count_flops() as flops:
        steps = run()
    run()  # compiles loops, and plans what the sentence needs
    seconds: list[float] = []
    while not seconds or sum(seconds) < timed:
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return {
        "forward": flops.forward.total(),
        "backward": flops.backward.total(),
        "sums of gradients": flops.backward[SUMS],
        "steps": steps,
        "seconds": min(seconds),
        "bytes": _peak(run),
    }


def _peak(run: Callable[[], object]) -> int:
    """The most bytes that a call has allocated at a time."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


def path_length(stack: list[Make], size: Size, seed: int) -> int:
    """How many layers it takes until no further one lets an output depend on more inputs.

    stack: one after another, and then from the first again.
    """
    layers = [dependence(make, size, seed).astype(int) for make in stack]
    reached = np.eye(size.n, dtype=bool)
    length = needed = 0
    while length < needed + len(layers):  # until a whole round adds nothing
        further = layers[length % len(layers)] @ reached > 0
        length += 1
        if (further != reached).any():
            reached, needed = further, length
    return needed


def dependence(make: Make, size: Size, seed: int) -> NDArray[np.bool_]:
    """Which outputs depend on which inputs, [n, n]: where the layer's Jacobian is not zero.

    A batch has the sentence n times, and the gradient of another position in each.
    """
    inputs, sentences = Inputs(seed), Sentences([size.n] * size.n)
    columns, function = make(inputs, size)
    one = inputs.tokens(size.n, columns).value
    x = Tensor(np.tile(one, (size.n, 1)))
    dy = np.zeros((size.n, size.n, size.d), np.float32)
    dy[np.arange(size.n), np.arange(size.n)] = inputs.rng.standard_normal(size.d)
    with Tape() as tape:
        y = function(x, sentences)
    [dx] = tape.backward(y, dy.reshape(len(x), size.d), wanted=[x])
    found: NDArray[np.bool_] = dx.reshape(size.n, size.n, columns).any(axis=2)
    return found
