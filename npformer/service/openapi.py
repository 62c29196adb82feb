"""The OpenAPI description."""

from __future__ import annotations

from typing import Any

from npformer.service.limits import Limits


def description(limits: Limits) -> dict[str, Any]:
    """The description of a service with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "npformer", "version": "1"},
        "paths": {},
    }
