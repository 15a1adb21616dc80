"""Files run by what others have: onnxruntime, and torch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import Model, export

_CLOSE = 1e-5


class Files:
    """Exports models, runs what was written, and compares."""

    hierarchy: dict[str, Any] = {  # noqa: RUF012  # no test changes it
        "inputs": {"words": {"shape": [None], "dtype": "int64"}, "suffixes": {"shape": [None], "dtype": "int64"}},
        "encoders": {
            "word": {"type": "embedding", "vocab": 30, "dim": 6, "from": "words"},
            "suffix": {"type": "embedding", "vocab": 9, "dim": 4, "from": "suffixes"},
            "low": {"type": "rnn", "cell": "lstm", "hidden": 5, "bidirectional": True, "from": ["word", "suffix"]},
            "high": {"type": "rnn", "cell": "gru", "hidden": 5, "layers": 2, "from": ["low", "task:pos"]},
        },
        "tasks": {
            "pos": {"on": "low", "outputs": 4, "head": "token", "loss": "cross_entropy"},
            "chunk": {"on": "high", "outputs": 3, "head": "token", "loss": "cross_entropy"},
            "tone": {"on": "high:0", "outputs": 1, "loss": "mse"},
        },
    }
    """Two inputs of ids, a cascade, and a tap at a stage."""

    def exported(self, model: Model, path: Path, **how: Any) -> Path:
        assert export(model, path, **how) == path
        assert [one.name for one in path.parent.iterdir() if one.name.startswith(".")] == []
        return path

    def run(self, path: Path, x: dict[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
        """What a file makes of inputs by name, by output."""
        if path.suffix == ".onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            assert [one.name for one in session.get_inputs()] == list(x)
            assert [one.name for one in session.get_outputs()] == outputs
            found = session.run(outputs, {name: value.numpy() for name, value in x.items()})
            return dict(zip(outputs, map(torch.from_numpy, found), strict=True))
        module = torch.export.load(path).module()
        made = module(x if len(x) > 1 else next(iter(x.values())))
        assert list(made) == outputs
        return made

    def same(self, path: Path, model: Model, x: dict[str, Tensor], **how: Any) -> None:
        """The file gives what the model gives of these inputs; `how` is as of `export`."""
        answer = model.eval().predict if how.get("predictions") else model.eval()
        with torch.no_grad():
            expected = answer(x, tasks=how.get("tasks"))
        found = self.run(path, {name: x[name] for name in model.inputs_of(list(expected))}, list(expected))
        for task, value in expected.items():
            assert found[task].shape == value.shape, task
            assert float((found[task] - value).abs().max()) <= _CLOSE * float(value.abs().max()), task

    def ids(self, rows: int, length: int, below: int, padded: int = 0) -> Tensor:
        """Sentences of ids, the last one followed by padding."""
        made = torch.randint(1, below, (rows, length), generator=torch.Generator().manual_seed(length))
        made[-1, length - padded :] = 0
        return made


@pytest.fixture
def files() -> Files:
    return Files()
