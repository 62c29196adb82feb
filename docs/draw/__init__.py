"""The figures of docs/figures/, drawn from the code: `python -m docs.fill`."""

from collections.abc import Callable

from docs.draw import architecture, house, token

FIGURES: dict[str, Callable[[], str]] = {
    "architecture": architecture.draw,
    "house": house.draw,
    "token": token.draw,
}
