"""A request that is refused."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that is refused; the text is one sentence for whoever sent it.

    status: of HTTP. retry_after: seconds after which the same request may be welcome.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after
