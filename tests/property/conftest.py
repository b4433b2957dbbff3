"""A slow machine must not fail a property, so no example has a deadline."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("taskengine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("taskengine")
