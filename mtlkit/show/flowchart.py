"""A model as a Mermaid flowchart, for Markdown.

A scheme that is more than one encoder is a subgraph of its parts. Solid arrows are features. A dotted arrow leads from
a part to the tasks that reach it, where not all tasks on the encoder do.
"""

from __future__ import annotations

from collections.abc import Iterator

from mtlkit.feature import written
from mtlkit.graph import Encoder, owner
from mtlkit.model import Model
from mtlkit.show.parts import Part, parts_of
from mtlkit.show.reached import Reached
from mtlkit.show.wording import Alike, count, encoder_type, said, tasks_on

_MOST_ARROWS = 3  # from a part to tasks

_READ_BY_MERMAID = '"#<>[](){}|&`%;\\'


def mermaid(model: Model, reached: Reached | None = None) -> str:
    """The model as a Mermaid flowchart, for Markdown. `reached` is found where it is not given."""
    reached = Reached.of(model) if reached is None else reached
    alike = [group for name in model.graph.encoders for group in tasks_on(model, name)]
    ids = {one.name: f"i{index}" for index, one in enumerate(model.graph.inputs.values())}
    ids |= {encoder.key: f"e{index}" for index, encoder in enumerate(model.graph.encoders.values())}
    ids |= {task.key: f"t{index}" for index, group in enumerate(alike) for task in group.tasks}
    lines = ["flowchart LR"]
    if reached.doubt:
        words = "which tasks reach a part is not known:<br/>the forward pass fails on examples of zeros"
        lines.append(f'  note["{words}"]')
    for one in model.graph.inputs.values():
        lines.append(f'  {ids[one.name]}(["{_quoted(one.name)}<br/>{_quoted(written(one.shape))}"])')
    dotted: list[str] = []
    for encoder in model.graph.encoders.values():
        parts = parts_of(model.scheme(encoder.name), reached)
        lines += _encoder(model, encoder, ids[encoder.key], parts, reached)
        dotted += _dotted(model, encoder, parts, ids)
    lines += [_task(group, ids[group.tasks[0].key]) for group in alike]
    return "\n".join([*lines, *dict.fromkeys(_solid(model, ids)), *dotted])


def _encoder(model: Model, encoder: Encoder, key: str, parts: list[Part], reached: Reached) -> list[str]:
    """A node, or a subgraph of parts."""
    parameters = f"{encoder_type(model, encoder)}, {count(model.scheme(encoder.name)):,} parameters"
    label = f'{key}["{_quoted(encoder.name)}<br/>{_quoted(parameters)}<br/>{_quoted(encoder.sharing["type"])}"]'
    if not parts:
        return [f"  {label}"]
    inside = [
        f'    {key}p{index}["{_quoted(part.name)}<br/>{_quoted(said(part, reached.everyone))}"]'
        for index, part in enumerate(parts)
    ]
    return [f"  subgraph {label}", *inside, "  end"]


def _dotted(model: Model, encoder: Encoder, parts: list[Part], ids: dict[str, str]) -> Iterator[str]:
    on = model.graph.tasks_on(encoder.name)
    for index, part in enumerate(parts):
        keys = dict.fromkeys(ids[model.graph.tasks[task].key] for task in on if task in part.tasks)
        if len(part.tasks) < len(on) and len(keys) <= _MOST_ARROWS:
            yield from (f"  {ids[encoder.key]}p{index} -.-> {key}" for key in keys)


def _solid(model: Model, ids: dict[str, str]) -> Iterator[str]:
    for node in model.graph.order:
        for source in node.sources:
            stage = f'|"stage {source.partition(":")[2]}"| ' if owner(source) != source else ""
            yield f"  {ids[owner(source)]} --> {stage}{ids[node.key]}"


def _task(alike: Alike, key: str) -> str:
    first = alike.tasks[0]
    name = alike.names if len(alike.tasks) == 1 else f"{len(alike.tasks)} tasks: {alike.names}"
    what = f"{_quoted(first.head['type'])} of {alike.outputs}<br/>{_quoted(first.loss['type'])}"
    return f'  {key}[["{_quoted(name)}<br/>{what}"]]'


def _quoted(text: str) -> str:
    """Mermaid reads a label's quotes and brackets as its own; as entities they are text."""
    return "".join(f"#{ord(c)};" if c in _READ_BY_MERMAID or not c.isprintable() else c for c in text)
