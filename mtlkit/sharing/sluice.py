"""`sluice`: an encoder for each task, whose subspaces are mixed after each stage and whose stages are mixed at the end.

{"type": "sluice", "subspaces": 2, "same": 0.9, "orthogonality": 1e-3}

Ruder et al. 2019, "Latent Multi-task Architecture Learning" (sluice networks), section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Value, feature_axis, stages_of, written
from mtlkit.option import Depth, Fraction, NotNegative
from mtlkit.sharing.layer import Mixing, channels, combined, diagonal, mixed
from mtlkit.trunk import Columns, Trunk


class Sluice(nn.Module):
    """An encoder for each task. The channels of a stage are cut into subspaces, which all tasks' next stages read under
    learned weights (alpha); a task's features are a learned sum (beta) of those of its stages that have the shape of
    the last, as all have in the recurrent networks of the paper.

    Args:
        subspaces: into how many parts the channels are cut, for some to be shared and others not.
        same: the first weight of a subspace's own features, and of the last stage; the others share the rest of 1.
        orthogonality: what is added to the losses is this times the squared Frobenius norms of the products of the
            weights that make two subspaces of a stage, so that subspaces differ: those of its linear, convolutional,
            recurrent and embedding layers that are as wide as the stage.

    Raises:
        ValueError: the channels of a stage can't be cut into so many equal parts, or no layer is held orthogonal.
    """

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        subspaces: Depth = 2,
        same: Fraction = 0.9,
        orthogonality: NotNegative = 1e-3,
    ) -> None:
        super().__init__()
        self.subspaces, self.orthogonality = subspaces, orthogonality
        shapes = trunk.stage_shapes
        self._axes = [feature_axis(shape) + 1 for shape in shapes]
        self._channels = [channels(shape, "sluice") for shape in shapes]
        for stage, (shape, width) in enumerate(zip(shapes, self._channels, strict=True)):
            if width % subspaces:
                raise ValueError(
                    f"sluice cuts the channels of each stage into {subspaces} equal subspaces; stage {stage} gives "
                    f"{written(shape)}, {width} channels. Choose a width that is a multiple, or other subspaces"
                )
        self.trunks = Columns(trunk, tasks)
        if orthogonality and subspaces > 1 and not self._is_held():
            raise ValueError(
                "sluice finds no layer of this encoder whose weights it could hold orthogonal. Set orthogonality = 0"
            )
        names = [f"{task} {part}" if subspaces > 1 else task for task in tasks for part in range(subspaces)]
        self.alphas = nn.ModuleList(Mixing(names, names, diagonal(len(names), same)) for _ in shapes)
        sizes = trunk.stage_sizes
        self._mixed_stages = [stage for stage, size in enumerate(sizes) if size == sizes[-1]]
        first = diagonal(len(self._mixed_stages), same)[-1:]
        self.beta = Mixing(tasks, [f"stage {stage}" for stage in self._mixed_stages], first.repeat(len(tasks), 1))

    @property
    def origins(self) -> dict[str, str]:
        return self.trunks.origins("trunks")

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        everyone = self.trunks.names
        values = dict.fromkeys(everyone, (x, mask))
        kept: dict[str, list[Value]] = {task: [] for task in tasks}
        for stage, alpha in enumerate(self.alphas):
            values = self.trunks.run(values, stage, stage + 1, together=True)
            readers = tasks if stage == len(self.alphas) - 1 else everyone
            values = self._exchanged(values, readers, alpha(), self._axes[stage])
            if stage in self._mixed_stages:
                for task, found in kept.items():
                    found.append(values[task])
        beta = self.beta()
        return {task: mixed(found, beta[everyone.index(task)]) for task, found in kept.items()}

    def _exchanged(
        self, values: dict[str, Value], readers: Sequence[str], alpha: Tensor, axis: int
    ) -> dict[str, Value]:
        """What the readers read: each subspace a sum of all tasks' subspaces."""
        everyone, n = self.trunks.names, self.subspaces
        parts = torch.stack([part for x, _ in values.values() for part in x.chunk(n, axis)])  # [tasks * n, B, ...]
        rows = [everyone.index(task) * n + part for task in readers for part in range(n)]
        made = combined(alpha[rows], parts).unflatten(0, (len(readers), n))
        joined = torch.cat(made.unbind(1), axis + 1)  # [readers, B, ...]
        return {task: (y, values[task][1]) for task, y in zip(readers, joined, strict=True)}

    def _is_held(self) -> bool:
        """Whether any stage has a layer for the penalty."""
        stages = zip(stages_of(next(iter(self.trunks.values()))), self._channels, strict=True)
        return any(True for stage, width in stages for _ in channel_weights(stage, width))

    def penalty(self) -> Tensor | None:
        if not self.orthogonality or self.subspaces == 1:
            return None
        products = [
            (a @ b.T).square().sum()
            for column in self.trunks.values()
            for stage, width in zip(stages_of(column), self._channels, strict=True)
            for rows in channel_weights(stage, width)
            for a, b in combinations(rows.chunk(self.subspaces), 2)
        ]
        return self.orthogonality * torch.stack(products).sum()


def channel_weights(stage: nn.Module, width: int) -> Iterator[Tensor]:
    """Weights [width, n] of which each row makes a channel of a stage, one matrix for each layer that is as wide."""
    for module in stage.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and module.weight.shape[0] == width:
            yield module.weight.flatten(1)
        elif isinstance(module, nn.Embedding) and module.embedding_dim == width:
            yield module.weight.T
    cells: list[nn.RNNBase] = []
    for module in reversed([*stage.modules()]):
        if isinstance(module, nn.RNNBase) and sum(cell.hidden_size for cell in cells) < width:
            cells.insert(0, module)
    if sum(cell.hidden_size for cell in cells) != width:
        return
    for name in ("weight_ih_l0", "weight_hh_l0"):
        # The gates lie below one another; the channels of a stage are those of one direction and then of the other.
        gates = [getattr(cell, name).split(cell.hidden_size) for cell in cells]
        for of_one_gate in zip(*gates, strict=True):
            # Directions read the same input, so that their rows can be compared.
            yield torch.cat(of_one_gate)
