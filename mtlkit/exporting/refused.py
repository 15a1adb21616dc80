"""What torch says of a model that it can't trace or write, as an error that names the part and the remedy.

with told(wanted, how):
    torch.export.export(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from torch.fx import Node

from mtlkit.errors import CheckpointError, Problem, SpecError
from mtlkit.exporting.format import Format
from mtlkit.exporting.wanted import Wanted
from mtlkit.model import Model
from mtlkit.registry import encoders, heads, losses

_LONGEST_CAUSE = 300


@contextmanager
def told(wanted: Wanted, how: Format) -> Iterator[None]:
    """Raise what goes wrong as an error that a user can act on.

    Raises:
        SpecError: whatever it was, but for refusals of the export itself, lack of memory and of room on the disk.
    """
    try:
        yield
    except (SpecError, CheckpointError, MemoryError):
        raise
    except Exception as error:  # whatever a part's forward, torch and its exporters raise
        place = _place(error, wanted.model)
        if isinstance(error, OSError) and not place.where:
            raise
        message = (
            f"{place.who} can't be exported to {how.name}{place.where}: {_reason(error)}. {_remedy(error, wanted, how)}"
        )
        raise SpecError([Problem(place.path, message)], "the model to export") from error


@dataclass(frozen=True)
class _Place:
    """Where it went wrong: the part's path in the spec, what it is, and the line of its code."""

    path: str
    who: str
    where: str = ""


def _place(error: Exception, model: Model) -> _Place:
    """The innermost module of the model through which the error came, or from which the node came that it is about."""
    parts = {id(module): (path, who) for path, who, part in _parts(model) for module in part.modules()}
    found = _Place("(the model)", "this model")
    for one in _chain(error):
        trace = one.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            module, node = frame.f_locals.get("self"), frame.f_locals.get("node")
            if isinstance(module, nn.Module) and id(module) in parts:
                line = f"{type(module).__name__}, {frame.f_code.co_filename}:{trace.tb_lineno}"
                found = _Place(*parts[id(module)], f" ({line})")
            elif isinstance(node, Node) and (behind := _module_of(node, model)) is not None and id(behind) in parts:
                found = _Place(*parts[id(behind)], f" ({type(behind).__name__})")
            trace = trace.tb_next
        if found.where:
            break
    return found


def _module_of(node: Node, model: Model) -> nn.Module | None:
    """The module whose forward a node of a traced program comes from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    path = [*stack.values()][-1][0]
    try:
        return model.get_submodule(path.removeprefix("model."))
    except AttributeError:
        return None


def _parts(model: Model) -> Iterator[tuple[str, str, nn.Module]]:
    """The parts of a model: path in the spec, what it is, and its module."""
    for encoder in model.graph.encoders.values():
        who = encoders.describe(encoder.part["type"]).who
        yield encoder.path, f"{who} with sharing {encoder.sharing['type']!r}", model.scheme(encoder.name)
    for task in model.graph.tasks.values():
        yield f"{task.path}.head", heads.describe(task.head["type"]).who, model.head(task.name)
        yield f"{task.path}.loss", losses.describe(task.loss["type"]).who, model.loss(task.name)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, in turn."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _reason(error: Exception) -> str:
    """The first words of what is at the bottom of an error."""
    last = [*_chain(error)][-1]
    text = " ".join(str(last).split()) or type(last).__name__
    return f"{type(last).__name__}: {text[:_LONGEST_CAUSE]}".rstrip(". ")


def _remedy(error: Exception, wanted: Wanted, how: Format) -> str:
    kinds = {type(one).__name__ for one in _chain(error)}
    text = "\n".join(map(str, _chain(error)))
    if any("DataDependent" in kind for kind in kinds) or "data-dependent" in text.lower():
        return (
            "It chooses by the values of tensors, which a file can't: write the choice with torch.where or a mask. "
            "tasks=[...] exports the tasks that do without"
        )
    remedies = []
    if wanted.has_free_length:
        remedies.append("fix the axes of any length with length=N (--length N)")
    if how.packages:
        remedies.append("export to pt2")
    remedies.append("export only the tasks that do without it with tasks=[...]")
    return f"To try: {'; '.join(remedies)}"
