"""A model as a tree for the terminal."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from mtlkit.feature import written
from mtlkit.graph import Encoder
from mtlkit.model import Model
from mtlkit.show.parts import parts_of
from mtlkit.show.reached import Reached
from mtlkit.show.wording import count, encoder_type, said, shared_by, task_line, tasks_on


def tree(model: Model) -> Tree:
    """The model as a tree: inputs, and below each encoder its parts and the tasks that stand on it."""
    reached = Reached.of(model)
    shared, single = reached.counts
    root = Tree(_line("", "model", f"  {shared + single:,} parameters: {shared:,} shared, {single:,} of single tasks"))
    if reached.doubt:
        root.add(
            Text(
                "the forward pass fails on examples of zeros, so that what follows is only which tasks need the "
                f"encoder, not which reach a parameter: {reached.doubt}"
            )
        )
    for one in model.graph.inputs.values():
        root.add(_line("input ", one.name, f"  {written(one.shape)} {one.dtype}"))
    for encoder in model.graph.encoders.values():
        branch = root.add(_line("encoder ", encoder.name, _encoder(model, encoder, reached)))
        for part in parts_of(model.scheme(encoder.name), reached):
            branch.add(_line("", part.name, f"  {said(part, reached.everyone)}"))
        for alike in tasks_on(model, encoder.name):
            kind = "task " if len(alike.tasks) == 1 else f"{len(alike.tasks)} tasks "
            branch.add(_line(kind, alike.names, f": {task_line(model, alike)}"))
    return root


def _line(before: str, name: str, after: str) -> Text:
    return Text.assemble(before, (name, "bold"), after)


def _encoder(model: Model, encoder: Encoder, reached: Reached) -> str:
    shapes = " + ".join(written(model.shapes[source]) for source in encoder.sources)
    reads = f"{', '.join(encoder.sources)} {shapes} -> {written(model.shapes[encoder.key])}"
    parameters = f"{count(model.scheme(encoder.name)):,} parameters"
    return f": {encoder_type(model, encoder)}  {reads}  {parameters}, {shared_by(model, encoder, reached)}"
