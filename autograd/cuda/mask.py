"""A dropout site as kernels take it (philox.cuh)."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.dropout import DropoutSite

_MASK = np.dtype(
    [(name, np.uint32) for name in ("key0", "key1", "site", "step", "row", "threshold")]
    + [("scale", np.float32)]
)


def mask_of(site: DropoutSite | None) -> Any:
    """The mask of a site; without one, of a site that drops nothing."""
    values: tuple[float, ...] = (0, 0, 0, 0, 0, 0, 1)
    if site is not None:
        values = (*site.key, site.site, site.step, site.row, site.threshold, site.scale)
    return np.array(values, _MASK)[()]
