"""What makes a trunk larger."""

from __future__ import annotations

from mtlkit.bench.widths import scaled


def test_widths_are_scaled_and_nothing_else() -> None:
    part = {
        "type": "sequential",
        "layers": [
            {"type": "cnn", "channels": [8, 16], "kernel": 3, "dropout": 0.5},
            {"type": "transformer", "dim": 32, "heads": 4, "layers": 2, "feedforward": None},
            {"type": "timm", "model": "resnet18", "features": "pooled"},
        ],
    }
    made = scaled(part, 1.3)["layers"]
    assert made[0] == {"type": "cnn", "channels": [10, 21], "kernel": 3, "dropout": 0.5}
    assert made[1] == {"type": "transformer", "dim": 40, "heads": 4, "layers": 2, "feedforward": None}
    assert made[2] == part["layers"][2]  # type: ignore[index]
    assert scaled({"type": "mlp", "hidden": [2, 60_000]}, 0.1)["hidden"] == [1, 6000]
    assert scaled({"type": "mlp", "hidden": [2, 60_000]}, 4.0)["hidden"] == [8, 65_536]
    assert scaled({"type": "mlp", "hidden": [12, 60_000, 5, 7]}, 1.5, unit=10)["hidden"] == [18, 65_530, 10, 10]
