"""A model drawn as text: a tree for the terminal, or Mermaid for a page.

    print(mermaid(model))
    Console().print(tree(model))

Each encoder is drawn with its shapes, its parameters and the tasks that share it, below it the parts of its sharing
scheme with the tasks that reach them, and each task below what it stands on. What is many and alike is drawn as one.
"""

from mtlkit.model import Model
from mtlkit.show.flowchart import mermaid
from mtlkit.show.reached import Reached
from mtlkit.show.terminal import tree

__all__ = ["Reached", "counts", "mermaid", "tree"]


def counts(model: Model) -> tuple[int, int]:
    """The numbers of parameters that several tasks share, and that belong to one task."""
    return Reached.of(model).counts
