"""How the layers of a model declare their parameters.

    class Linear:
        def __init__(self, scope: Scope, d_in: int, d_out: int) -> None:
            self.weight = scope.parameter("weight", (d_in, d_out), glorot_uniform)
            self.bias = scope.parameter("bias", (d_out,), zeros)

    scope = Scope()
    inner = Linear(scope / "inner", 512, 2048)  # inner.weight and inner.bias
    buffer = scope.allocate(seed=0)  # allocates and initialises all of them

A parameter's initial values depend on the seed and its name, and dropout masks on the name of the
dropout. So a change to one part of a model leaves the initial values and masks of the others alone.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from autograd import DropoutSite, DropoutStream, Parameter, ParameterBuffer
from npformer.errors import UserError

Shape = tuple[int, ...]
Initial = Callable[[np.random.Generator, Shape], np.ndarray]
Axis = Literal["columns", "rows"]

_LARGEST = 1 << 45  # elements of a parameter: more than any machine has memory for
_UNALLOCATED = np.full(1, np.nan, np.float32)  # what parameters hold before they have memory
_UNALLOCATED.flags.writeable = False
_OVERHEAD_BYTES = 1 << 10  # per parameter, for alignment, name and Python objects


def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """The initial value of biases."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """The initial value of the gains of norms."""
    return np.ones(shape)


def normal(deviation: float) -> Initial:
    """Normal distribution with mean 0 and this standard deviation."""
    return lambda rng, shape: rng.standard_normal(shape) * deviation


def glorot_uniform(rng: np.random.Generator, shape: Shape, gain: float = 1.0) -> np.ndarray:
    """Uniform in ± gain · √(6 / (d_in + d_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(shape))
    return rng.uniform(-bound, bound, shape)


class _Declaration(NamedTuple):
    parameter: Parameter
    initial: Initial
    float32: bool
    int8: Axis | None


class Scope:
    """The name of a part of a model, under which it declares its parameters and dropout.

    `Scope()` is the model; `scope / "inner"` is a part of the part `scope`.
    """

    def __init__(self) -> None:
        self.name = ""
        # Of the whole model:
        self._declared: dict[str, _Declaration] = {}
        self._dropouts: dict[int, str] = {}

    def __truediv__(self, part: str | int) -> Scope:
        inner = Scope()
        inner.name = self._full_name(str(part))
        inner._declared, inner._dropouts = self._declared, self._dropouts
        return inner

    def _full_name(self, name: str) -> str:
        return ".".join(part for part in (self.name, name) if part)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """All parameters declared so far in the whole model, by name."""
        return {name: declared.parameter for name, declared in self._declared.items()}

    @property
    def in_8_bits(self) -> dict[str, Axis]:
        """The parameters that can be held in 8 bits, and what has a scale each."""
        axes = {name: declared.int8 for name, declared in self._declared.items()}
        return {name: axis for name, axis in axes.items() if axis is not None}

    def parameter(
        self,
        name: str,
        shape: Shape,
        initial: Initial,
        *,
        float32: bool = False,
        int8: Axis | None = None,
    ) -> Parameter:
        """Declare a parameter of this part. With the name "", it has the part's own name.

        It has no memory until `allocate`, and must not be used in computations before. With
        `float32`, it stays float32 when the model computes in bfloat16. With `int8`, a matrix may
        be held in 8 bits, with a scale for each of its columns or rows, for it is only the weight
        of operations that take an `Int8Matrix`: `linear` with the one, `embedding` with the other.
        Raises ValueError if the name is taken, and UserError if no machine has memory for it.
        """
        full_name = self._full_name(name)
        if full_name in self._declared:
            raise ValueError(f"there are two parameters called {full_name}")
        if math.prod(shape) > _LARGEST:
            raise UserError(
                f"no machine has memory for the parameter {full_name} {list(shape)}; lower "
                "model.d_model, model.d_ff or model.heads"
            )
        no_memory = np.ndarray(shape, np.float32, _UNALLOCATED, strides=(0,) * len(shape))
        parameter = Parameter(no_memory)
        self._declared[full_name] = _Declaration(parameter, initial, float32, int8)
        return parameter

    def dropout(self, name: str, rate: float) -> Dropout:
        """Declare a dropout of this part. Raises ValueError if the name is taken."""
        full_name = self._full_name(name)
        dropout = Dropout(full_name, rate)
        if dropout.number in self._dropouts:
            other = self._dropouts[dropout.number]
            raise ValueError(f"dropouts {other} and {full_name} have the same masks; rename one")
        self._dropouts[dropout.number] = full_name
        return dropout

    def allocate(self, seed: int, dtype: Any = np.float32) -> ParameterBuffer:
        """Allocate all declared parameters in one buffer, and initialise them.

        Raises UserError if they need more memory than the machine has.
        """
        parameters = self.parameters
        # Twice: the buffer, and the values that are being drawn.
        check_memory(parameters, copies=2, purpose="its parameters alone")
        float32 = [name for name, declared in self._declared.items() if declared.float32]
        buffer = ParameterBuffer(parameters, dtype, float32)
        for name, (parameter, initial, *_) in self._declared.items():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            values = initial(rng, parameter.shape)
            if values.shape != parameter.shape:
                raise ValueError(
                    f"{name} has shape {parameter.shape}, and its initial values {values.shape}"
                )
            parameter.assign(values.astype(np.float32))  # float64 models start from the same values
        return buffer


class Dropout:
    """A dropout in a model, with its rate. Its masks depend on its name."""

    def __init__(self, name: str, rate: float) -> None:
        self.number = zlib.crc32(name.encode())
        self.rate = rate

    def site(self, stream: DropoutStream | None) -> DropoutSite | None:
        """What a dropout operation takes in this training step; None without a stream."""
        return stream.site(self.number, self.rate) if stream else None


def check_memory(parameters: Mapping[str, Parameter], copies: int, purpose: str) -> None:
    """Raise UserError if `copies` of the parameters in float32 exceed the machine's memory.

    The system may grant such an allocation and kill the process when it is used. `purpose` says
    in the message what needs the memory.
    """
    total = sum(p.size for p in parameters.values())
    needed = 4 * copies * total + _OVERHEAD_BYTES * len(parameters)
    if needed > (memory := _memory()):
        name, largest = max(parameters.items(), key=lambda item: item[1].size)
        raise UserError(
            f"a model of {total:,} parameters (the largest is {name} {list(largest.shape)}) needs "
            f"{needed / 2**30:,.1f} GiB for {purpose}, and this machine has "
            f"{memory / 2**30:,.1f} GiB; lower model.layers, model.d_model or model.d_ff"
        )


def _memory() -> int:
    """The machine's memory in bytes, or 128 TiB if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not POSIX
        return 1 << 47
