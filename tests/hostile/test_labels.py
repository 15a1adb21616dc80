"""The label contract: what does not fit is refused before a step, for every loss, head and form of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtlkit import DataError, Trainer, build_model, heads, losses

N, OUTPUTS = 6, 3
BUILT_IN_HEADS = ("linear", "mlp", "token", "dense")


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor, y: Any) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], {"task": self.y[index]}


class Stream(IterableDataset[Any]):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[index] for index in range(len(self.rows)))


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensors": lambda x, y: (x, {"task": y}),
    "arrays": lambda x, y: (x.numpy(), {"task": y.numpy()}),
    "lists": lambda x, y: (x.tolist(), {"task": y.tolist()}),
    "dataset": Rows,
    "stream": lambda x, y: Stream(Rows(x, y)),
    "loader": lambda x, y: DataLoader(Rows(x, y), batch_size=4),
    "own": lambda x, y: {"task": (x, y)},
    "own dataset": lambda x, y: {"task": [(x, y)]},
}
# Of these, only what a batch holds is seen.
IN_MEMORY = ("tensors", "arrays", "lists", "own")


def made(loss: str, head: str) -> tuple[Any, Tensor, tuple[int, ...]]:
    """A model with one task, inputs, and the shape of right labels."""
    inputs: Any = {"input": [4], "encoder": "linear"}
    x, steps = torch.randn(N, 4), ()
    if head == "token":
        inputs = {"input": [5, 4], "encoder": {"type": "rnn", "hidden": 4}}
        x, steps = torch.randn(N, 5, 4), (5,)
    elif head == "dense":
        inputs = {"input": [1, 4, 4], "encoder": {"type": "cnn", "channels": [2], "pool": "none"}}
        x, steps = torch.randn(N, 1, 4, 4), (4, 4)
    model = build_model({**inputs, "tasks": {"task": {"outputs": OUTPUTS, "loss": loss, "head": head}}})
    if model.loss("task").labels == "class":
        return model, x, (N, *steps)
    return model, x, (N, OUTPUTS, *steps) if head == "dense" else (N, *steps, OUTPUTS)


def wrong(loss: Any, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Labels that do not fit, by what is wrong with them."""
    classes = loss.labels == "class"
    right = torch.zeros(shape, dtype=torch.long if classes else torch.float32)
    found = {
        "an axis of one more": right.unsqueeze(-1),
        "an axis of one less": right[..., 0] if len(shape) > 1 else right[:, None, None],
        "an axis of one instead": right[..., :1] if len(shape) > 1 else right[:, None],
        "one axis longer": torch.cat([right, right], -1) if len(shape) > 1 else right[:, None].repeat(1, 2),
        "complex": right.to(torch.complex64),
    }
    if classes:
        found |= {
            "too high": right + OUTPUTS,
            "below": right - 1,
            "numbers": right.float(),
            "one-hot": torch.eye(OUTPUTS)[right],
        }
    if loss.problem in ("binary", "multilabel"):
        found |= {"two": right + 2, "half": right + 0.5, "minus one": right - 1}
    if loss.problem == "count":
        found["minus one"] = right - 1
    return found


@pytest.mark.parametrize("head", BUILT_IN_HEADS)
@pytest.mark.parametrize("loss", list(losses))
def test_labels_that_do_not_fit(loss: str, head: str) -> None:
    model, x, shape = made(loss, head)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for what, y in wrong(model.loss("task"), shape).items():
        for form, data in FORMS.items():
            if form == "lists" and what == "complex":
                continue  # Python's own complex numbers are told by torch
            for use in ("fit", "evaluate"):
                with pytest.raises(DataError) as caught:
                    getattr(Trainer(model, epochs=1, batch_size=4, progress=False), use)(data(x, y))
                message = str(caught.value)
                assert "'task'" in message and "found" in message and "expected" in message, (what, form, message)
                assert message.count(". ") >= 1, f"no remedy: {message}"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_head_of_ours_is_among_them() -> None:
    assert set(BUILT_IN_HEADS) == {entry.name for entry in heads.entries() if entry.owner == "built-in"}


@pytest.mark.parametrize("loss", list(losses))
def test_other_lengths_and_unknown_tasks(loss: str) -> None:
    model, x, shape = made(loss, "linear")
    y = torch.zeros(shape, dtype=torch.long if model.loss("task").labels == "class" else torch.float32)
    trainer = Trainer(model, epochs=1, progress=False)
    for form in IN_MEMORY:
        with pytest.raises(DataError, match="task 'task': found 5 labels for 6 examples. Give each"):
            trainer.fit(FORMS[form](x, y[:5]))
    with pytest.raises(DataError, match="task 'task': expected targets"):
        trainer.fit([(x, {"task": y[:5]})])
    for data in ((x, {"tasc": y}), DataLoader([(one, {"tasc": 0}) for one in x]), {"tasc": (x, y)}):
        with pytest.raises(DataError, match="found .* of 'tasc', which is no task. Did you mean 'task'"):
            trainer.fit(data)
    with pytest.raises(DataError, match="have no label of any task"):
        trainer.fit((x, {}))


def test_labels_to_validate_on_are_looked_at_before_the_first_step() -> None:
    model, x, _ = made("cross_entropy", "linear")
    before = model.head("task").weight.clone()
    y = torch.zeros(N, dtype=torch.long)
    for valid in (y[:, None], y + OUTPUTS, y.float()):
        with pytest.raises(DataError, match="task 'task'"):
            Trainer(model, epochs=1, progress=False).fit((x, {"task": y}), (x, {"task": valid}))
    assert torch.equal(model.head("task").weight, before)


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


X = torch.zeros(4)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([X] * 6, "found an example Tensor, expected a pair"),
        ([None] * 6, "found an example NoneType, expected a pair"),
        ([(X, 1, 2)] * 6, "found an example tuple, expected a pair"),
        ([(X, X)] * 6, "found an example tuple, expected a pair"),
        ([(X, {"task": "a"})] * 6, "task 'task': found str, expected a tensor or an array of numbers"),
        ([("a", {"task": X[:3]})] * 6, "input 'input': found str, expected a tensor or an array of numbers"),
        ([(X, {"task": X[:3]}), (X, {"task": X[:3].view(1, 3)})], "task 'task': found examples of the shapes"),
        ([({"input": X}, {"task": X[:3]}), ({"x": X}, {})], "found examples with the inputs input and x"),
        ([(X, {"task": None})] * 6, "have no label of any task"),
        ([(X, {"task": np.array([object()] * 3)})] * 6, "task 'task': found ndarray, expected a tensor"),
    ],
)
def test_examples_that_are_none(items: list[Any], says: str) -> None:
    model = build_model({"input": [4], "encoder": "linear", "tasks": {"task": {"outputs": 3}}})
    with pytest.raises(DataError) as caught:
        Trainer(model, epochs=1, progress=False).fit(Listed(items))
    assert says in str(caught.value)


def test_right_labels_of_every_loss_and_head_are_taken() -> None:
    for loss in losses:
        for head in BUILT_IN_HEADS:
            model, x, shape = made(loss, head)
            y = torch.zeros(shape, dtype=torch.long if model.loss("task").labels == "class" else torch.float32)
            for data in FORMS.values():
                Trainer(model, epochs=1, batch_size=4, progress=False).fit(data(x, y))
