"""Who takes what of whom? The weights of a sharing scheme, its gates and coefficients, watched while they train.

    monitor = mtlkit.SharingMonitor(every=50, path="sharing.png")
    history = mtlkit.Trainer(model, callbacks=[monitor]).fit(data)
    history.sharing[-1]["weights"]["encoder.gates"]      # [tasks, experts]

What is trained stays the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.errors import PluginError, SpecError
from mtlkit.model import Model
from mtlkit.naming import name_of
from mtlkit.train.history import History
from mtlkit.train.trainer import Trainer
from mtlkit.train.watch.base import Watch
from mtlkit.train.watch.sharing_picture import draw
from mtlkit.train.wrong import wrong

WITH_WEIGHTS = "adatt, branching, cgc, cross_stitch, dselect_k, mmoe, ple, sluice"


class SharingMonitor(Watch):
    """Records the weights under which a sharing scheme's readers, the tasks say, read its features, in
    `history.sharing`.

    A record is of one step: `step`, counted from 1, and by the name of each matrix, "encoder.gates" say, its `weights`
    [rows, columns], the names of its `rows`, which read, and of its `columns`, which are read. The weights are the mean
    over the examples, channels and forward passes of the step. What is not known is NaN: a gate that did not run, since
    its task has no labels in the batch; features that a reader can't read. The gates of several tasks at one place are
    the rows of one matrix. In several processes it is the mean over those whose slice of the batch runs them.

    Watched is each module of a scheme that has `rows` and `columns` (see `mtlkit.trunk`), a plugin's as well.

    Args:
        every: steps from one record to the next; the first step is recorded.
        path: a PNG to write at the end of the fit: of each matrix a heat map of the last record, and its course.

    Raises:
        ValueError: `every` is no positive integer, or `path` names no PNG.
        MtlkitError: a path is given and matplotlib is not installed, or the picture can't be written.
        SpecError: at the start of a fit, where the model has no such weights, or is compiled, which hides them.
        PluginError: a module's weights are not as many as its rows and columns.
    """

    def __init__(self, every: int = 100, path: str | Path | None = None) -> None:
        super().__init__(every, path)
        self._matrices: list[Matrix] = []
        self._runs: dict[nn.Module, list[Tensor]] = {}
        self._hooks: list[Any] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        self._matrices = matrices_of(trainer.model)
        if not self._matrices:
            raise _refused(f"the model has no weights to record. Sharing schemes that have some: {WITH_WEIGHTS}")
        if trainer.settings["compile"]:
            raise _refused("compile = true hides the weights. Leave one of them out")
        super().on_fit_start(trainer)
        trainer.at_end.callback(self._leave)
        self._watch(trainer)

    def on_pass_failed(self, trainer: Trainer) -> None:
        # It is made again without what failed, and is itself none of the step that trains.
        self._runs.clear()

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        if self._hooks:
            trainer.history.sharing.append(
                {
                    "step": trainer.step,
                    "weights": {
                        matrix.name: trainer.processes.mean(matrix.gathered(self._runs)) for matrix in self._matrices
                    },
                    "rows": {matrix.name: matrix.rows for matrix in self._matrices},
                    "columns": {matrix.name: matrix.columns for matrix in self._matrices},
                }
            )
        self._watch(trainer)

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if self.path is not None and history.sharing and trainer.processes.first:
            draw(history.sharing, self.path, self.use)

    def _watch(self, trainer: Trainer) -> None:
        """Watch the modules in the next step, if it is one of those."""
        self._leave()
        if trainer.step % self.every == 0:
            modules = [module for matrix in self._matrices for module in matrix.modules]
            self._hooks = [module.register_forward_hook(self._keeper(module)) for module in modules]

    def _keeper(self, module: Any) -> Any:
        """A forward hook that keeps the weights of each run in training, [rows, columns], on the device."""
        size = len(module.rows), len(module.columns)

        def keep(called: nn.Module, _: Any, output: Any) -> None:
            # A copy of the model has the hooks, too. Without gradients it is a look at what was learned, not a step.
            if called is not module or not module.training or not torch.is_grad_enabled():
                return
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            rows_may_lack = size[0] == 1 and shape is not None and shape[-1:] == size[1:]
            if shape is None or (shape[-2:] != size and not rows_may_lack):
                found = type(output).__name__ if shape is None else list(shape)
                raise PluginError(
                    f"{type(module).__name__} has {size[0]} rows and {size[1]} columns, so its forward is to give "
                    f"weights [..., {size[0]}, {size[1]}]; found {found}"
                )
            weights = output.detach().float().reshape(-1, *size)
            self._runs.setdefault(module, []).append(weights.mean(0))

        return keep

    def _leave(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._runs.clear()


@dataclass(frozen=True)
class Matrix:
    """Weights of one place: of one module, or of modules whose rows stand below one another."""

    name: str
    modules: tuple[Any, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(row for module in self.modules for row in module.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is read, what few read before what many read."""
        readers: dict[str, int] = {}
        for module in self.modules:
            for column in module.columns:
                readers[column] = readers.get(column, 0) + len(module.rows)
        return tuple(sorted(readers, key=lambda column: readers[column]))

    def gathered(self, runs: Mapping[nn.Module, Sequence[Tensor]]) -> Tensor:
        """[rows, columns], on the CPU: of each module the mean of its runs."""
        columns, parts = self.columns, []
        for module in self.modules:
            part = torch.full((len(module.rows), len(columns)), torch.nan)
            if runs.get(module):
                mean = torch.stack([*runs[module]]).mean(0).cpu()
                part[:, [columns.index(column) for column in module.columns]] = mean
            parts.append(part)
        return torch.cat(parts)


def matrices_of(model: Model) -> list[Matrix]:
    """The weights of a model that can be watched, place by place."""
    found = [one for encoder in model.graph.encoders for one in _weighing(model.scheme(encoder), encoder)]
    made: list[Matrix] = []
    for (place, merges), group in groupby(found, key=lambda one: one[1:3]):
        members = [(name, module) for name, _, _, module in group]
        rows = [row for _, module in members for row in module.rows]
        # Modules by name are of different readers; modules in a list follow one another.
        if merges and len(set(rows)) == len(rows) and len(members) > 1:
            made.append(Matrix(place, tuple(module for _, module in members)))
        else:
            made += [Matrix(name, (module,)) for name, module in members]
    return made


def _weighing(module: nn.Module, name: str) -> Iterator[tuple[str, str, bool, Any]]:
    """Each module that weighs: its name, that of what holds it, whether it is held by name, and the module."""
    for key, child in module.named_children():
        inner = f"{name}.{name_of(key)}"
        if _is_names(getattr(child, "rows", None)) and _is_names(getattr(child, "columns", None)):
            yield inner, name, isinstance(module, nn.ModuleDict), child
        else:
            yield from _weighing(child, inner)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(name, str) for name in value)


def _refused(message: str) -> SpecError:
    return wrong("callbacks", f"found a SharingMonitor, and {message}")
