"""What is kept of a run: found again where nothing has changed, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtlkit
from mtlkit.bench.examples import digest
from mtlkit.bench.job import Job
from mtlkit.bench.kept import Kept, Setting
from mtlkit.data.counted import labelled
from mtlkit.data.linear import linear

SPEC = mtlkit.check_spec(mtlkit.DEFAULT_SPEC)
JOB = Job("run", "linear", 0, None, SPEC, {"epochs": 2, "balancer": {"type": "sum"}})
SETTING = Setting("of the data", {"processor": "one", "threads": 1, "device": "cpu"})


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "runs", SETTING)
    key = kept.key(JOB)
    assert kept.find(key) is None
    kept.keep(key, {"steps": 3, "test": None})
    assert Kept(tmp_path / "runs", SETTING).find(key) == {"steps": 3, "test": None}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [f"{key}.json"]


def test_a_key_is_of_all_that_figures_depend_on(tmp_path: Path) -> None:
    kept = Kept(tmp_path, SETTING)
    others = [
        kept.key(replace(JOB, kind="conflicts")),
        kept.key(replace(JOB, seed=1)),
        kept.key(replace(JOB, task="task1")),
        kept.key(replace(JOB, spec={**SPEC, "sharing": {"type": "none"}})),
        kept.key(replace(JOB, train={**JOB.train, "epochs": 3})),
        Kept(tmp_path, replace(SETTING, data="of others")).key(JOB),
        Kept(tmp_path, replace(SETTING, machine={**SETTING.machine, "threads": 2})).key(JOB),
    ]
    assert len({kept.key(JOB), *others}) == 1 + len(others)
    assert kept.key(replace(JOB, variant="another name")) == kept.key(JOB)


def test_a_key_knows_versions_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Kept(tmp_path, SETTING).key(JOB)
    monkeypatch.setattr("mtlkit.bench.code.version", lambda package: "9.9")
    assert Kept(tmp_path, SETTING).key(JOB) != before
    monkeypatch.undo()
    monkeypatch.setattr("torch.__version__", f"{torch.__version__}+other")
    assert Kept(tmp_path, SETTING).key(JOB) != before
    monkeypatch.undo()
    monkeypatch.setattr("mtlkit.bench.kept.text_of_mtlkit", lambda: "changed")
    assert Kept(tmp_path, SETTING).key(JOB) != before


MINE = """
import torch
from scale_of_mine import SCALE
class Mine(torch.nn.Flatten):
    def __init__(self, shape):
        super().__init__()
"""


def test_a_key_knows_the_text_of_parts_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the module that defines a part, and of the one beside it that it reads."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "scale_of_mine.py").write_text("SCALE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    mtlkit.encoders.register("mine", __import__("mine").Mine)
    job = replace(JOB, spec={**SPEC, "encoder": {"type": "sequential", "layers": [{"type": "mine"}]}})
    kept = Kept(tmp_path / "runs", SETTING)
    keys = [kept.key(job)]
    for name in ("mine.py", "scale_of_mine.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# changed\n")
        keys.append(Kept(tmp_path / "runs", SETTING).key(job))
    assert len({*keys}) == 3
    # A bench goes on under the keys that it began with, and parts of mtlkit have theirs whatever else is there.
    assert kept.key(job) == keys[0] and kept.key(JOB) == Kept(tmp_path / "runs", SETTING).key(JOB)


def test_a_key_knows_the_whole_package_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "tower_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from torch.nn import Flatten\nclass Tower(Flatten):\n    pass\n")
    monkeypatch.syspath_prepend(package.parent)
    mtlkit.encoders.register("tower", __import__("tower_of_mine").Tower)
    job = replace(JOB, spec={**SPEC, "encoder": {"type": "tower"}})
    before = Kept(tmp_path, SETTING).key(job)
    (package / "read_later.py").write_text("SCALE = 1\n")
    assert Kept(tmp_path, SETTING).key(job) != before


@settings(max_examples=30)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_told_and_nothing_is_taken(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    kept = Kept(folder, SETTING)
    kept.keep("key", {"steps": 3, "test": {"a": {"loss": 0.25}}})
    path = folder / "key.json"
    data = bytearray(path.read_bytes())
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="key.json: is damaged"):
        assert kept.find("key") is None
    kept.keep("key", {"steps": 4})
    assert kept.find("key") == {"steps": 4}


def test_an_entry_under_a_foreign_name_is_not_taken(tmp_path: Path) -> None:
    kept = Kept(tmp_path, SETTING)
    kept.keep("one", {"steps": 3})
    (tmp_path / "one.json").rename(tmp_path / "two.json")
    with pytest.warns(UserWarning, match="is damaged"):
        assert kept.find("two") is None


def test_an_example_has_a_label_where_any_of_its_values_is_there() -> None:
    nan = float("nan")
    targets = {
        "class": [1, -100, 2],
        "words": [[1, -100], [-100, -100], [0, 0]],
        "value": [[1.0, nan], [nan, nan], [2, 2]],
    }
    examples = torch.zeros(3, 1), {task: torch.tensor(target) for task, target in targets.items()}
    assert [labelled(examples, task) for task in (*targets, "other")] == [2, 2, 2, None]


def test_a_digest_is_of_every_value() -> None:
    data = linear(samples=20, valid=5, test=5)
    x, y = data.train  # type: ignore[misc]
    assert digest(data) == digest(linear(samples=20, valid=5, test=5))
    changed = y["task2"].clone()
    changed[-1, -1] += 1e-6
    others = [
        linear(samples=20, valid=5, test=5, seed=1),
        linear(samples=20, valid=5, test=0),
        replace(data, train=(x, {**y, "task2": changed})),
        replace(data, train=(x, {"task1": y["task1"]})),
        replace(data, train=(x.double(), y)),
        replace(data, train=(x.reshape(10, 20), y)),
        replace(data, valid=data.test, test=data.valid),
    ]
    assert len({digest(data), *map(digest, others)}) == 1 + len(others)


def test_a_digest_of_a_dataset_is_of_its_items() -> None:
    class Rows(torch.utils.data.Dataset):
        def __init__(self, last: float) -> None:
            self.rows = [(torch.ones(3), {"a": torch.tensor(1.0)}), (torch.ones(2), {"a": torch.tensor(last)})]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> Any:
            return self.rows[index]

    of = [digest(mtlkit.Data(Rows(last), None, None, {}, {})) for last in (0.0, 0.0, 1.0)]
    assert of[0] == of[1] != of[2]
