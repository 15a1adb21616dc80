"""A model drawn as text: a tree for the terminal, or Mermaid for a page.

    print(mermaid(model))
    Console().print(tree(model))

Each encoder is drawn with its shapes, its parameters and the tasks that share it, each task below what it stands on.
"""

from __future__ import annotations

from rich.markup import escape
from rich.tree import Tree
from torch import nn

from mtlkit.feature import written
from mtlkit.graph import Encoder, Task, owner
from mtlkit.model import Model
from mtlkit.naming import module_name


def tree(model: Model) -> Tree:
    """The model as a tree: inputs, and below each encoder the tasks that stand on it."""
    shared, single = counts(model)
    root = Tree(f"[bold]model[/bold]  {shared + single:,} parameters: {shared:,} shared, {single:,} of single tasks")
    for one in model.graph.inputs.values():
        root.add(f"input [bold]{escape(one.name)}[/bold]  {escape(written(one.shape))} {one.dtype}")
    for encoder in model.graph.encoders.values():
        branch = root.add(
            escape(_encoder_line(model, encoder)).replace(encoder.name, f"[bold]{encoder.name}[/bold]", 1)
        )
        for task in model.graph.tasks.values():
            if owner(task.on) == encoder.name:
                branch.add(escape(_task_line(model, task)))
    return root


def mermaid(model: Model) -> str:
    """The model as a Mermaid flowchart, for Markdown."""
    names = {one.name: f"i{index}" for index, one in enumerate(model.graph.inputs.values())}
    names |= {encoder.key: f"e{index}" for index, encoder in enumerate(model.graph.encoders.values())}
    names |= {task.key: f"t{index}" for index, task in enumerate(model.graph.tasks.values())}
    lines = ["flowchart LR"]
    for one in model.graph.inputs.values():
        lines.append(f'  {names[one.name]}(["{_quoted(one.name)}<br/>{_quoted(written(one.shape))}"])')
    for encoder in model.graph.encoders.values():
        parameters = _count(model.scheme(encoder.name))
        what = f"{encoder.part['type']}, {parameters:,} parameters<br/>{encoder.sharing['type']}"
        lines.append(f'  {names[encoder.key]}["{_quoted(encoder.name)}<br/>{what}"]')
    for task in model.graph.tasks.values():
        what = f"{task.head['type']} of {task.outputs}<br/>{task.loss['type']}"
        lines.append(f'  {names[task.key]}[["{_quoted(task.name)}<br/>{what}"]]')
    for node in model.graph.order:
        for source in node.sources:
            stage = f'|"stage {source.partition(":")[2]}"| ' if owner(source) != source else ""
            lines.append(f"  {names[owner(source)]} --> {stage}{names[node.key]}")
    return "\n".join(lines)


def counts(model: Model) -> tuple[int, int]:
    """The numbers of parameters that several tasks share, and that belong to one task."""
    total = _count(model)
    single = sum(_count(head) for head in model.heads.values()) + _count(model.losses)
    for encoder in model.graph.encoders.values():
        users = users_of(model, encoder)
        scheme = model.scheme(encoder.name)
        single += _count(scheme) if len(users) == 1 else sum(_own(scheme, task) for task in users)
    return total - single, single


def users_of(model: Model, encoder: Encoder) -> tuple[str, ...]:
    """The tasks that need an encoder."""
    return tuple(task for task in model.tasks if encoder.key in model.graph.needed([task]))


def _own(scheme: nn.Module, task: str) -> int:
    """The parameters of a scheme that are one task's: a module of theirs bears its name."""
    name = module_name(task)
    return sum(p.numel() for key, p in scheme.named_parameters() if name in key.split("."))


def _encoder_line(model: Model, encoder: Encoder) -> str:
    users = users_of(model, encoder)
    shapes = " + ".join(written(model.shapes[source]) for source in encoder.sources)
    reads = f"{', '.join(encoder.sources)} {shapes} -> {written(model.shapes[encoder.key])}"
    parameters = f"{_count(model.scheme(encoder.name)):,} parameters"
    by = f"{encoder.sharing['type']}, of {_listed(users)}"
    return f"encoder {encoder.name}: {encoder.part['type']}  {reads}  {parameters}, {by}"


def _task_line(model: Model, task: Task) -> str:
    weight = "" if task.weight == 1 else f", weight {task.weight:g}"
    shape = written(model.shapes[task.key])
    return (
        f"task {task.name}: {task.head['type']} on {task.on} -> {shape}  {_count(model.head(task.name)):,} parameters, "
        f"{task.loss['type']}{weight}"
    )


def _listed(tasks: tuple[str, ...]) -> str:
    return ", ".join(tasks) if len(tasks) <= 6 else f"{', '.join(tasks[:5])} and {len(tasks) - 5} more"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _quoted(text: str) -> str:
    """Mermaid reads a label's quotes and brackets as its own; as entities they are text."""
    return "".join(f"#{ord(c)};" if c in '"#<>[](){}|&' else c for c in text)
