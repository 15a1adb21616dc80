"""What is to be in the file: some tasks of a copy of a model, in evaluation mode, on the CPU.

wanted = Wanted.of(model, ("digit",), predictions=True, length=None, table=None)
x = wanted.examples(rows=3, length=128)        # {"input": [3, 1, 28, 28]}
wanted.answers(x)                              # {"digit": [3, 10]}
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlkit.data import Format
from mtlkit.data.target import NumberTarget, Target
from mtlkit.feature import PROBE
from mtlkit.inputs import Ids
from mtlkit.model import Model

# Of axes of any length, where no encoder limits it: two thirds of it are long enough for the deepest CNNs.
_LONGEST = PROBE + 64
# Of ids of which it is not known how many there are, these are.
_FEWEST_IDS = 2
# Maps are to be no squares, where their axes are of any length.
_LONGER = 32


@dataclass(frozen=True)
class Wanted:
    """What is to be exported.

    Attributes:
        model: the copy.
        tasks: of it.
        predictions: whether outputs are predictions.
        length: of axes that have any in the spec; None for any.
        table: how its inputs were made, and what its outputs mean; None where that is not known.
    """

    model: Model
    tasks: tuple[str, ...]
    predictions: bool
    length: int | None
    table: Format | None = None

    @staticmethod
    def of(
        model: Model, tasks: tuple[str, ...], *, predictions: bool, length: int | None, table: Format | None
    ) -> Wanted:
        """Some tasks of a copy of `model`."""
        # Copies on the CPU at once: its device may have no room for a second model.
        tensors = {id(t): _on_cpu(t) for t in (*model.parameters(), *model.buffers()) if not t.is_cpu}
        own = copy.deepcopy(model, tensors).to("cpu", torch.float32).eval().requires_grad_(False)
        return Wanted(own, tasks, predictions, length, table)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that the tasks need."""
        return self.model.inputs_of(self.tasks)

    @property
    def targets(self) -> dict[str, Target]:
        """What the table knows of the tasks, but of those that the model has with other outputs: what are they?"""
        known = {} if self.table is None else self.table.targets
        tasks = self.model.graph.tasks
        return {
            task: known[task] for task in self.tasks if task in known and known[task].outputs == tasks[task].outputs
        }

    @property
    def numbers(self) -> dict[str, NumberTarget]:
        """The tasks whose outputs are in the units of the table, and these units."""
        targets = self.targets if self.predictions else {}
        return {task: target for task, target in targets.items() if isinstance(target, NumberTarget)}

    def free_axes(self, name: str) -> tuple[int, ...]:
        """The axes of an input's batch that may have any length in the file, the rows among them."""
        shape = self.model.graph.inputs[name].shape
        return (0, *(axis for axis, n in enumerate(shape, 1) if n is None and self.length is None))

    @property
    def has_free_length(self) -> bool:
        """Whether any axis beside the rows may have any length in the file."""
        return any(len(self.free_axes(name)) > 1 for name in self.inputs)

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Of axes that may have any: one to trace with, and two longer ones to check, which all encoders can read."""
        longest = min(_LONGEST, *(self._ids(name).longest or _LONGEST for name in self.inputs))
        return max(1, 2 * longest // 3), 5 * longest // 6, longest

    def _ids(self, name: str) -> Ids:
        return self.model.ids.get(name, Ids(None, None, None))

    def examples(self, rows: int, length: int) -> dict[str, Tensor]:
        """A random batch of each input, always the same; sequences of ids end in padding, some later than others."""
        generator = torch.Generator().manual_seed(rows)
        made = {}
        for name in self.inputs:
            one = self.model.graph.inputs[name]
            free = [self.length or length + _LONGER * index for index in range(len(one.shape))]
            sizes = [rows, *(free[index] if n is None else n for index, n in enumerate(one.shape))]
            if one.dtype == "int64":
                made[name] = _padded(sizes, self._ids(name), generator)
            else:
                made[name] = torch.randn(sizes, generator=generator, dtype=torch.float32)
        return made

    def outputs(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the file is to make of inputs by name, by task."""
        if not self.predictions:
            return self.model(x, self.tasks)
        numbers = self.numbers
        found = self.model.predict(x, self.tasks)
        return {task: numbers[task].in_units(y) if task in numbers else y for task, y in found.items()}

    def answers(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same, of which nothing is noted for gradients and no one's random state is drawn from."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return self.outputs(x)


def _on_cpu(tensor: Tensor) -> Tensor:
    copied = tensor.detach().cpu()
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def _padded(sizes: list[int], of: Ids, generator: torch.Generator) -> Tensor:
    ids = torch.randint(0, of.vocab or _FEWEST_IDS, sizes, generator=generator)
    if of.padding is not None and ids.ndim > 1:
        for row in range(len(ids)):
            ids[row, ids.shape[1] - row % ids.shape[1] :] = of.padding
    return ids
