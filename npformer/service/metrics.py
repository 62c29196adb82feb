"""What a service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS = (16, 64, 256, 1024, 4096, 16384)


class Metrics:
    """The counters of one service. Threads may count at the same time."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self._requests = Counter(
            "npformer_requests", "Requests that were answered.", ["route", "status"], registry=own
        )
        self._seconds = Histogram(
            "npformer_request_seconds",
            "From a request's first line to its last byte of the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self._sentences = Counter("npformer_sentences", "Sentences translated.", registry=own)
        self._tokens = Counter("npformer_source_tokens", "Tokens of those.", registry=own)
        self._waited = Histogram(
            "npformer_queue_seconds",
            "That a request waited for its turn.",
            buckets=_SECONDS,
            registry=own,
        )
        self._searched = Histogram(
            "npformer_batch_seconds", "That a batch took.", buckets=_SECONDS, registry=own
        )
        self._batches = Histogram(
            "npformer_batch_sentences", "Sentences of a batch.", buckets=_SENTENCES, registry=own
        )
        self._batch_tokens = Histogram(
            "npformer_batch_source_tokens", "Tokens of a batch.", buckets=_TOKENS, registry=own
        )
        self._queue = Gauge("npformer_queue_sentences", "Sentences that wait.", registry=own)
        self._connections = Gauge("npformer_connections", "Open connections.", registry=own)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; with the status 499, its client had left before."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def waited(self, seconds: float) -> None:
        """A request has had its first turn."""
        self._waited.observe(seconds)

    def searched(self, sentences: int, tokens: int, seconds: float) -> None:
        """A batch is done; with no sentences, something else."""
        self._searched.observe(seconds)
        if sentences:
            self._sentences.inc(sentences)
            self._tokens.inc(tokens)
            self._batches.observe(sentences)
            self._batch_tokens.observe(tokens)

    def watch(self, queue: Callable[[], float], connections: Callable[[], float]) -> None:
        """Ask these for the lengths of the queue and of the list of connections."""
        self._queue.set_function(queue)
        self._connections.set_function(connections)

    def text(self) -> bytes:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self._registry)
