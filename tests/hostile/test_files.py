"""Whatever a file holds that somebody hands over, a command says what is wrong and does nothing else.

Each group of files is one process of `worker.py`, which hands each file to every command that takes such a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("worker.py")
# The most that one file may take, beyond what the program holds before: of processor time and of memory.
SECONDS, MIB = 20, 600


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the worker reads what it took of memory from /proc")
@pytest.mark.parametrize("group", ["specs", "data", "folders"])
def test_hostile_files_do_no_harm(tmp_path: Path, group: str, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, str(WORKER), group, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: list[dict[str, Any]] = json.loads((tmp_path / "found.json").read_text())
    with capsys.disabled():
        print(f"\n{told(group, found)}")  # noqa: T201  # the figures of docs/reliability.md
    wrong = [f"{one['name']} {one['command']}: {one['faults']}\n{one['said']}" for one in found if one["faults"]]
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)
    assert max(one["seconds"] for one in found) < SECONDS
    assert max(one["mib"] for one in found) < MIB
    assert not [*(tmp_path / "outside").glob("*canary*")]


def told(group: str, found: list[dict[str, Any]]) -> str:
    """What is worth knowing of a group: how much, and the worst."""
    names, commands = ({one[key] for one in found} for key in ("name", "command"))
    slowest, largest = (max(found, key=lambda one: one[key]) for key in ("seconds", "mib"))
    return (
        f"hostile {group}: {len(names)} files, {len(commands)} commands, {len(found)} runs in "
        f"{sum(one['seconds'] for one in found):.0f} s; most time {slowest['seconds']:.1f} s ({slowest['name']}, "
        f"{slowest['command']}), most memory {largest['mib']:.0f} MiB ({largest['name']}, {largest['command']})"
    )
