from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mtlkit.errors import SpecError
from mtlkit.source import read

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a file and gives what reading it finds wrong."""

    def refused(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(SpecError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return refused


@given(st.dictionaries(TEXT, PLAIN, max_size=4))
def test_plain_data_are_copied_as_they_are(data: dict[str, Any]) -> None:
    before = json.dumps(data)
    copy = read(data)
    assert copy == data
    assert json.dumps(copy) == before, "also the types and the order of the keys"
    _spoil(copy)
    assert json.dumps(data) == before, "nothing in the copy is the caller's own"


def _spoil(value: Any) -> None:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _spoil(inner)
        value.clear()


@given(data=st.dictionaries(TEXT, PLAIN, max_size=4))
def test_json_and_yaml_files_hold_the_same_as_a_dict(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name, text in (("a.json", json.dumps(data)), ("a.yaml", yaml.safe_dump(data))):
        (folder / name).write_text(text, encoding="utf-8")
        assert read(folder / name) == data
        assert read(str(folder / name)) == data


def test_toml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[a]\nb = [1, 2.5, "é", true]\n[[a.c]]\nd = {}\n', encoding="utf-8")
    assert read(tmp_path / "a.toml") == {"a": {"b": [1, 2.5, "é", True], "c": [{"d": {}}]}}


def test_yaml_reads_scalars_as_json_does(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("on: low\noff: no\nyes: [y, Off, true, 1e-3, 2.5, 1e3, 7, ~, null]\n")
    assert read(tmp_path / "a.yml") == {
        "on": "low",
        "off": "no",
        "yes": ["y", "Off", True, 1e-3, 2.5, 1000.0, 7, None, None],
    }


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", '{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"),
        ("a.yaml", "a: 1\nb:\n  c: 1\n  c: 2\n", "'c' stands twice"),
        ("a.toml", "a = 1\na = 2\n", "TOML"),
        ("a.yaml", "a: &x [1]\nb: *x\n", "aliases are not supported"),
        ("a.yaml", "a: !!python/object/apply:os.system ['true']\n", "python/object"),
        ("a.yaml", "a: !mine 3\n", "!mine"),
        ("a.yaml", "a: !!set {b, c}\n", "expected plain data"),
        ("a.yaml", "a: 2024-01-01\n", "expected plain data"),
        ("a.yaml", "a: 2024-13-41\n", "YAML"),
        ("a.yaml", "a: 1\n--- \nb: 2\n", "YAML"),
        ("a.yaml", "[1, 2]: 3\n", "YAML"),
        ("a.yaml", "1: 2\n", "found the key 1, expected a string; put it in quotes"),
        ("a.yaml", "a: .nan\n", "found nan, expected a finite number"),
        ("a.yaml", "", "expected a table"),
        ("a.toml", "a = 2024-01-01\n", "expected plain data"),
        ("a.toml", "a = inf\n", "expected a finite number"),
        ("a.json", '{"a": NaN}', "expected a finite number"),
        ("a.json", '{"a": 1e999}', "expected a finite number"),
        ("a.json", '{"a": 9007199254740993}', "beyond 2**53"),
        ("a.json", '{"a": ' + "9" * 5000 + "}", "JSON"),
        ("a.json", "[1]", "expected a table"),
        ("a.json", '{"a": "\\ud800"}', "no valid Unicode"),
        ("a.json", b'{"a": "\xff"}', "JSON"),
        ("a.json", "{", "JSON"),
        ("a.json", "[" * 100_000, "nests too deeply"),
        ("a.yaml", "[" * 5_000, "nests too deeply"),
        ("a.toml", "a = " + "[" * 5_000, "nests too deeply"),
        ("a.json", '{"a": ' + "[" * 40 + "]" * 40 + "}", "nests deeper than 32"),
        ("a.json", b" " * (8 * 2**20 + 1), "larger than 8 MiB"),
        ("a.ini", "a", "expected .toml, .json, .yaml"),
    ],
)
def test_files_that_are_refused(written: Any, name: str, content: str | bytes, says: str) -> None:
    assert says in written(name, content)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for path in (tmp_path / "none.toml", tmp_path / "folder.toml", Path("\0.toml")):
        with pytest.raises(SpecError, match=r"can't be read|no valid TOML"):
            read(path)


@pytest.mark.parametrize("junk", [object(), {1, 2}, b"a", 1j, float("nan"), -float("inf"), 2**53 + 1, "x" * 10_001])
def test_what_is_no_plain_data_is_refused_where_it_stands(junk: Any) -> None:
    with pytest.raises(SpecError) as caught:
        read({"a": [{"b": junk}], "c": 1})
    assert [problem.path for problem in caught.value.problems] == ["a.0.b"]


def test_all_problems_are_reported_but_not_millions() -> None:
    with pytest.raises(SpecError) as caught:
        read({"a": object(), "b": [1, float("nan")], 3: 4})
    assert [problem.path for problem in caught.value.problems] == ["a", "b.1", "(top)"]
    with pytest.raises(SpecError) as caught:
        read({"a": [object()] * 10_000})
    assert len(caught.value.problems) == 20


def test_what_contains_itself_is_refused_soon() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    wide: list[Any] = [0] * 20
    for _ in range(31):
        wide = [wide] * 20
    for data in (endless, {"a": wide}):
        started = time.process_time()
        with pytest.raises(SpecError, match=r"nests deeper|more than 1,000,000 values"):
            read(data)
        assert time.process_time() - started < 5
