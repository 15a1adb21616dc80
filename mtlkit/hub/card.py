"""The model card: README.md, of which the Hub reads the YAML at its head and people the rest.

    about = About(license="mit", scores=trainer.evaluate(test), data="400 houses in three cities.")
    Card.of(model, about).text("anna/houses")

It tells the inputs and tasks, scores where they are given, the data in words, the parameters, the architecture as a
Mermaid flowchart and as the spec, how to load the model, and the versions that it was made with. Scores also stand in
the YAML, as the Hub's `model-index`. Whatever a name holds is shown as it is (see `mtlkit.hub.markdown`).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.feature import Shape
from mtlkit.hub.markdown import fenced, line, plain, table
from mtlkit.model import Model
from mtlkit.saving import SPEC, versions_of, without_pretrained
from mtlkit.show import Reached, mermaid

CARD = "README.md"
_HOME = "https://github.com/mtlkit/mtlkit"
# Characters of a spec that a reader scrolls through; a longer one is in its file alone.
_LONGEST_SPEC = 20_000
_LONGEST_DATA = 100  # characters of the data's name, which are the first words on them


@dataclass(frozen=True)
class About:
    """What only its author knows of a model.

    Attributes:
        license: as the Hub names it: "mit", "apache-2.0".
        tags: to find it by on the Hub, beside those that all models of mtlkit have.
        data: what it was trained and scored on, in Markdown.
        scores: what `Trainer.evaluate` gave: {task: {metric: value}}.
    """

    license: str | None = None
    tags: Sequence[str] = ()
    data: str | None = None
    scores: Mapping[str, Mapping[str, float]] | None = None

    def check(self, tasks: Sequence[str]) -> None:
        """Refuse what is no such thing, and scores of tasks that the model does not have.

        Raises:
            SpecError: with all that is wrong.
        """
        problems = [
            Problem(name, f"found {shown(value)}, expected a text that is not empty, or None")
            for name, value in (("license", self.license), ("data", self.data))
            if value is not None and not _is_text(value)
        ]
        if not isinstance(self.tags, list | tuple) or not all(map(_is_text, self.tags)):
            problems.append(Problem("tags", f"found {shown(self.tags)}, expected a list of texts"))
        scores: Any = {} if self.scores is None else self.scores
        if not isinstance(scores, Mapping):
            problems.append(Problem("scores", f"found {shown(scores)}, expected what Trainer.evaluate() gives"))
            scores = {}
        for task, values in scores.items():
            if task not in tasks:
                message = f"the model has no such task.{nearest(task, tasks)} Tasks: {', '.join(tasks)[:500]}"
                problems.append(Problem(f"scores.{task}", message))
            elif not isinstance(values, Mapping) or not all(_is_score(*one) for one in values.items()):
                message = f"found {shown(values)}, expected a number by the name of each metric"
                problems.append(Problem(f"scores.{task}", message))
        if problems:
            raise SpecError(problems, "what the model card is to say")


@dataclass(frozen=True)
class Card:
    """A model card that lacks only the model's name.

    Attributes:
        about: what its author says.
        head: what stands above how to load the model.
        reads: what it reads.
        body: what stands below.
        predicts: what the command line predicts for with its run, "new.csv"; "" where no run goes along.
    """

    about: About
    head: str
    reads: str
    body: str
    predicts: str

    @staticmethod
    def of(model: Model, about: About, predicts: str = "") -> Card:
        """The card of a model.

        Raises:
            SpecError: as `About.check`.
        """
        about.check(model.tasks)
        reached = Reached.of(model)
        shared, single = reached.counts
        number = f"{len(model.tasks):,} task{'s' * (len(model.tasks) != 1)}"
        head = (
            f"A model of {number}, made with [mtlkit]({_HOME}): {shared + single:,} parameters, of which {shared:,} "
            "are shared by several tasks."
        )
        sections = {
            "Inputs": _inputs(model),
            "Tasks": _tasks(model),
            "Scores": _scores(about),
            "Data": "\n".join((about.data or "").splitlines()),
            "Architecture": f"{fenced(mermaid(model, reached), 'mermaid')}\n\n{_spec(model)}",
            "Versions": table(["package", "version"], versions_of(model).items()),
        }
        body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
        return Card(about, head, _read(model), body, predicts)

    def text(self, name: str) -> str:
        """The file of a model of this name, by which `Model.from_pretrained` finds it."""
        from huggingface_hub import ModelCard

        load = [
            "import mtlkit",
            f"model = mtlkit.Model.from_pretrained({json.dumps(name, ensure_ascii=False)})",
            "predictions = model.predict(x)  # {task: class probabilities, rates or values}",
        ]
        code = fenced("\n".join(load), "python")
        parts = [f"# {plain(name)}", self.head, code, self.reads, self._command(name), self.body]
        text = "\n\n".join(part for part in parts if part)
        return str(ModelCard(f"---\n{self._metadata(name)}\n---\n\n{text}\n"))

    def _command(self, name: str) -> str:
        """How to predict for a file from the command line, of a repository with how to fetch it."""
        if not self.predicts:
            return ""
        folder = shlex.quote(name.rpartition("/")[2])
        fetch = [f"hf download {shlex.quote(name)} --local-dir {folder}"] * ("/" in name)
        return fenced("\n".join([*fetch, f"mtlkit predict {folder} {self.predicts}"]))

    def _metadata(self, name: str) -> str:
        """The YAML that the Hub reads."""
        from huggingface_hub import ModelCardData

        about, results = self.about, _results(self.about)
        data = ModelCardData(
            license=None if about.license is None else line(about.license),
            library_name="mtlkit",
            tags=["mtlkit", "multi-task-learning", "pytorch", *map(line, about.tags)],
            metrics=[*map(line, _metrics(about))] or None,
            model_name=line(name) if results else None,
            eval_results=results or None,
        )
        return data.to_yaml()


def _results(about: About) -> list[Any]:
    """The scores as the Hub has them. It knows no NaN."""
    from huggingface_hub import EvalResult

    data = line(about.data or "not named")
    return [
        EvalResult(
            task_type="other",
            task_name=line(task),
            dataset_type="other",
            dataset_name=data if len(data) <= _LONGEST_DATA else f"{data[:_LONGEST_DATA]}...",
            dataset_config=line(task),  # the Hub puts together what is of one type, data and config
            metric_type=line(metric),
            metric_name=line(metric),
            metric_value=float(value),
        )
        for task, values in (about.scores or {}).items()
        for metric, value in values.items()
        if math.isfinite(value)
    ]


def _metrics(about: About) -> list[str]:
    return [*dict.fromkeys(name for values in (about.scores or {}).values() for name in values)]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_score(metric: object, value: object) -> bool:
    return _is_text(metric) and isinstance(value, Real) and not isinstance(value, bool)


def _shape(shape: Shape) -> str:
    return " × ".join("any" if n is None else f"{n}" for n in shape)


def _read(model: Model) -> str:
    """What `x` is."""
    inputs = [*model.graph.inputs.values()]
    if len(inputs) > 1:
        return "`x` holds a tensor by the name of each input, with the examples along its first axis."
    return f"`x` is a tensor of {inputs[0].dtype}, examples × {_shape(inputs[0].shape)}."


def _inputs(model: Model) -> str:
    rows = [[one.name, _shape(one.shape), one.dtype] for one in model.graph.inputs.values()]
    return table(["input", "an example", "numbers"], rows)


def _tasks(model: Model) -> str:
    rows = [
        [
            task.name,
            task.on,
            f"{task.outputs:,}",
            task.head["type"],
            task.loss["type"],
            f"{task.weight:g}",
            ", ".join(metric["type"] for metric in task.metrics),
        ]
        for task in model.graph.tasks.values()
    ]
    return table(["task", "on", "outputs", "head", "loss", "weight", "metrics"], rows)


def _scores(about: About) -> str:
    names, scores = _metrics(about), about.scores or {}
    rows = [[task, *(_number(values.get(name)) for name in names)] for task, values in scores.items()]
    return table(["task", *names], rows, numbers=True) if names else ""


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def _spec(model: Model) -> str:
    """What builds the architecture anew, folded away."""
    text = json.dumps(without_pretrained(model.spec), indent=1, ensure_ascii=False)
    if len(text) > _LONGEST_SPEC:
        return f"The spec has {len(text):,} characters: see {SPEC}."
    return f"<details>\n<summary>The spec</summary>\n\n{fenced(text, 'json')}\n\n</details>"
