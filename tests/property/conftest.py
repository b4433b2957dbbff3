"""A slow machine must not fail a property, so no example has a deadline."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.emulation import examples

settings.register_profile(
    "taskengine", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("taskengine")
