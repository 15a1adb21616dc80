"""`conllu`: sentences in the CoNLL-U form of Universal Dependencies, with labels for each word.

    [data]
    type = "conllu"
    train = "en_ewt-ud-train.conllu.gz"
    valid = "en_ewt-ud-dev.conllu.gz"
    test = "en_ewt-ud-test.conllu.gz"
    tasks = ["upos", "deprel"]

Inputs, each int64 [T] for a sentence of T words: `words` (in lower case), `suffixes` (their last three
letters) and `shapes` ("McDonald" is XxXx, "1990s" is dx). 0 is padding and 1 is unknown; the rest are texts
of the training file, the most frequent first. A text that training has only once is unknown too, so that a
model learns what to make of the unknown.

Tasks: `upos` (part of speech), `xpos` (the same in finer classes), `deprel` (dependency label, without what
follows a colon); "_" is a missing label. A label that only validation or test has is a class as well: no
model can learn it, so it counts as wrong, where a missing label would not count at all.

    data.train.labels["upos"]      # ["ADJ", "ADP", ...]: the label of each class
    data.train.texts["words"]      # ["", "", "the", ...]: the text of each id
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, groupby
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from mtlkit.data.base import Data
from mtlkit.data.opened import opened
from mtlkit.errors import DataError
from mtlkit.label import MISSING_CLASS

TaskName = Literal["upos", "xpos", "deprel"]

Ids = Annotated[int, Field(ge=2, le=10_000_000)]
"""How many ids, of which two are reserved."""

_COLUMN: dict[TaskName, int] = {"upos": 3, "xpos": 4, "deprel": 7}
_COLUMNS = 10
_NO_LABEL = "_"

_LONGEST_LINE = 2**20

# Ids 0 and 1, padding and unknown, stand for no text.
_RESERVED = ["", ""]
_UNKNOWN = 1


class Sentences(Dataset[tuple[dict[str, Tensor], dict[str, Tensor]]]):
    """Sentences of unequal length: item i is ({input: int64 [T]}, {task: int64 [T]})."""

    def __init__(
        self,
        inputs: dict[str, Tensor],
        targets: dict[str, Tensor],
        lengths: Tensor,
        texts: dict[str, list[str]],
        labels: dict[str, list[str]],
    ) -> None:
        """
        Args:
            inputs: int64 [W] each, the ids of all words of all sentences in turn.
            targets: int64 [W] each.
            lengths: the number of words of each sentence.
            texts: for each input, what the ids stand for.
            labels: for each task, what the classes are.
        """
        self.inputs, self.targets = inputs, targets
        self.ends = lengths.cumsum(0)
        self.texts, self.labels = texts, labels

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        index = range(len(self))[index]  # an IndexError where there is none, which ends a loop over the items
        end = int(self.ends[index])
        words = slice(int(self.ends[index - 1]) if index else 0, end)
        return (
            {name: ids[words] for name, ids in self.inputs.items()},
            {task: classes[words] for task, classes in self.targets.items()},
        )


@dataclass(frozen=True)
class _Corpus:
    """A file: all words of all sentences in turn, and how many words each sentence has."""

    forms: list[str]
    labels: dict[TaskName, list[str]]
    lengths: list[int]


def conllu(
    *,
    train: str,
    valid: str | None = None,
    test: str | None = None,
    tasks: Annotated[tuple[TaskName, ...], Field(min_length=1)] = ("upos", "deprel"),
    words: Ids = 20_000,
    suffixes: Ids = 5_000,
    shapes: Ids = 100,
) -> Data:
    """Sentences of a Universal Dependencies treebank: part of speech and dependency label of each word.

    Args:
        train: a CoNLL-U file, plain or .gz.
        valid: another to validate on.
        test: another to test on.
        tasks: which of upos, xpos and deprel to learn.
        words: all ids of words are below this: the `vocab` of their embedding.
        suffixes: the same for the last three letters.
        shapes: the same for the shape of a word.

    Raises:
        DataError: a file is missing or damaged, or has no words.
    """
    paths = {"train": train, "valid": valid, "test": test}
    corpora = {part: _parse(path, tasks) for part, path in paths.items() if path is not None}
    views = {part: _views(corpus.forms) for part, corpus in corpora.items()}
    sizes = {"words": words, "suffixes": suffixes, "shapes": shapes}
    texts = {name: _vocabulary(views["train"][name], size) for name, size in sizes.items()}
    labels: dict[str, list[str]] = {task: _classes(task, corpora) for task in tasks}
    parts = {
        part: Sentences(
            inputs={name: _codes(views[part][name], texts[name], _UNKNOWN) for name in sizes},
            targets={task: _codes(corpus.labels[task], labels[task], MISSING_CLASS) for task in tasks},
            lengths=torch.tensor(corpus.lengths),
            texts=texts,
            labels=labels,
        )
        for part, corpus in corpora.items()
    }
    return Data(
        train=parts["train"],
        valid=parts.get("valid"),
        test=parts.get("test"),
        inputs={name: {"shape": [None], "dtype": "int64"} for name in sizes},
        tasks={task: {"outputs": len(labels[task]), "loss": "cross_entropy", "head": "token"} for task in tasks},
    )


def _parse(path: str, tasks: tuple[TaskName, ...]) -> _Corpus:
    corpus = _Corpus([], {task: [] for task in tasks}, [0])
    for number, line in _lines(path):
        if not line:
            corpus.lengths.append(0)
            continue
        if line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != _COLUMNS:
            raise DataError(
                f"{path}, line {number}: found {len(cells)} columns, expected the {_COLUMNS} of CoNLL-U, "
                "separated by tabs."
            )
        # "1-2" is a contraction, whose words follow, and "8.1" is a word that was left out.
        if "-" in cells[0] or "." in cells[0]:
            continue
        corpus.lengths[-1] += 1
        corpus.forms.append(cells[1])
        for task, labels in corpus.labels.items():
            cell = cells[_COLUMN[task]]
            labels.append(cell.partition(":")[0] if task == "deprel" else cell)
    if not corpus.forms:
        raise DataError(f"{path}: found no words, expected sentences in CoNLL-U.")
    return replace(corpus, lengths=[length for length in corpus.lengths if length])


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, plain or .gz."""
    try:
        with opened(path) as file:
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise DataError(
                        f"{path}, line {number}: has more than {_LONGEST_LINE:,} bytes, expected a word of CoNLL-U."
                    )
                yield number, line.decode().rstrip("\r\n")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: can't be read: {reason}. Expected CoNLL-U in UTF-8, plain or .gz.") from error


