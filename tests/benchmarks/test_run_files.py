"""The run files under benchmarks/ reach what they promise, on the real data."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch

from mtlkit import Trainer, runfile
from mtlkit.source import read

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data lie in ../shared/data, which is not here"),
]


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _scores(name: str, out: Path, **data: Any) -> dict[str, dict[str, float]]:
    """The test scores of a run file, with some options of its data changed."""
    tables = read(ROOT / "benchmarks" / name)
    tables["data"] |= data
    run, _ = runfile.checked_run(tables, name)
    examples = run.load_data()
    model = runfile.seeded_model(runfile.complete(run.model, examples), run.train)
    trainer = Trainer(model, progress=False, out_dir=str(out), **run.train)
    trainer.fit(examples.train, examples.valid)
    return trainer.evaluate(examples.test)


def test_multimnist(tmp_path: Path) -> None:
    scores = _scores("multimnist.toml", tmp_path)
    assert scores["left"]["accuracy"] >= 0.97
    assert scores["right"]["accuracy"] >= 0.97


def test_tox21_over_three_splits(tmp_path: Path) -> None:
    aucs = [mean(s["auroc"] for s in _scores("tox21.toml", tmp_path, seed=seed).values()) for seed in range(3)]
    assert mean(aucs) >= 0.81


def test_ud_ewt(tmp_path: Path) -> None:
    scores = _scores("ud_ewt.toml", tmp_path)
    assert scores["upos"]["accuracy"] >= 0.895
    assert scores["deprel"]["accuracy"] >= 0.795


def test_what_fills_missing_cells_changes_no_bit(tmp_path: Path) -> None:
    """Labels of Tox21 as floats with NaN, with NaN of another payload, and as integers with -100."""
    source = np.load(DATA / "tox21" / "tox21_ecfp4_1024.npz")
    y = source["Y"].astype(np.float32)
    odd = y.copy()
    odd.view(np.uint32)[np.isnan(y)] = 0xFFC12345
    as_integers = np.where(np.isnan(y), -100, np.nan_to_num(y)).astype(np.int64)
    weights = []
    for filled in (y, odd, as_integers):
        np.savez(tmp_path / "filled.npz", X=source["X"], Y=filled, tasks=source["tasks"])
        tables = read(ROOT / "benchmarks" / "tox21.toml")
        tables["data"]["path"] = str(tmp_path / "filled.npz")
        run, _ = runfile.checked_run(tables, "tox21")
        examples = run.load_data()
        model = runfile.seeded_model(runfile.complete(run.model, examples), {})
        Trainer(model, max_steps=30, progress=False).fit(examples.train)
        weights.append(list(model.state_dict().values()))
    for other in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], other, strict=True))
