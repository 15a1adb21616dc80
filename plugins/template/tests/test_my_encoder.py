"""The battery that mtlkit's own encoders pass."""

from mtlkit.testing import check_encoder


def test_battery() -> None:
    check_encoder("my_encoder", (10,), width=8)
