"""What a model costs, from its spec alone: parameters, FLOPs, memory of a training step, and what balancing adds.

    cost = Cost.of(spec, batch=64)                 # nothing is computed, no memory is taken
    cost.step.forward + cost.step.backward         # FLOPs of a step
    cost.memory["activations"]                     # bytes that autograd keeps between forward and backward

FLOPs are those of matrix products, convolutions and attention, two a multiplication with its addition, as
`torch.utils.flop_counter` counts them; what is done element by element is not counted. Memory is that of float32 and
Adam, of tensors alone: what the allocator, the libraries and single operations take beside comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtlkit.model import Model
from mtlkit.show.balanced import Mode, modes, plain
from mtlkit.show.few import Few, on_meta
from mtlkit.show.wording import count, encoder_type, tasks_on
from mtlkit.show.work import Walked, Work, kinds, walk
from mtlkit.source import read

_ADAM = 2  # its averages of each gradient and of its square


@dataclass(frozen=True)
class Row:
    """An encoder with its sharing scheme, or the heads of tasks that are alike, with their losses.

    Attributes:
        kind: "encoder" or "heads".
        name: of the encoder, or of the tasks.
        what: a person's words for it.
        parameters: of all in it.
        work: of a batch; None where it is not known.
    """

    kind: str
    name: str
    what: str
    parameters: int
    work: Work | None


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        batch: examples of a step.
        length: what stands for an axis of any length; None where there is none.
        rows: encoders, each before the heads on it.
        memory: bytes of a step with Adam, by what they are for; without "activations" where these are not known.
        modes: what balancing adds.
        notes: what the figures leave out; why some are not known.
    """

    batch: int
    length: int | None
    rows: tuple[Row, ...]
    memory: Mapping[str, int]
    modes: tuple[Mode, ...]
    notes: tuple[str, ...]

    @staticmethod
    def of(spec: Mapping[str, Any] | str | Path, *, batch: int = 64, length: int = 128, balanced: bool = True) -> Cost:
        """Of a spec, or the path of a file with one.

        Args:
            spec: as `build_model` takes it; also of a model larger than that allows.
            batch: examples of a step.
            length: stands for each axis of any length.
            balanced: whether to look for what ways of balancing add, beside the plain sum.

        Raises:
            SpecError: as `build_model` does.
        """
        model = on_meta(read(spec))
        few = Few.of(model)
        open_ended = any(None in one.shape for one in model.graph.inputs.values())
        walked, notes = _walked(model, batch, length)
        memory = _memory(model, walked, few)
        rows = [row for name in model.graph.encoders for row in _rows(model, name, walked)]
        found = modes(few, walked) if balanced else [plain(few, walked)]
        return Cost(batch, length if open_ended else None, tuple(rows), memory, tuple(found), tuple(notes))

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return sum(row.parameters for row in self.rows)

    @property
    def step(self) -> Work | None:
        """The work of a step of `sum`; None where it is not known."""
        found = [row.work for row in self.rows]
        return sum((work for work in found if work is not None), Work()) if None not in found else None


def _walked(model: Model, batch: int, length: int) -> tuple[Walked | None, list[str]]:
    try:
        walked = walk(model, batch, length)
    except Exception as error:  # noqa: BLE001  # whatever a forward does that looks into values, or can't read a length
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return None, [f"FLOPs and activations are not known: without values its forward pass fails ({reason})"]
    notes = [f"what the loss {name!r} does is not counted: it looks into values" for name in sorted(walked.uncounted)]
    if any(isinstance(module, nn.LSTM) for module in model.modules()):
        notes.append("on a CPU an LSTM keeps over twice the activations that are counted here, in a layout of oneDNN's")
    return walked, notes


def _rows(model: Model, name: str, walked: Walked | None) -> list[Row]:
    encoder, scheme = model.graph.encoders[name], model.scheme(name)
    what = f"{encoder_type(model, encoder)}, {encoder.sharing['type']}"
    found = [Row("encoder", name, what, count(scheme), None if walked is None else walked.of[name])]
    first = {task.name: tasks[0].key for tasks in kinds(model) for task in tasks}
    for alike in tasks_on(model, name):
        names = [task.name for task in alike.tasks]
        number, kind = len(names), alike.tasks[0].head["type"]
        heads = f"{number:,} heads " if number > 1 else ""
        what = f"{heads}{kind}, {alike.outputs} output{'s' * (alike.outputs != '1')}, {alike.tasks[0].loss['type']}"
        parameters = sum(count(model.head(task)) + count(model.loss(task)) for task in names)
        work = None if walked is None else sum((walked.of[first[task]] for task in names), Work())
        found.append(Row("heads", alike.names, what, parameters, work))
    return found


def _memory(model: Model, walked: Walked | None, few: Few) -> dict[str, int]:
    trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
    held = sum(map(_bytes, (*model.parameters(), *model.buffers())))
    memory = {"parameters": held, "gradients": trained, "optimizer": _ADAM * trained}
    if walked is not None:
        memory["activations"] = sum(work.kept * few.weight(key) for key, work in walked.of.items())
    return memory


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
