"""Saved models: a folder with the weights (safetensors), the spec and a manifest. Never a pickle.

    model.save("m/")
    model = mtlkit.load("m/")

The manifest holds the size and SHA-256 of the other files, so that a damaged one is refused instead of loaded. All
files are first written beside, then renamed into place, the manifest last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from mtlkit.build import MAX_PARAMETERS, build_model
from mtlkit.errors import CheckpointError, DamagedError, MtlkitError, shown
from mtlkit.model import Model
from mtlkit.registry import encoders, heads, losses, sharings

WEIGHTS, SPEC, MANIFEST = "model.safetensors", "spec.json", "manifest.json"
_FORMAT = 1
_MAX_JSON = 8 * 2**20


def save(model: Model, path: str | Path) -> None:
    """Write `model` into the folder `path`, which is made where it does not exist.

    Raises:
        CheckpointError: the folder can't be written; what was there before is left as it was.
    """
    folder = Path(path)
    files = files_of(model)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in {**files, MANIFEST: manifest_of(files, model)}.items():
            beside = folder / f".{name}.{os.getpid()}"
            written.append(beside)
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, beside in zip([*files, MANIFEST], written, strict=True):
            beside.replace(folder / name)
    except OSError as error:
        for beside in written:
            beside.unlink(missing_ok=True)
        raise CheckpointError(f"{folder}: can't be written: {error.strerror or error}") from error


def load(path: str | Path, *, max_parameters: int = MAX_PARAMETERS) -> Model:
    """The model that `Model.save` wrote into the folder `path`. A larger one than `max_parameters` is refused.

    Raises:
        CheckpointError: a file is missing or damaged, comes from a newer mtlkit, or does not fit the spec.
        PluginError, SpecError: the model uses a part that is not installed here.
    """
    folder = Path(path)
    spec, files = opened(folder)
    model = build_model(_without_pretrained(spec), max_parameters=max_parameters)
    try:
        model.load_state_dict(read_tensors(files[WEIGHTS]))
    except MtlkitError:
        raise
    except Exception as error:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit the spec: {error}") from error
    model.spec = spec
    return model


def files_of(model: Model) -> dict[str, bytes]:
    """The files of a saved model, by name, but for its manifest."""
    # Copies: safetensors refuses weights that share memory, as tied ones do.
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    return {WEIGHTS: write_tensors(weights), SPEC: _json(model.spec)}


def manifest_of(files: Mapping[str, bytes], model: Model, more: Mapping[str, Any] | None = None) -> bytes:
    """The manifest of some files, with what else it is to say."""
    manifest = {
        "format": _FORMAT,
        "versions": {"torch": torch.__version__, "mtlkit": version("mtlkit"), **_plugin_versions(model)},
        **(more or {}),
        "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in files.items()},
    }
    return _signed(manifest)


def opened(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """The spec and all files of a saved model or checkpoint, verified.

    Raises:
        DamagedError: a file is missing or is not what was written.
        CheckpointError: it comes from a newer mtlkit.
    """
    data = _read(folder, MANIFEST, _MAX_JSON)
    manifest = _parsed(folder / MANIFEST, data)
    signed = isinstance(manifest, dict) and _signed(manifest) == data
    if not signed and isinstance(manifest, dict) and "sha256" in manifest:
        raise DamagedError(f"{folder / MANIFEST}: is damaged: it is not what was saved. Use another copy")
    if not signed or manifest.get("format") != _FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise CheckpointError(f"{folder / MANIFEST}: found format {shown(found)}, expected {_FORMAT}; update mtlkit")
    files = {name: _verified(folder, name, manifest) for name in {WEIGHTS, SPEC, *manifest.get("files", {})}}
    spec = _parsed(folder / SPEC, files[SPEC])
    if not isinstance(spec, dict):
        raise CheckpointError(f"{folder / SPEC}: found no table, expected a spec")
    return spec, files


def _verified(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    declared = manifest.get("files", {}).get(name, {})
    data = _read(folder, name, declared.get("bytes", 0))
    if len(data) != declared.get("bytes") or _digest(data) != declared.get("sha256"):
        raise DamagedError(
            f"{folder / name}: is damaged: its {len(data):,} bytes are not those that were saved. Use another copy"
        )
    return data


def _read(folder: Path, name: str, limit: int) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        kind = DamagedError if isinstance(error, FileNotFoundError) else CheckpointError
        raise kind(
            f"{folder / name}: can't be read: {error.strerror or error}. Expected a folder that model.save() wrote"
        ) from error


def _parsed(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: is no valid JSON: {error}") from error


def _without_pretrained(spec: Any) -> Any:
    """A spec whose encoders fetch no weights: those that were saved replace them."""
    if isinstance(spec, dict):
        return {k: False if k == "pretrained" and v is True else _without_pretrained(v) for k, v in spec.items()}
    return [_without_pretrained(v) for v in spec] if isinstance(spec, list) else spec


def _plugin_versions(model: Model) -> dict[str, str]:
    graph = model.graph
    used = [(encoders, e.part) for e in graph.encoders.values()] + [
        (sharings, e.sharing) for e in graph.encoders.values()
    ]
    used += [(heads, t.head) for t in graph.tasks.values()] + [(losses, t.loss) for t in graph.tasks.values()]
    entries = [registry.describe(part["type"]) for registry, part in used]
    return {entry.distribution: entry.version for entry in entries if entry.distribution}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _signed(manifest: dict[str, Any]) -> bytes:
    """The manifest's file, with its own digest in place of any that `manifest` has."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return _json({**content, "sha256": _digest(_json(content))})


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
