"""What all tests share: one deterministic hypothesis profile, and the stand-in array library."""

from hypothesis import HealthCheck, settings

from tests import strict_arrays

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
