"""Plugins as users have them: packages in a site directory of their own, seen by real child processes.

site = tmp_path_factory.mktemp("site")
distribution(site, "mtlkit-wavelet", "[mtlkit.encoders]\nwavelet = my_pkg:Wavelet", version="0.1")
answer = child(site, "import json, mtlkit; print(json.dumps(list(mtlkit.encoders)))")
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A child that imports a plugin which sleeps for ever must fail the test, one on a busy machine must not.
_PATIENCE = 120


@pytest.fixture(scope="session")
def projects() -> Path:
    """The folder of the plugins in this repository."""
    return Path(__file__).parents[2] / "plugins"


@pytest.fixture(scope="session")
def install() -> Callable[[Path, Path], None]:
    """Builds the wheel of a project folder and installs it into a site directory, offline."""
    pytest.importorskip("hatchling", reason="it builds the plugins: pip install 'mtlkit[test]'")

    def run(project: Path, site: Path) -> None:
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(project)], check=True)

    return run


@pytest.fixture(scope="session")
def distribution() -> Callable[..., Path]:
    """Writes the metadata of an installed package into a site directory and gives their folder."""

    def write(site: Path, name: str, entry_points: str, version: str | None = "0.3") -> Path:
        folder = site / f"{name.replace('-', '_')}-{version or '0'}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", *([f"Version: {version}"] if version else [])]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        (folder / "entry_points.txt").write_text(entry_points)
        return folder

    return write


@pytest.fixture(scope="session")
def child() -> Callable[..., Any]:
    """Runs code with the packages of a site directory and gives the JSON that it prints, its only output."""

    def run(site: Path, code: str, *arguments: str) -> Any:
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        # A wide terminal: no table of the command line breaks a name.
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            cwd=site,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
