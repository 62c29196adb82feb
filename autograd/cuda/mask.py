"""A dropout site as an argument of kernels (philox.cuh)."""

from __future__ import annotations

from typing import Any

from autograd.dropout import DropoutSite

_NOTHING_DROPPED = (0, 0, 0, 0, 0, 0, 0, 0, 1.0)


def mask_of(site: DropoutSite | None) -> tuple[Any, ...]:
    """The fields of a Mask, arrays among them; without a site, of a Mask that drops nothing."""
    if site is None:
        return _NOTHING_DROPPED
    counters = site.step, site.row
    places = (0 if type(x) is int else x for x in counters)
    step, row = (x if type(x) is int else 0 for x in counters)
    return (*places, *site.key, site.site, step, row, site.threshold, site.scale)
