"""Which tasks should share? A run file with one encoder for all tasks becomes one with an encoder for each group.

    mtlkit suggest houses.toml              # writes houses-grouped.yaml and houses-grouped.png beside it
    mtlkit train houses-grouped.yaml

    suggestion = suggest("houses.toml", "grouped.yaml")
    suggestion.groups                       # (("price", "rent"), ("sold",))
    print(suggestion.reason)

It trains twice for a short time, as the run file says but with the plain sum of the losses, and measures how the tasks
affect one another: the cosine similarity of their gradients at the parameters that they share, or, with `lookahead`,
what a step of one task does to the losses of the others (TAG: Fifty et al. 2021, "Efficiently Identifying Task
Groupings for Multi-Task Learning", section 3). Tasks are grouped by that, where both runs agree on the groups.
"""

from mtlkit.suggest.run import Suggestion, suggest

__all__ = ["Suggestion", "suggest"]
