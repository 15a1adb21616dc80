"""The code that a job's figures come from, as hashes and versions: what changes in it may change figures, or times.

    text_of_mtlkit()
    versions_of(PACKAGES)     # {"torch": "2.9.0+cu128", ...}
    code_of(entry)            # of a part from elsewhere: text and versions

What is installed is known by its version. What lies elsewhere, scripts and packages that are installed for editing, is
known by its text: all of it that is loaded, since a part may come from any of it.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import sysconfig
import uuid
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

import mtlkit
from mtlkit.errors import PluginError
from mtlkit.registry import Entry

PACKAGES = (
    *("torchvision", "timm", "torchjd", "accelerate", "torchmetrics", "numpy", "scipy"),
    *("quadprog", "qpsolvers", "cvxpy", "clarabel", "ecos", "optuna"),
)
"""What mtlkit's own parts are made with, and what solves and searches for them."""

_MTLKIT = Path(mtlkit.__file__).parent
_INSTALLED = {"site-packages", "dist-packages"}
_NEVER_AGAIN = uuid.uuid4().hex


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Those of these packages that are installed, and of torch, with what it was built for."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "torch": torch.__version__}


@cache
def text_of_mtlkit() -> str:
    """A hash of mtlkit's own files: in a clone they change while its version stays."""
    return _hash(_MTLKIT.rglob("*.py"))


def code_of(entry: Entry) -> tuple[str, dict[str, str]]:
    """What a part from elsewhere is made of: a hash of its text, and the versions of what its distribution needs."""
    lines = requires(entry.distribution) or () if entry.distribution else ()
    needed = [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return _text_of(entry), versions_of(needed)


def _text_of(entry: Entry) -> str:
    """Of the files of its package, and of the user's own. Of what was typed in it is not known if it is the same."""
    try:
        factory = inspect.unwrap(entry.load())
        file = Path(inspect.getsourcefile(factory) or "")
        package = sys.modules.get(factory.__module__.partition(".")[0])
        inside = [path for folder in getattr(package, "__path__", ()) for path in Path(folder).rglob("*.py")]
        return _hash({file, *inside, *_own()})
    except (TypeError, OSError):
        return _NEVER_AGAIN
    except PluginError:
        # Not what the job means, which has been built: a broken part of another kind under this name.
        return ""


def _own() -> list[Path]:
    """The files of the modules that are loaded and neither installed nor mtlkit's."""
    elsewhere = Path(sysconfig.get_path("stdlib")), _MTLKIT
    files = [getattr(module, "__file__", None) for module in [*sys.modules.values()]]
    # What is compiled has a version.
    paths = [Path(file) for file in files if isinstance(file, str) and file.endswith(".py")]
    own = [p for p in paths if not _INSTALLED & {*p.parts} and not any(p.is_relative_to(one) for one in elsewhere)]
    return [path for path in own if path.is_file()]  # some modules of torch name a file that is none


def _hash(files: Iterable[Path]) -> str:
    """A hash of the content of files, wherever they lie."""
    each = sorted(hashlib.sha256(path.read_bytes()).digest() for path in files)
    return hashlib.sha256(b"".join(each)).hexdigest()[:32]
