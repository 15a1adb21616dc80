"""`sluice`: an encoder for each task, whose subspaces are mixed after each stage and whose stages are mixed at the end.

{"type": "sluice", "subspaces": 2, "same": 0.9, "orthogonality": 1e-3}

Ruder et al. 2019, "Latent Multi-task Architecture Learning" (sluice networks), section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
            weights that make two subspaces of a stage, so that subspaces differ.

    Raises:
        ValueError: the channels of a stage can't be cut into so many equal parts.
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
        names = [f"{task} {part}" if subspaces > 1 else task for task in tasks for part in range(subspaces)]
        self.alphas = nn.ModuleList(Mixing(names, names, diagonal(len(names), same)) for _ in shapes)
        lengths = trunk.stage_lengths
        alike = [shape == shapes[-1] and length == lengths[-1] for shape, length in zip(shapes, lengths, strict=True)]
        self._mixed_stages = [stage for stage, is_alike in enumerate(alike) if is_alike]
        first = diagonal(len(self._mixed_stages), same)[-1:] if len(self._mixed_stages) > 1 else torch.ones(1, 1)
        self.beta = Mixing(tasks, [f"stage {stage}" for stage in self._mixed_stages], first.repeat(len(tasks), 1))

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

    def penalty(self) -> Tensor | None:
        if not self.orthogonality:
            return None
        products = [
            (a @ b.T).square().sum()
            for column in self.trunks.values()
            for stage, width in zip(stages_of(column), self._channels, strict=True)
            for a, b in self._pairs(stage, width)
        ]
        return self.orthogonality * torch.stack(products).sum() if products else None

    def _pairs(self, stage: nn.Module, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The weights [rows, n] that make the channels of two subspaces, of each layer as wide as the stage."""
        for weight in stage.parameters():
            # Recurrent layers have the rows of three or four gates below one another.
            if weight.ndim < 2 or weight.shape[0] % width:
                continue
            for gate in weight.flatten(1).split(width):
                parts = gate.chunk(self.subspaces)
                yield from ((a, b) for i, a in enumerate(parts) for b in parts[:i])
