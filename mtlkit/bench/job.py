"""One piece of a bench's work, as plain data: what is trained, from which seed. Any process can do it.

job = Job("run", "cnn/single", seed=0, task="left", spec=spec, train={"epochs": 6})
found = perform(job, data)              # plain data: what is kept, and what `Run` or `Conflicts` are made of
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from mtlkit.spec import Spec
from mtlkit.train.course import planned_epochs

Kind = Literal["run", "conflicts", "tune"]

OWN = ("seed", "patience", "out_dir", "save_every", "keep", "resume", "trackers", "callbacks", "progress")
"""Arguments of the trainer that would give one run what another lacks, or that have no meaning for many runs."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Args:
        kind: "run" trains and scores; "conflicts" watches the tasks' gradients in a run that is not scored; "tune"
            searches hyper-parameters in runs that are not scored.
        variant: the name of what is compared.
        seed: draws first weights, dropout and the order of the data.
        task: of a baseline's run, the one that it trains; else None.
        spec: of the model that is trained.
        train: the trainer's arguments but for those of `OWN`.
        search: what is searched, as `mtlkit.bench.tune.search` takes it.
        tried: the losses of trials of it that ended before, in their order; None for one that failed.
    """

    kind: Kind
    variant: str
    seed: int
    task: str | None
    spec: Spec
    train: dict[str, Any]
    search: dict[str, Any] = field(default_factory=dict)
    tried: list[float | None] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What a person calls it: "cnn/single left, seed 0"."""
        task = "" if self.task is None else f" {self.task}"
        return f"{self.variant}{task}, {self._what}"

    @property
    def parts(self) -> int | None:
        """How many epochs, or trials, it has; None where only its steps are known."""
        if self.kind == "tune":
            return int(self.search["trials"])
        return planned_epochs(self.train)

    @property
    def _what(self) -> str:
        if self.kind == "tune":
            return "search"
        return f"seed {self.seed}" + (", gradients" if self.kind == "conflicts" else "")


OnEpoch = Callable[[], None]
"""Called when an epoch ends."""
OnTrial = Callable[[float | None], None]
"""Called when a trial ends, with its loss; None if it failed."""