def _views(forms: list[str]) -> dict[str, list[str]]:
    """What a model reads of each word, by the name of the input."""
    words = [form.lower() for form in forms]
    return {
        "words": words,
        "suffixes": [word[-3:] for word in words],
        "shapes": [_shape(form) for form in forms],
    }


@lru_cache(maxsize=100_000)
def _shape(form: str) -> str:
    """Capitals as X, other letters as x, digits as d, runs of one of them as one: "McDonald" is XxXx."""
    letters = (
        "X" if letter.isupper() else "x" if letter.isalpha() else "d" if letter.isdigit() else letter for letter in form
    )
    return "".join(letter for letter, _ in groupby(letters))


def _vocabulary(texts: list[str], size: int) -> list[str]:
    """The text of each id: the most frequent that occur twice or more, as many as ids below `size` allow."""
    frequent = [text for text, count in Counter(texts).most_common() if count > 1]
    return [*_RESERVED, *frequent][:size]


def _classes(task: TaskName, corpora: dict[str, _Corpus]) -> list[str]:
    """The labels of the training file in order, then those that only other files have."""
    train, *others = (sorted({*corpus.labels[task]} - {_NO_LABEL}) for corpus in corpora.values())
    if len(train) < 2:
        raise DataError(f"the training file has the labels {train} for task {task!r}, expected two at least.")
    return list(dict.fromkeys([*train, *chain.from_iterable(others)]))


def _codes(texts: list[str], names: list[str], otherwise: int) -> Tensor:
    """The place of each text in `names`, or `otherwise`."""
    place = {name: index for index, name in enumerate(names)}
    return torch.tensor([place.get(text, otherwise) for text in texts])
