"""Checkpoints of several processes: really started ones, over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mtlkit import CheckpointError, Trainer, build_model

HERE = Path(__file__).parent


def started(folder: Path, what: str, processes: int = 2) -> subprocess.Popen[str]:
    command = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
    return subprocess.Popen(
        [sys.executable, *command, str(HERE / "resume_together.py"), str(folder), what],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_go_on_to_the_bit_and_one_does_not_go_on_with_their_run(tmp_path: Path) -> None:
    with started(tmp_path, "resume") as process:
        _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-2_000:]
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert all(all(one.values()) and len(one) == 7 for one in found), found
    kept = next((tmp_path / "in-memory" / "checkpoints").iterdir())
    model = build_model(kept / "spec.json")
    with pytest.raises(CheckpointError, match="can't go on with 1 processes: the run was begun with 2"):
        Trainer(model, out_dir=str(tmp_path / "in-memory"), resume=True).fit(
            (torch.ones(4, 4), {"a": torch.ones(4, 1)})
        )


@pytest.mark.slow
def test_a_signal_for_one_process_ends_both_after_the_same_step(tmp_path: Path) -> None:
    with started(tmp_path, "signal") as process:
        end = time.monotonic() + 120
        while not all((tmp_path / f"at-{rank}").exists() for rank in range(2)):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
        ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(ranks.stdout.split()[-1]), signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    steps = {(tmp_path / f"at-{rank}").read_text() for rank in range(2)}
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert steps == {str(int(path.name[5:]))}, errors[-2_000:]
    assert errors.count("Go on with: the same program with resume=True") == 1
