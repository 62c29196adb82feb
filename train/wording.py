"""Numbers, times and values, as text."""

import math
from typing import Any


def counted(number: int, noun: str) -> str:
    """1 step, 2 steps."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss; ? for what is not finite, as a log may hold that was edited."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def shown(value: Any) -> str:
    """A value as it is shown in a message, which is a single line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
