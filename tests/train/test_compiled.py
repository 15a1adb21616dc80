"""A model that can't be compiled says so in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch, mtlkit
model = mtlkit.build_model()
before = [p.clone() for p in model.parameters()]
x, y = torch.randn(64, 10), {"task1": torch.randn(64, 5), "task2": torch.randn(64, 3)}
try:
    mtlkit.Trainer(model, epochs=1, progress=False, compile=True).fit((x, y))
except mtlkit.MtlkitError as error:
    print(error)
print(all(torch.equal(p, q) for p, q in zip(before, model.parameters())))
"""


@pytest.mark.slow
def test_without_a_compiler_it_says_what_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    message, unchanged = run.stdout.splitlines()
    assert message.startswith("compile: the model can't be compiled here: ")
    assert "No working C++ compiler" in message and "apt-get install g++" in message and "compile at False" in message
    assert unchanged == "True"
