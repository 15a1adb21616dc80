"""Registries: the names that a spec may use, and who owns them.

A part comes in from user code,

    @mtlkit.encoders.register("wavelet")
    class Wavelet(nn.Module): ...

or from an installed package, by an entry point in its pyproject.toml:

    [project.entry-points."mtlkit.encoders"]
    wavelet = "my_pkg:Wavelet"

mtlkit's own parts come in by the second way too. Listing reads installed packages' metadata and imports nothing; a
part is imported when it is first used. What is broken harms only who names it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, overload

from mtlkit.errors import PluginError, UnknownNameError, nearest, shown

BUILT_IN = "built-in"
_OWN_DISTRIBUTION = "mtlkit"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One owner's claim to a name. Everything but `signature` and `summary` is known without an import.

    `kind` is "encoder", "head", ...; `distribution` and `version` are those of the package that registered it, both
    empty where the program itself did; `target` is where it lies, as in "my_pkg:Wavelet".
    """

    kind: str
    name: str
    target: str
    distribution: str = ""
    version: str = ""
    _load: Callable[[], Any] = field(default=lambda: None, repr=False, compare=False)

    @property
    def owner(self) -> str:
        """Who registered it: "built-in", "mtlkit-wavelet 0.1", or the program's own "module:name"."""
        if self.distribution == _OWN_DISTRIBUTION:
            return BUILT_IN
        return f"{self.distribution} {self.version}".strip() or self.target

    @property
    def who(self) -> str:
        """The entry in a message: "encoder 'wavelet' of mtlkit-wavelet 0.1 (my_pkg:Wavelet)"."""
        return f"{self.kind} {self.name!r} of {self.owner} ({self.target})"

    def load(self) -> Callable[..., Any]:
        """The factory itself. Imports its module on first use.

        Raises:
            PluginError: it does not import, or is nothing that can be called.
        """
        try:
            factory = self._load()
        except KeyboardInterrupt:
            raise
        # Also SystemExit and the panics of extensions in Rust: whatever a plugin does must not end the program.
        except BaseException as error:
            raise PluginError(
                f"{self.who} can't be imported: {type(error).__name__}: {error}. Repair, update or uninstall it."
            ) from error
        if not callable(factory):
            raise PluginError(f"{self.who} must be a class or function that makes the part, found {shown(factory)}.")
        return factory

    def same(self, other: Entry) -> bool:
        """Whether both name one definition: a package may decorate its class and name it in an entry point too."""
        if bool(self.distribution) == bool(other.distribution):
            return self.target == other.target
        # The decorator sees where it is defined ("my_pkg.part:Wavelet"), the entry point may name an export.
        return _package_and_name(self.target) == _package_and_name(other.target)

    @property
    def signature(self) -> str:
        """What the factory takes, as in "(input_shape, *, levels: int = 3)"."""
        return str(inspect.signature(self.load()))

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring."""
        return (inspect.getdoc(self.load()) or "").partition("\n")[0]


class Registry(Mapping[str, Callable[..., Any]]):
    """Factories of one kind by name. Iteration gives the names in order and imports nothing."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._registered: dict[str, Entry] = {}
        self._factories: dict[str, Callable[..., Any]] = {}

    @overload
    def register(self, name: str) -> Callable[[F], F]: ...
    @overload
    def register(self, name: str, factory: F) -> F: ...
    def register(self, name: str, factory: F | None = None) -> F | Callable[[F], F]:
        """Register `factory` under `name`: as a decorator, or as a call with both arguments.

        The same definition may register again (a notebook's cell run twice, a reloaded module) and replaces itself.

        Raises:
            PluginError: another owner has this name.
        """
        if factory is None:
            return lambda factory: self.register(name, factory)
        entry = Entry(self.kind, name, f"{factory.__module__}:{factory.__qualname__}", _load=lambda: factory)
        for other in self.claims(name):
            if not other.same(entry):
                raise PluginError(
                    f"{self.kind} {name!r} is already registered by {other.owner} ({other.target}); "
                    f"{entry.target} must take another name."
                )
        self._registered[name] = entry
        self._factories.pop(name, None)
        return factory

    def claims(self, name: str) -> list[Entry]:
        """Every owner of `name`: one in a healthy installation. Imports nothing."""
        installed = _installed(self.kind, self.group).get(name, [])
        own = self._registered.get(name)
        return installed if own is None or any(own.same(e) for e in installed) else [*installed, own]

    def entries(self) -> list[Entry]:
        """Every claim to every name, in the order of the names. Imports nothing."""
        return [entry for name in self for entry in self.claims(name)]

    def describe(self, name: str) -> Entry:
        """Kind, name, owner and version of `name` without importing it; its signature and summary on demand.

        Raises:
            UnknownNameError: nobody registered it.
            PluginError: it has two owners.
        """
        claims = self.claims(name)
        if not claims and _installation_changed():
            # A package that was installed while this program runs is found without a restart.
            _installed.cache_clear()
            claims = self.claims(name)
        if not claims:
            known = list(self)
            names = [n if self._is_built_in(n) else f"{n} ({self.claims(n)[0].owner})" for n in known]
            raise UnknownNameError(
                f"no {self.kind} named {shown(name)}.{nearest(name, known)} Registered: {', '.join(names)}."
            )
        if len(claims) > 1:
            owners = " and ".join(f"{e.owner} ({e.target})" for e in claims)
            raise PluginError(f"{self.kind} {name!r} has two owners: {owners}. Uninstall or rename one of them.")
        return claims[0]

    def _is_built_in(self, name: str) -> bool:
        return [e.owner for e in self.claims(name)] == [BUILT_IN]

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._factories or len(self.claims(name)) != 1:
            self._factories[name] = self.describe(name).load()
        return self._factories[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.claims(name))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*_installed(self.kind, self.group), *self._registered}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<registry of {self.kind}s: {', '.join(self)}>"


@cache
def _installed(kind: str, group: str) -> dict[str, list[Entry]]:
    """The claims that installed packages make in their metadata, by name."""
    found: dict[str, list[Entry]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, []).append(_from_entry_point(kind, point))
    return found


def _installation_changed() -> bool:
    """Whether anything was installed or removed since the last call. Reading all metadata takes far longer."""
    global _folders
    before, _folders = _folders, {p: os.stat(p).st_mtime_ns for p in sys.path if os.path.isdir(p)}
    return _folders != before


_folders: dict[str, int] = {}


def _from_entry_point(kind: str, point: EntryPoint) -> Entry:
    # A package whose metadata are damaged may have neither: a failed look-up gives None.
    distribution, version = (point.dist.name or "", point.dist.version or "") if point.dist else ("", "")
    return Entry(kind, point.name, point.value, distribution, version, _load=point.load)


def _package_and_name(target: str) -> tuple[str, str]:
    module, _, name = target.partition(":")
    return module.partition(".")[0], name


encoders = Registry("encoder", "mtlkit.encoders")
heads = Registry("head", "mtlkit.heads")
losses = Registry("loss", "mtlkit.losses")
metrics = Registry("metric", "mtlkit.metrics")
sharings = Registry("sharing", "mtlkit.sharings")
balancers = Registry("balancer", "mtlkit.balancers")
datasets = Registry("dataset", "mtlkit.datasets")

registries = {
    "encoders": encoders,
    "heads": heads,
    "losses": losses,
    "metrics": metrics,
    "sharings": sharings,
    "balancers": balancers,
    "datasets": datasets,
}
