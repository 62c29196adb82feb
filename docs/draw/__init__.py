"""The figures of docs/figures/, drawn from the code: `python -m docs.fill`."""

from collections.abc import Callable

from docs.draw import architecture, efficiency, house, token

FIGURES: dict[str, Callable[[], str]] = {
    "architecture": architecture.draw,
    "efficiency": efficiency.draw,
    "house": house.draw,
    "token": token.draw,
}
