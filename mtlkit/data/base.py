"""What a dataset returns: three parts of examples, and what a spec needs to know of them.

    data = mtlkit.datasets["digits"](seed=0)
    spec = {"inputs": data.inputs, "encoder": "mlp", "tasks": data.tasks}
    trainer.fit(data.train, data.valid)

A missing label is NaN in a float target and -100 in an integer target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from mtlkit.data.formats import Format
from mtlkit.data.split import Rows

Targets: TypeAlias = dict[str, Tensor]

Pair: TypeAlias = tuple[Tensor | dict[str, Tensor], Targets]
"""(x, {task: y}). Many examples where the tensors have a batch axis, one example where they have none."""

Examples: TypeAlias = Pair | Dataset[Pair]
"""One pair of tensors that hold all examples, or a dataset whose items are pairs of single examples."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=10_000_000)]
"""A number of examples; 0 where a part may be left out."""


@dataclass(frozen=True)
class Data:
    """Examples for training, for choosing (a learning rate, say), and for the figure that is reported.

    `inputs` and `tasks` are the parts of a spec that the examples fix: `{"x": {"shape": [144], "dtype":
    "float32"}}` and `{"left": {"outputs": 10, "loss": "cross_entropy"}}`. `table` is set where the examples
    came from a table file or a folder of images: it reads another such, and writes predictions as a table.
    """

    train: Examples
    valid: Examples | None
    test: Examples | None
    inputs: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    table: Format | None = None


def one_input(shape: Sequence[int | None], dtype: str = "float32") -> dict[str, dict[str, Any]]:
    """The `inputs` of a dataset whose x is one tensor."""
    return {"x": {"shape": list(shape), "dtype": dtype}}


def take(pair: Pair, rows: Rows) -> Pair:
    """The examples of these row numbers, in this order."""
    index = torch.from_numpy(rows)
    x, y = pair
    taken = {name: tensor[index] for name, tensor in x.items()} if isinstance(x, dict) else x[index]
    return taken, {task: target[index] for task, target in y.items()}
