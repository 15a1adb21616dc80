"""From names to objects: the modules of a spec's parts, and errors that say where in the spec they belong.

make_head(graph.tasks["digit"], (64,))           # what heads["linear"] makes for the task, or SpecError at its path
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mtlkit.errors import MtlkitError, PluginError, Problem, SpecError, shown
from mtlkit.feature import Shape
from mtlkit.graph import Encoder, Graph, Task
from mtlkit.part import Part, make
from mtlkit.registry import Registry, heads, losses, sharings
from mtlkit.trunk import Trunk


def make_scheme(node: Encoder, trunk: Trunk, graph: Graph) -> nn.Module:
    """The sharing scheme of an encoder, which holds the encoder itself."""
    return make_module(sharings, node.sharing, node.sharing_path, trunk, graph.tasks_on(node.name))


def make_head(task: Task, shape: Shape) -> nn.Module:
    """The head of a task on features of this shape."""
    return make_module(heads, task.head, f"{task.path}.head", shape, task.outputs)


def make_loss(task: Task) -> nn.Module:
    """The loss of a task."""
    return make_module(losses, task.loss, f"{task.path}.loss", task.outputs)


def make_module(registry: Registry, part: Part, path: str, *context: object) -> nn.Module:
    """What a part's factory makes, which must be a module; whatever goes wrong is a problem at `path`."""
    with told(path, who(registry, part)):
        made = make(registry, part, *context)
    if not isinstance(made, nn.Module):
        raise PluginError(f"{path}: {who(registry, part)} made {shown(made)}, expected a torch.nn.Module.")
    return made


def who(registry: Registry, part: Part) -> str:
    """Whose a part is, for messages: what it is, its name and its owner."""
    return registry.describe(part["type"]).who


class told:
    """Turns what a part raises into a SpecError at its path. A factory says by a ValueError what it can't do."""

    def __init__(self, path: str, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Also SystemExit and other exceptions that are no `Exception`: a plugin must not end the program.
        if error is None or isinstance(error, MtlkitError | KeyboardInterrupt):
            return
        if isinstance(error, ValueError):
            raise problem_at(self.path, str(error)) from error
        detail = str(error).partition("\n")[0]
        raise problem_at(self.path, f"{self.what} can't be built: {type(error).__name__}: {detail}") from error


def problem_at(path: str, message: str) -> SpecError:
    """The error of one problem."""
    return SpecError([Problem(path, message)])
