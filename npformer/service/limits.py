"""What a request may cost, and how long a client may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from npformer.errors import UserError

LIMITS = {
    "characters": "of a text",
    "texts": "of a request",
    "sentences": "of a request, when texts that are too long for the model have been split",
    "body": "bytes of a request's body",
    "beam": "hypotheses of a text",
    "alternatives": "translations of a text in the answer",
    "extra_length": "tokens that a translation, or a prefix of it, may have more than its source",
    "attention": "numbers in an answer of /attention",
    "queue": "sentences that wait; with more, requests are refused",
    "queue_seconds": "that a request waits for its first turn, and before for being split",
    "seconds": "until a request is answered",
    "header_seconds": "until a client has sent all of a request but its body",
    "body_seconds": "until it has sent the body",
    "read_seconds": "that an answer waits for a client to take some of it",
    "idle_seconds": "that a connection is kept between requests",
    "connections": "that are open; with more, one whose request has not wholly come is closed",
    "stop_seconds": "until all that is in flight when the service stops is answered",
}
"""What each of the limits is of."""


@dataclass(frozen=True)
class Limits:
    """The limits of a service, as LIMITS has them. Each is the most that is allowed."""

    characters: int = 10_000
    texts: int = 1_000
    sentences: int = 4_000
    body: int = 1 << 20
    beam: int = 16
    alternatives: int = 16
    extra_length: int = 200
    attention: int = 1_000_000
    queue: int = 10_000
    queue_seconds: float = 30.0
    seconds: float = 120.0
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    read_seconds: float = 30.0
    idle_seconds: float = 15.0
    connections: int = 1_000
    stop_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Raises UserError for a limit that lets nothing through, or is none."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not 0 < value < math.inf:
                raise UserError(f"the limit of {limit.name} must be more than 0; it is {value:g}")
