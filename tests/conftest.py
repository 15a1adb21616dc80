"""Settings of all tests."""

from __future__ import annotations

import os

import torch
from hypothesis import HealthCheck, settings

# Tests run several processes at once; more threads than cores make each of them slower.
torch.set_num_threads(1)

# A machine that is busy with other tests is no reason to fail.
settings.register_profile("mtlkit", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "mtlkit"))
