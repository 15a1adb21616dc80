"""Saved models: a folder with the weights (safetensors), the spec and a manifest. Never a pickle.

    model.save("m/")
    model = mtlkit.load("m/")

The manifest holds the size and SHA-256 of the other files, so that a damaged one is refused instead of loaded. All
files are first written beside, then renamed into place, the manifest last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from mtlkit.blueprint import TooManyParameters
from mtlkit.build import MAX_PARAMETERS, build_model
from mtlkit.errors import CheckpointError, SpecError, shown
from mtlkit.guarded import FORMAT, MANIFEST, MAX_JSON, Folder, as_json, listed, signed
from mtlkit.model import Model
from mtlkit.registry import encoders, heads, losses, sharings
from mtlkit.source import read_bytes

WEIGHTS, SPEC = "model.safetensors", "spec.json"
# Models are computed in single precision; one that was saved in double has 8 bytes a value.
_MOST_BYTES_A_VALUE = 8
# Of a tensor in the header beside its name, which JSON may write with six bytes a character.
_HEADER_BYTES_A_TENSOR = 300


def save(
    model: Model,
    path: str | Path,
    more: Mapping[str, bytes] | None = None,
    unlisted: Mapping[str, bytes] | None = None,
) -> None:
    """Write `model` into the folder `path`, which is made where it does not exist.

    Args:
        model: it.
        path: of the folder.
        more: other files to keep with it or in the place of its own, by their names, which its manifest lists as well.
        unlisted: the same, but not listed: people may edit them, and nothing reads them.

    Raises:
        CheckpointError: the folder can't be written; what was there before is left as it was.
    """
    folder = Path(path)
    files = {**files_of(model), **(more or {})}
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        everything = {**(unlisted or {}), **files, MANIFEST: manifest_of(files, model)}
        for name, data in everything.items():
            beside = folder / f".{name}.{os.getpid()}"
            written.append(beside)
            # What is there is no file to write into: it may be a link that leads elsewhere.
            beside.unlink(missing_ok=True)
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, beside in zip(everything, written, strict=True):
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
    return load_from(Folder.of(path), max_parameters)


def load_from(folder: Folder, max_parameters: int = MAX_PARAMETERS) -> Model:
    """The model in a folder of which the manifest has been read. Raises as `load` does."""
    spec = read_spec(folder)
    stored = folder.size(WEIGHTS)
    try:
        # A parameter has a byte at least, so that a small file makes no large model.
        model = build_model(without_pretrained(spec), max_parameters=min(max_parameters, stored))
    except TooManyParameters as error:
        if stored >= max_parameters:
            raise
        raise CheckpointError(
            f"{folder.path / WEIGHTS}: does not fit the spec: it has {stored:,} bytes, too few for the model. "
            "Use another copy"
        ) from error
    state = model.state_dict()
    most = sum(_MOST_BYTES_A_VALUE * t.numel() + 6 * len(name) + _HEADER_BYTES_A_TENSOR for name, t in state.items())
    weights = tensors(folder, WEIGHTS, most + 2**16)
    _check_fit(folder.path / WEIGHTS, weights, state)
    model.load_state_dict(weights)
    model.spec = spec
    return model


def files_of(model: Model) -> dict[str, bytes]:
    """The files of a saved model, by name, but for its manifest."""
    # Copies: safetensors refuses weights that share memory, as tied ones do.
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    return {WEIGHTS: write_tensors(weights), SPEC: as_json(model.spec)}


def manifest_of(files: Mapping[str, bytes], model: Model, more: Mapping[str, Any] | None = None) -> bytes:
    """The manifest of some files, with what else it is to say."""
    return signed({"format": FORMAT, "versions": versions_of(model), **(more or {}), "files": listed(files)})


def versions_of(model: Model) -> dict[str, str]:
    """The versions of torch, mtlkit and the plugins that a model uses, by distribution."""
    graph = model.graph
    used = [(encoders, e.part) for e in graph.encoders.values()] + [
        (sharings, e.sharing) for e in graph.encoders.values()
    ]
    used += [(heads, t.head) for t in graph.tasks.values()] + [(losses, t.loss) for t in graph.tasks.values()]
    entries = [registry.describe(part["type"]) for registry, part in used]
    plugins = {entry.distribution: entry.version for entry in entries if entry.distribution}
    return {"torch": torch.__version__, "mtlkit": version("mtlkit"), **plugins}


def tensors(folder: Folder, name: str, limit: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file of at most so many bytes.

    Raises:
        CheckpointError: it is damaged, larger, or no such file.
    """
    data = folder.read(name, limit)
    try:
        return read_tensors(data)
    except Exception as error:  # safetensors has errors of its own, and KeyError for a dtype that it does not know
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{folder.path / name}: is no valid safetensors file: {reason}") from error


def read_spec(folder: Folder) -> dict[str, Any]:
    """The spec in a folder, as plain data.

    Raises:
        CheckpointError: it is damaged, or no such data.
    """
    return plain_json(folder, SPEC)


def plain_json(folder: Folder, name: str) -> dict[str, Any]:
    """What a JSON file of a folder holds, as plain data.

    Raises:
        CheckpointError: it is damaged, or no such data.
    """
    path, data = folder.path / name, folder.read(name, MAX_JSON)
    try:
        return read_bytes(data, path)
    except SpecError as error:
        problems = "; ".join(map(str, error.problems))
        raise CheckpointError(f"{path}: can't be what was saved: {problems}. Use another copy") from error


def _check_fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    names = [name for name in expected if name not in found] + [name for name in found if name not in expected]
    if names:
        which = "lacks" if names[0] in expected else "has an unknown"
        raise CheckpointError(f"{path}: does not fit the spec: it {which} {shown(names[0])}. Use another copy")
    for name, tensor in found.items():
        mine = expected[name]
        if tensor.shape != mine.shape or tensor.is_floating_point() != mine.is_floating_point():
            raise CheckpointError(
                f"{path}: does not fit the spec: found {shown(name)} {tensor.dtype} {list(tensor.shape)}, expected "
                f"{mine.dtype} {list(mine.shape)}. Use another copy"
            )


def without_pretrained(spec: Any) -> Any:
    """A spec whose encoders fetch no weights, by default or by name: those that were saved replace them.

    What an encoder reads beside its weights stands in the spec of each model.
    """
    if isinstance(spec, dict):
        named = {k for k, v in spec.items() if k == "pretrained" and (v is True or isinstance(v, str))}
        return {k: False if k in named else without_pretrained(v) for k, v in spec.items()}
    return [without_pretrained(v) for v in spec] if isinstance(spec, list) else spec
