"""One training step of a small model, recorded: what each operation took and gave.

The sizes are all different, so that a shape can be read back in words: [23, 10] is
[target tokens, d_model].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autograd import Parameter, Tape, Tensor, ops, references, watching
from autograd.backend import Array
from autograd.operation import Op
from npformer import Batch, Transformer, TransformerConfig

CONFIG = TransformerConfig(vocab_size=97, layers=1, d_model=10, d_ff=32, heads=3, d_k=7, d_v=4)
SOURCES = [list(range(3, 11)), list(range(11, 20))]  # token ids, without the ends
TARGETS = [list(range(20, 30)), list(range(30, 41))]

_H, _K, _V = CONFIG.heads, CONFIG.d_k or 0, CONFIG.d_v or 0
SIZES = {
    sum(len(ids) + 1 for ids in SOURCES): "source tokens",
    sum(len(ids) + 1 for ids in TARGETS): "target tokens",
    CONFIG.vocab_size: "vocabulary",
    CONFIG.d_model: "d_model",
    CONFIG.d_ff: "d_ff",
    _H * _K: "h·d_k",
    _H * _V: "h·d_v",
    _H * (_K + _V): "h·(d_k+d_v)",
    _H * (_K + _K + _V): "h·(2d_k+d_v)",
}


def named(shape: Sequence[int]) -> str:
    """A shape in words. LookupError where a size has no name."""
    unknown = [size for size in shape if size not in SIZES]
    if unknown:
        raise LookupError(f"a size of {unknown[0]} has no name in docs/draw/recorded.py")
    return f"[{', '.join(SIZES[size] for size in shape)}]" if len(shape) else "a number"


@dataclass(frozen=True, eq=False)
class Operation:
    """One that was recorded: its arguments (None for a constant), its settings, its results."""

    name: str
    arguments: tuple[Tensor | None, ...]
    settings: dict[str, Any]
    results: tuple[Tensor, ...]

    @property
    def parameters(self) -> list[Parameter]:
        return [a for a in self.arguments if isinstance(a, Parameter)]

    @property
    def inputs(self) -> list[Tensor]:
        """The arguments that another operation computed."""
        return [a for a in self.arguments if a is not None and not isinstance(a, Parameter)]


class Recorder(Tape):
    """A tape that says what it records."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[tuple[str, tuple[Tensor | None, ...], tuple[Tensor, ...]]] = []

    def record(
        self,
        name: str,
        arguments: Sequence[Any],
        outputs: Sequence[Tensor],
        vjp: Callable[[Any], Any],
        several: bool,
    ) -> None:
        tensors = tuple(a if isinstance(a, Tensor) else None for a in arguments)
        self.recorded.append((name, tensors, tuple(outputs)))
        super().record(name, arguments, outputs, vjp, several)


@dataclass(frozen=True, eq=False)
class Step:
    """What happened in the step.

    Its operations in order; the model's parameters, and their names by serial number; the logits,
    which no operation gives to another; the gradient of every result, by serial number.
    """

    operations: list[Operation]
    parameters: dict[str, Parameter]
    names: dict[int, str]
    logits: Tensor
    gradients: dict[int, Array]


def step() -> Step:
    """Forward and back through the model."""
    model = Transformer(CONFIG, seed=0)
    batch = Batch.of(SOURCES, TARGETS, begin_id=1, end_id=2)
    every = [kernel for name in ops.__all__ if isinstance(kernel := getattr(ops, name), Op)]
    tape = Recorder()
    with references():
        with watching(*every) as calls, tape:
            loss = model.loss(batch)
        results = [result for _, _, results in tape.recorded for result in results]
        gradients = tape.backward(loss, wanted=results)
        logits = model.logits(batch)
    settings = {kernel.name: iter(found) for kernel, found in calls.items()}
    operations = [
        Operation(name, arguments, next(settings[name])[1], results)
        for name, arguments, results in tape.recorded
    ]
    parameters = model.parameters()
    return Step(
        operations,
        parameters,
        {p.serial: name for name, p in parameters.items()},
        logits,
        {result.serial: g for result, g in zip(results, gradients, strict=True)},
    )
