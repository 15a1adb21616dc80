from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mtlkit
from mtlkit.errors import PluginError, UnknownNameError
from mtlkit.registry import Registry, _installed

_groups = itertools.count()


@pytest.fixture
def registry() -> Registry:
    return Registry("thing", f"mtlkit.test{next(_groups)}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed into while the program runs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    _installed.cache_clear()


def install(site: Path, registry: Registry, package: str, **targets: str) -> None:
    folder = site / f"{package}-0.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.3\n")
    lines = [f"{name} = {target}" for name, target in targets.items()]
    (folder / "entry_points.txt").write_text("\n".join([f"[{registry.group}]", *lines]))


def test_a_decorator_and_a_call_register(registry: Registry) -> None:
    @registry.register("b")
    def one() -> int:
        """What it is.

        And more.
        """
        return 1

    def two(size: int, *, deep: bool = False) -> int:
        return 2

    assert registry.register("a", two) is two
    assert registry["b"] is one and registry["a"] is two
    assert list(registry) == ["a", "b"] and len(registry) == 2
    assert "a" in registry and "c" not in registry and 3 not in registry and None not in registry
    assert dict(registry) == {"a": two, "b": one}
    assert repr(registry) == "<registry of things: a, b>"
    entry = registry.describe("a")
    assert (entry.kind, entry.name, entry.distribution, entry.version) == ("thing", "a", "", "")
    assert entry.owner == f"{__name__}:{two.__qualname__}"
    assert entry.signature == "(size: 'int', *, deep: 'bool' = False) -> 'int'" and entry.summary == ""
    assert registry.describe("b").summary == "What it is."


def test_the_same_definition_may_register_again(registry: Registry) -> None:
    def make(value: int) -> Any:
        def factory() -> int:
            return value

        return factory

    registry.register("a", make(1))
    assert registry["a"]() == 1
    registry.register("a", make(2))
    assert registry["a"]() == 2


def test_a_second_owner_is_refused_and_both_are_named(registry: Registry) -> None:
    def mine() -> None: ...
    def yours() -> None: ...

    registry.register("a", mine)
    with pytest.raises(PluginError) as caught:
        registry.register("a", yours)
    assert "mine" in str(caught.value) and "yours" in str(caught.value)
    assert registry["a"] is mine


def test_a_built_in_name_is_taken() -> None:
    with pytest.raises(PluginError, match="'mlp' is already registered by built-in"):
        mtlkit.encoders.register("mlp", lambda input_shape: None)


def test_an_unknown_name_lists_the_known_ones_the_nearest_first() -> None:
    with pytest.raises(UnknownNameError, match=r"no encoder named 'lineer'. Did you mean 'linear'\? Registered: cnn, "):
        mtlkit.encoders["lineer"]
    with pytest.raises(KeyError):
        mtlkit.encoders["zzz"]
    with pytest.raises(UnknownNameError) as caught:
        mtlkit.encoders["x" * 10_000]
    assert len(str(caught.value)) < 1_000


def test_built_ins_are_described_without_being_imported() -> None:
    for registry in mtlkit.registries.values():
        built_in = [entry for entry in registry.entries() if entry.owner == "built-in"]
        assert built_in
        for entry in built_in:
            assert entry.distribution == "mtlkit" and entry.version and entry.kind == registry.kind
            assert entry.target.startswith("mtlkit.")


def test_a_package_is_found_when_it_is_installed_while_the_program_runs(registry: Registry, site: Path) -> None:
    with pytest.raises(UnknownNameError):
        registry["late"]
    (site / "late_pkg.py").write_text("class Late:\n    '''Comes late.'''\n")
    install(site, registry, "late-pkg", late="late_pkg:Late", lost="no_such_pkg:Lost")
    entry = registry.describe("late")
    assert "late_pkg" not in sys.modules
    assert entry.owner == "late-pkg 0.3" and entry.target == "late_pkg:Late"
    assert registry["late"].__name__ == "Late" and entry.summary == "Comes late."
    with pytest.raises(PluginError, match=r"thing 'lost' of late-pkg 0.3 .* can't be imported: ModuleNotFoundError"):
        registry["lost"]
    with pytest.raises(UnknownNameError, match=r"late \(late-pkg 0.3\)"):
        registry["lite"]


def test_two_packages_that_own_a_name_are_both_named_on_use(registry: Registry, site: Path) -> None:
    install(site, registry, "one", a="pkg_one:A", b="pkg_one:B")
    install(site, registry, "two", a="pkg_two:A")
    assert list(registry) == ["a", "b"] and "a" in registry
    for use in (registry.describe, registry.__getitem__):
        with pytest.raises(PluginError, match="two owners") as caught:
            use("a")
        assert "one 0.3" in str(caught.value) and "two 0.3" in str(caught.value)
    with pytest.raises(PluginError, match=r"already registered by one 0.3"):
        registry.register("b", lambda: None)


def test_many_unknown_names_do_not_read_all_metadata_again(registry: Registry, monkeypatch: Any) -> None:
    with pytest.raises(UnknownNameError):
        registry["a"]
    reads = []
    monkeypatch.setattr("mtlkit.registry.entry_points", lambda **group: reads.append(group) or ())
    for index in range(50):
        with pytest.raises(UnknownNameError):
            registry[f"a{index}"]
    assert not reads
