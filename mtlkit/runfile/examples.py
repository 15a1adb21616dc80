"""Examples with the labels of some tasks alone: a model need not have all the tasks of its data."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


def for_tasks(examples: Any, tasks: tuple[str, ...]) -> Any:
    """The same examples without the labels of other tasks."""
    if examples is None:
        return None
    if isinstance(examples, Dataset):
        return _ForTasks(examples, tasks)
    x, targets = examples
    return x, {task: target for task, target in targets.items() if task in tasks}


class _ForTasks(Dataset[Any]):
    def __init__(self, examples: Dataset[Any], tasks: tuple[str, ...]) -> None:
        self.examples, self.tasks = examples, tasks

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return for_tasks(self.examples[index], self.tasks)
