"""What a sharing scheme shares: a maker of equal encoders, and what schemes do with these.

A scheme is a factory that takes `(trunk, tasks, *, options)` and gives an `nn.Module` with

    forward(x, mask, tasks) -> {task: (features, mask)}       # only for the tasks asked for

    @mtlkit.sharings.register("averaged")
    class Averaged(nn.Module):
        def __init__(self, trunk, tasks, *, copies: int = 3):
            super().__init__()
            self.copies = Columns(trunk, map(str, range(copies)))

        def forward(self, x, mask, tasks):
            made = self.copies.run(dict.fromkeys(self.copies.names, (x, mask)))
            return dict.fromkeys(tasks, mixed(list(made.values()), torch.full((len(made),), 1 / len(made))))

Optional members of a scheme:

    output_shape      the shape of its features, where that is not the trunk's
    common_encoder    the encoder whose features all tasks get as they are: others may then read it, and its stages
    origins           which of its weights begin as the encoder's where a model is adapted that had one for all tasks:
                      {its own name: the name in the encoder}; what has the same name as under `hard` need not be there
    penalty()         a scalar of its parameters that is added to the sum of the losses, or None for nothing

Modules of a scheme with `rows` and `columns`, the names of what reads and what is read, whose forward gives weights
[..., rows, columns], can be watched: `Mixing` and `Gate` of `mtlkit.sharing.layer` are such. A module whose weights go
by the order of tasks has `columns` at least, so that a model that is adapted keeps them for these tasks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import nn

from mtlkit.batching import in_rows, run_rows
from mtlkit.feature import PROBE, Shape, Value, feature_shape, run, stages_of, traced_shape
from mtlkit.naming import ByName, module_name


@dataclass(frozen=True)
class Trunk:
    """Makes encoders of one kind: what a checked part describes, on features of one shape.

    Attributes:
        make: gives a new encoder with parameters of its own; they are drawn when it is called.
        input_shape: the shape of an example of what the encoder reads.
        output_shape: the shape of an example of its features.
        input_dtype: of what it reads.
    """

    make: Callable[[], nn.Module]
    input_shape: Shape
    output_shape: Shape
    input_dtype: torch.dtype = torch.float32

    @cached_property
    def stage_shapes(self) -> tuple[Shape, ...]:
        """The shape of an example after each stage. An encoder without stages is one stage."""
        return (*self._shapes(self.input_shape, feature_shape)[:-1], self.output_shape)

    @cached_property
    def stage_sizes(self) -> tuple[Shape, ...]:
        """The same of an input whose axes of any length are `PROBE` long.

        Features of any length correspond place by place where these agree, not where only their shapes do.
        """
        return self._shapes(tuple(PROBE if n is None else n for n in self.input_shape), traced_shape)

    def _shapes(self, shape: Shape, shape_of: Callable[..., Shape]) -> tuple[Shape, ...]:
        # What is made here only to look at it draws no random numbers and takes no memory.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            dtype, found = self.input_dtype, []
            for stage in stages_of(self.make()):
                shape = shape_of(stage, shape, dtype)
                dtype = torch.float32
                found.append(shape)
        return tuple(found)


class Columns(ByName[nn.Module]):
    """Encoders of one kind, each with parameters of its own, by name.

    columns = Columns(trunk, ["digit", "slant"])
    columns.run({"digit": (x, mask), "slant": (x, mask)})            # {"digit": (features, mask), "slant": ...}
    columns.run(values, 0, 2)                                        # after their first two stages
    columns.run(values, together=True)                               # as one computation, where that is faster
    """

    def __init__(self, trunk: Trunk, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__({name: trunk.make() for name in self.names})

    def origins(self, place: str) -> dict[str, str]:
        """The `origins` of a scheme that has these columns as `place`: each may begin as the encoder."""
        return {
            f"{place}.{module_name(name)}.{weight}": weight
            for name in self.names
            for weight in self.of(name).state_dict()
        }

    def run(
        self, values: Mapping[str, Value], start: int = 0, stop: int | None = None, *, together: bool = False
    ) -> dict[str, Value]:
        """What the columns named in `values` make of these: their stages from `start` to before `stop`.

        Args:
            values: features and mask, by the column that reads them.
            start: the first stage.
            stop: the stage before which it ends; the last one is run too if left out.
            together: whether each that reads one of the results reads them all. Only then may columns run as one (see
                `mtlkit.batching`): what a task has alone would else be shared, as far as autograd can tell.
        """
        columns = [_parts(self.of(name), start, stop) for name in values]
        rows, _ = in_rows(columns, [*values.values()]) if together else ([], "")
        if rows:
            made: list[Value] = [(x, None) for x in run_rows(rows, [x for x, _ in values.values()])]
        else:
            made = [run(parts, *value) for parts, value in zip(columns, values.values(), strict=True)]
        return dict(zip(values, made, strict=True))


def _parts(column: nn.Module, start: int, stop: int | None) -> list[nn.Module]:
    """The modules that applied in turn are these stages of a column."""
    return [column] if start == 0 and stop is None else stages_of(column)[start:stop]


def common_encoder(scheme: nn.Module) -> nn.Module | None:
    """The encoder whose features all tasks of a scheme get as they are; None where tasks get features of their own."""
    return getattr(scheme, "common_encoder", None)


def origins(scheme: nn.Module) -> Mapping[str, str]:
    """Which weights of a scheme begin as those of one encoder for all tasks: {its own name: that in the encoder}."""
    return getattr(scheme, "origins", {})


def cut(stages: int, levels: int) -> list[tuple[int, int]]:
    """`stages` stages cut into levels of about as many each: (from, to before) of each level."""
    return [*pairwise(stages * level // levels for level in range(levels + 1))]
