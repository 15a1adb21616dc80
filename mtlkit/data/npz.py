"""`npz`: arrays of one's own, from a file that `numpy.savez` wrote.

    [data]                                       np.savez("mine.npz", x=x, digit=digit, slant=slant)
    type = "npz"
    path = "mine.npz"
    inputs = "x"
    tasks = ["digit", "slant"]

Each task is an array. Its dtype says its kind: integers are classes 0, 1, ... (-100 where missing),
booleans are yes or no, floats are numbers (NaN where missing). `kind` says what the dtype can't:

    kind = "binary"                              # all tasks: 0, 1 and NaN in floats
    kind = { visits = "count" }

Where one array holds all tasks, `columns` names it, and `tasks` says what its columns are called: a list,
or the name of an array of strings in the file. Bits that `np.packbits(x, axis=1)` packed are unpacked with
`packed`:

    [data]
    type = "npz"
    path = "tox21_ecfp4_1024.npz"
    inputs = "X"
    packed = true
    columns = "Y"
    tasks = "tasks"
    kind = "binary"

Inputs: float and bool arrays become float32; uint8 becomes float32 from 0 to 1, as pixels do; other integers
are ids and stay so. `inputs` may be a list: a model then reads them by name. Examples are split at random
by the fractions `valid` and `test`, unless `valid_path` and `test_path` name files of their own. Arrays of
Python objects are refused, because to read them would run code from the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import Field
from torch import Tensor

from mtlkit.data.archive import read_arrays
from mtlkit.data.array import Array, infer_kind, outputs_of, to_input, to_target
from mtlkit.data.base import Data, Pair, Seed, take
from mtlkit.data.kind import Kind, task
from mtlkit.data.split import PARTS, Fraction, random_split
from mtlkit.errors import DataError, nearest

Named: TypeAlias = dict[str, Array]
Tensors: TypeAlias = dict[str, Tensor]
BITS_A_BYTE = 8
Names = Annotated[list[str], Field(min_length=1)]


def npz(
    *,
    path: str,
    inputs: str | Names = "x",
    tasks: str | Names,
    columns: str | None = None,
    kind: Kind | dict[str, Kind] | None = None,
    packed: bool = False,
    valid_path: str | None = None,
    test_path: str | None = None,
    valid: Fraction = 0.1,
    test: Fraction = 0.1,
    seed: Seed = 0,
) -> Data:
    """Arrays of your own from an .npz file, each a task; or one array whose columns are the tasks.

    Args:
        path: the file that `numpy.savez` or `savez_compressed` wrote.
        inputs: the array that the model reads, or a list of them.
        tasks: the arrays that are tasks; with `columns`, the names of its columns, or the array of these.
        columns: the array [N, tasks] that holds all targets.
        kind: class, binary, number or count: of all tasks, or of those in a table; else the dtype tells.
        packed: the inputs are bits that `np.packbits(x, axis=1)` packed.
        valid_path: a file of the same form to validate on, instead of the fraction `valid` of `path`.
        test_path: the same for the test.
        valid: the fraction of the examples to validate on.
        test: the fraction to test on.
        seed: draws the split.

    Raises:
        DataError: a file or array is missing or damaged, holds Python objects, or does not fit the others.
    """
    names = [inputs] if isinstance(inputs, str) else inputs
    paths = {"train": path, "valid": valid_path, "test": test_path}
    growth = BITS_A_BYTE if packed else 1
    files = {part: _load(own, names, tasks, columns, growth) for part, own in paths.items() if own is not None}
    kinds = _kinds(files["train"][1], kind)
    pairs = {
        part: (
            {name: to_input(name, array, packed=packed) for name, array in x.items()},
            {name: to_target(name, y[name], kinds[name]) for name in kinds},
        )
        for part, (x, y) in files.items()
    }
    fractions = {"valid": 0 if valid_path else valid, "test": 0 if test_path else test}
    parts = _split(pairs, fractions, seed)
    _check_same_shapes(pairs, paths)
    return Data(
        train=_unwrap(parts["train"]),
        valid=_unwrap(parts["valid"]) if "valid" in parts else None,
        test=_unwrap(parts["test"]) if "test" in parts else None,
        inputs={
            name: {"shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in pairs["train"][0].items()
        },
        tasks={
            name: task(k, _outputs(name, k, (targets[name] for _, targets in pairs.values())))
            for name, k in kinds.items()
        },
    )


def _split(pairs: dict[str, tuple[Tensors, Tensors]], fractions: dict[str, float], seed: int) -> dict[str, Pair]:
    """The examples of each part: those of a file of its own, or a fraction of the first one's."""
    train = pairs["train"]
    rows = random_split(len(next(iter(train[0].values()))), **fractions, seed=seed)
    return {**pairs, **{part: take(train, rows[part]) for part in PARTS if len(rows[part])}}


