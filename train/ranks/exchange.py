"""Sums the flat gradients of all ranks in buckets, while the backward pass still runs.

The backward pass completes gradients about from the end of the buffer to its beginning, since
layers declare their parameters in the order of the forward pass. So the buffer is cut into buckets
from the end on, and a bucket is sent as soon as all gradients in it are complete. All ranks send
the buckets in this one order, as MPI and NCCL demand, even a rank that has no sentences.
"""

from __future__ import annotations

from typing import Protocol

from autograd import Parameter, ParameterBuffer
from autograd.backend import Array

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
    """The exchange of one buffer's gradients. It serves for all steps."""

    def __init__(
        self, buffer: ParameterBuffer, transport: Transport, bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        self._transport = transport
        self._grads = buffer.allocate_gradients()
        self._buckets: list[slice] = []
        self._bucket_of: dict[int, int] = {}
        self._sizes: list[int] = []  # in Parameters
        end = int(self._grads.size)
        waiting: list[int] = []
        for name, span in reversed(buffer.spans().items()):
            waiting.append(buffer.parameters[name].serial)
            if (end - span.start) * self._grads.itemsize >= bucket_bytes or span.start == 0:
                self._bucket_of |= dict.fromkeys(waiting, len(self._buckets))
                self._buckets.append(slice(span.start, end))
                self._sizes.append(len(waiting))
                end, waiting = span.start, []
        self._begin()

    def _begin(self) -> None:
        self._missing = list(self._sizes)
        self._requests: list[Request] = []

    def completed(self, parameter: Parameter) -> None:
        """Send the buckets that are complete, and whose predecessors were sent."""
        self._missing[self._bucket_of[parameter.serial]] -= 1
        while len(self._requests) < len(self._buckets) and not self._missing[len(self._requests)]:
            self._send_next()
        self._transport.poll()

    def finish(self, numbers: Array) -> Array:
        """Sum the rest, and `numbers`; see `Exchange`."""
        while len(self._requests) < len(self._buckets):
            self._send_next()
        self._requests.append(self._transport.start_sum(numbers))
        for request in self._requests:
            request.wait()
        self._begin()
        return numbers

    def _send_next(self) -> None:
        bucket = self._buckets[len(self._requests)]
        self._requests.append(self._transport.start_sum(self._grads[bucket]))
