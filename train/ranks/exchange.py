"""Sums the flat gradients of all ranks in buckets, while the backward pass still runs.

The backward pass completes gradients about from the end of the buffer to its beginning, since
layers declare their parameters in the order of the forward pass. So the buffer is cut into buckets
from its end on, and a bucket is sent as soon as all gradients in it are complete. All ranks send
the buckets in this one order, as MPI and NCCL demand, even a rank that has no sentences.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Protocol

from autograd import Parameter, ParameterBuffer
from autograd.backend import Array

# Of 1 to 500 MB this left the least to wait for after the backward pass, with the base model on two
# ranks of one host, which send through shared memory.
BUCKET_BYTES = 16 << 20


class Request(Protocol):
    """A sum over ranks that is under way."""

    def wait(self) -> None:
        """Return when the array holds the sum, or on a GPU when later work on it will find it."""


class Transport(Protocol):
    """Sums arrays over all ranks."""

    def start_sum(self, array: Array) -> Request:
        """Begin to overwrite a contiguous array by its sum over all ranks; returns at once."""

    def poll(self) -> None:
        """Give sums that are under way a chance to proceed, where they need one."""


class BucketedExchange:
    """The exchange of one buffer's gradients; see `Exchange`. It serves for all steps.

    A bucket begins and ends anywhere, so that all but the last are equally large. A Parameter may
    be in several.
    """

    def __init__(
        self, buffer: ParameterBuffer, transport: Transport, bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        self._buffer, self._transport = buffer, transport
        self._grads = buffer.allocate_gradients()
        size, length = int(self._grads.size), bucket_bytes // self._grads.itemsize
        self._buckets = [self._grads[max(end - length, 0) : end] for end in range(size, 0, -length)]
        self._buckets_of = {  # by the Parameter's serial number
            buffer.parameters[name].serial: range(
                (size - span.stop) // length, -((span.start - size) // length)
            )
            for name, span in buffer.spans().items()
        }
        self._requests: list[Request] = []  # of the numbers, and of the buckets that were sent

    def begin(self, numbers: Array) -> None:
        """Begin with a step."""
        if self._requests:
            raise RuntimeError(
                "an earlier step has broken off while its gradients were being summed, and other "
                "ranks wait for them: they cannot go on together"
            )
        if self._buffer.grads is not self._grads:
            raise RuntimeError("the parameters were moved after this exchange was made")
        # How many Parameters of each bucket are incomplete.
        self._missing = Counter(chain.from_iterable(self._buckets_of.values()))
        self._requests.append(self._transport.start_sum(numbers))

    def completed(self, parameter: Parameter) -> None:
        """Send the buckets that are complete, and whose predecessors were sent."""
        # A Parameter that is in no buffer is not trained.
        self._missing.subtract(self._buckets_of.get(parameter.serial, ()))
        while self._unsent and not self._missing[self._sent]:
            self._send_next()
        self._transport.poll()

    def finish(self) -> None:
        """Send the rest, and wait for all sums."""
        while self._unsent:
            self._send_next()
        for request in self._requests:
            request.wait()
        self._requests.clear()

    @property
    def _sent(self) -> int:
        return len(self._requests) - 1

    @property
    def _unsent(self) -> int:
        return len(self._buckets) - self._sent

    def _send_next(self) -> None:
        self._requests.append(self._transport.start_sum(self._buckets[self._sent]))
