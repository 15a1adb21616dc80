"""What a run says of itself: of its data before it is trained, of how it ended after.

about_data(data, ("price", "sold"))
# examples: 320 train, 40 valid, 40 test
# labels:
#   price: 254 train, 33 valid, 31 test
# columns: 2 numbers, 1 category; an input of 6
about_end(history)
# 12 epochs, all that were planned; kept the last weights; 3.2 s without validation
"""

from __future__ import annotations

from collections import Counter

from mtlkit.data import Data
from mtlkit.data.counted import by_part, labelled, length
from mtlkit.data.format import TableFormat
from mtlkit.data.split import PARTS
from mtlkit.errors import printable
from mtlkit.train import History

# As many tasks as a person reads.
_MOST_TASKS = 20
_WHY = {
    "epochs": "all that were planned",
    "max_steps": "ended by max_steps",
    "patience": "ended by patience",
    "callback": "ended by a callback",
}


def about_data(data: Data, tasks: tuple[str, ...]) -> str:
    """How many examples there are, labels of those of these tasks that lack some, and columns of a table."""
    parts = {part: getattr(data, part) for part in PARTS}
    examples = {part: length(some) for part, some in parts.items()}
    counts = {task: {part: labelled(some, task) for part, some in parts.items()} for task in tasks}
    # Where labels can't be counted, nobody knows whether some are missing.
    lacking = {task: found for task, found in counts.items() if any(_differs(found[p], examples[p]) for p in PARTS)}
    lines = [f"  {printable(task)}: {by_part(found)}" for task, found in [*lacking.items()][:_MOST_TASKS]]
    more = [f"  and {len(lacking) - _MOST_TASKS:,} tasks more"] * (len(lacking) > _MOST_TASKS)
    first = f"examples: {by_part(examples) or 'not counted'}"
    return "\n".join([first, *["labels:"] * bool(lacking), *lines, *more, *_columns(data)])


def about_end(history: History) -> str:
    """How many epochs were trained, why no more, whose weights were kept, and how long the steps took."""
    epochs = len(history.epochs)
    kept = "the last weights" if history.best_epoch is None else f"the weights of epoch {history.best_epoch:,}"
    seconds = sum(record["seconds"] for record in history.epochs)
    why = _WHY.get(history.stopped, history.stopped)
    return f"{_many(epochs, 'epoch')}, {why}; kept {kept}; {seconds:,.1f} s without validation"


def _differs(labels: int | None, examples: int | None) -> bool:
    return labels is not None and labels != examples


def _columns(data: Data) -> list[str]:
    if not isinstance(data.table, TableFormat):
        return []
    kinds: Counter[str] = Counter(column.kind for column in data.table.inputs)
    plural = {"number": "numbers", "category": "categories"}
    found = [_many(kinds[kind], kind, many) for kind, many in plural.items() if kinds[kind]]
    (width,) = data.table.shape
    return [f"columns: {', '.join(found)}; an input of {width:,}"]


def _many(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
