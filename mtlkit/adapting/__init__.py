"""Model surgery: a model of another spec that keeps what was learned. docs/surgery.md is the manual.

    other = mtlkit.adapt(model, new_spec)
    print(other.adapted)                        # what was kept, new and dropped

    model.add_task("price", {"outputs": 1})     # in place; parameters that stay are the same objects
    model.rename_task("price", "rent")
    model.remove_task("rent")

A weight is kept where one of its name fits: see `mtlkit.adapting.slots`. `parts` makes the parts of the new model, and
`tasks` the specs of adding, removing and renaming.
"""

from mtlkit.adapting.parts import adapt
from mtlkit.adapting.report import Adapted
from mtlkit.adapting.tasks import add_task, remove_task, rename_task

__all__ = ["Adapted", "adapt", "add_task", "remove_task", "rename_task"]