def _unwrap(pair: Pair) -> Pair:
    """A single input as a tensor, since it needs no name."""
    x, y = pair
    return (next(iter(x.values())) if isinstance(x, dict) and len(x) == 1 else x), y


def _load(
    path: str, inputs: list[str], tasks: str | list[str], columns: str | None, growth: int
) -> tuple[Named, Named]:
    """The arrays that are inputs and those that are targets, by name, all of one length."""
    names = tasks if isinstance(tasks, list) else [tasks]
    if columns is None:
        arrays = read_arrays(path, [*inputs, *names], growth)
        y = {name: arrays[name] for name in names}
    elif isinstance(tasks, str):
        arrays = read_arrays(path, [*inputs, columns, tasks], growth)
        y = _columns(path, columns, arrays[columns], [str(name) for name in arrays.pop(tasks).ravel()])
    else:
        arrays = read_arrays(path, [*inputs, columns], growth)
        y = _columns(path, columns, arrays[columns], names)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"{path}: found arrays of length {lengths}, expected one length, the number of examples.")
    return {name: arrays[name] for name in inputs}, y


def _columns(path: str, name: str, array: Array, tasks: list[str]) -> Named:
    if array.ndim != 2 or array.shape[1] != len(tasks) or len(set(tasks)) != len(tasks):
        raise DataError(
            f"{path}: array {name!r} has shape {list(array.shape)}, expected [N, {len(tasks)}]: a column for "
            f"each of the tasks {', '.join(tasks)}, all different."
        )
    return {task: array[:, index] for index, task in enumerate(tasks)}


def _kinds(targets: Named, kind: Kind | dict[str, Kind] | None) -> dict[str, Kind]:
    """The kind of each task: as asked for, else as its dtype says."""
    if isinstance(kind, str):
        return dict.fromkeys(targets, kind)
    asked = kind or {}
    for name in asked:
        if name not in targets:
            raise DataError(f"kind: no task {name!r}.{nearest(name, list(targets))} Tasks: {', '.join(targets)}.")
    return {name: asked.get(name) or infer_kind(name, array) for name, array in targets.items()}


def _outputs(name: str, kind: Kind, targets: Iterable[Tensor]) -> int:
    """How many outputs the task needs for the targets of all files."""
    outputs = max(outputs_of(target) for target in targets)
    if kind == "class" and outputs < 2:
        raise DataError(f"task {name!r} holds no class above 0, so there is nothing to learn. Leave it out.")
    return outputs


def _check_same_shapes(pairs: dict[str, tuple[Tensors, Tensors]], paths: dict[str, str | None]) -> None:
    expected = {name: tensor.shape[1:] for tensors in pairs["train"] for name, tensor in tensors.items()}
    for part, (x, y) in pairs.items():
        for name, tensor in {**x, **y}.items():
            if tensor.shape[1:] != expected[name]:
                raise DataError(
                    f"{paths[part]}: array {name!r} has examples of shape {list(tensor.shape[1:])}, expected "
                    f"{list(expected[name])} as in the training file."
                )
