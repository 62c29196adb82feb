"""A dropout site as an argument of kernels (philox.cuh)."""

from __future__ import annotations

from autograd.dropout import DropoutSite

_NOTHING_DROPPED = (0, 0, 0, 0, 0, 0, 1.0)


def mask_of(site: DropoutSite | None) -> tuple[float, ...]:
    """The fields of a Mask; without a site, of a Mask that drops nothing."""
    if site is None:
        return _NOTHING_DROPPED
    return (*site.key, site.site, site.step, site.row, site.threshold, site.scale)
