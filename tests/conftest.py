"""Settings of the tests in this folder."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

import mtlkit

REGISTRIES = (
    mtlkit.balancers,
    mtlkit.datasets,
    mtlkit.encoders,
    mtlkit.heads,
    mtlkit.losses,
    mtlkit.metrics,
    mtlkit.sharings,
)

# A machine that is busy with other tests is no reason to fail.
settings.register_profile("mtlkit", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "mtlkit"))


@pytest.fixture(autouse=True)
def _own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is there for that test alone."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
