"""From what a user has to batches: tensors, arrays, a Dataset or a DataLoader.

    batches(model, (x, {"digit": y}), batch_size=64, shuffle=generator)     # re-iterable; yields Batch(x, targets)

Labels are checked once where they lie in memory, batch by batch where they come from a loader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtlkit.errors import DataError
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batches
from mtlkit.train.batches.loaders import Collate, LoaderBatches, dataset_loader
from mtlkit.train.batches.tensors import TensorBatches
from mtlkit.train.several.parts import part_of
from mtlkit.train.several.processes import Processes


def batches(
    model: Model,
    data: Any,
    batch_size: int,
    shuffle: torch.Generator | None = None,
    inputs: Sequence[str] | None = None,
    processes: Processes | None = None,
) -> Batches:
    """The batches of `data`, in an order that `shuffle` draws, or in their own.

    Args:
        data: `(x, {task: y})` of tensors or arrays; a Dataset of such pairs of single examples; or a DataLoader or
            any other iterable (with an end, and that can be iterated again) of such pairs of batches.
        batch_size: where the data do not come in batches.
        shuffle: draws the order.
        inputs: those that are needed; all if left out.
        processes: of which this one takes its part; one process that takes all if left out. Where an order is drawn,
            all take the same number of batches, of which the last may be empty.

    Raises:
        DataError: it is none of these, or inputs or labels do not fit the model.
    """
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Mapping):
        return TensorBatches(model, data[0], data[1], batch_size, shuffle, inputs, processes)
    if isinstance(data, DataLoader):
        return LoaderBatches(model, _part(data, processes), inputs)
    if isinstance(data, IterableDataset):
        loader = DataLoader(data, batch_size, collate_fn=Collate(model))
        return LoaderBatches(model, _part(loader, processes), inputs)
    if isinstance(data, Dataset):
        return LoaderBatches(model, dataset_loader(model, data, batch_size, shuffle, processes), inputs)
    if isinstance(data, Iterable) and not isinstance(data, Mapping | Tensor | str | tuple):
        return LoaderBatches(model, _part(data, processes), inputs)
    raise DataError(
        f"found data of type {type(data).__name__}, expected (x, {{task: y}}), a Dataset or a DataLoader of such pairs"
    )


def _part(loader: Iterable[Any], processes: Processes | None) -> Iterable[Any]:
    return loader if processes is None else part_of(loader, processes)


def refuse_other_calls(train: Any, valid: Any) -> None:
    """Refuse what other libraries' `fit` takes: inputs and labels apart, or the fraction of them to validate on.

    Raises:
        DataError: with the call as it is written here.
    """
    labels = isinstance(valid, Mapping) and bool(valid) and all(map(_is_array, valid.values()))
    if _is_array(train) or _is_array(valid) or labels or isinstance(valid, int | float):
        found = type(train if _is_array(train) else valid).__name__
        raise DataError(f"found data of type {found}, expected fit((x, {{task: y}}), valid=(x, {{task: y}}))")


def _is_array(value: Any) -> bool:
    """Whether it is a tensor, an array or a table, and no pair of them."""
    return hasattr(value, "dtype") or hasattr(value, "dtypes")
