"""What all tests share: one deterministic hypothesis profile, a time limit, and the stand-in array
library."""

from hypothesis import HealthCheck, settings

from tests import strict_arrays
from tests.limits import pytest_configure, pytest_runtest_protocol, pytest_unconfigure

__all__ = ["pytest_configure", "pytest_runtest_protocol", "pytest_unconfigure"]

settings.register_profile(
    "npformer",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("npformer")

strict_arrays.register()
