"""Parts of a model that stay as they are, for all of a fit or for its first epochs.

    freezing = Freezing(model, {"encoder": 2, "digit": None})
    freezing.hold()              # the head of "digit" is frozen
    freezing.at(1)               # before each epoch: all encoders are frozen too
    freezing.at(3)               # the encoders are free
    freezing.close()             # everything is as it was

A layer that normalises by running statistics, batch normalisation say, keeps and uses those that it has while its part
is frozen, whatever mode the model is put into, so that features stay what they are: as in Keras, and as
`FrozenBatchNorm2d` of torchvision and timm. Dropout goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import nn

from mtlkit.errors import SpecError
from mtlkit.freezing import hold_still, is_still, norms, release
from mtlkit.graph import PREDICTION
from mtlkit.model import Model
from mtlkit.selecting import parts_of
from mtlkit.train.named import assigned, name_problems
from mtlkit.train.wrong import ARGUMENTS

Epochs = dict[str, int | None]
"""For how many epochs a part is frozen, by role, encoder or task; None for all of the fit."""


def check_freeze(raw: str | list[str] | Mapping[str, int | None] | None, model: Model | None) -> Epochs | None:
    """What is to be frozen, in the longest form; None where nothing is.

    Args:
        raw: as the trainer got it.
        model: whose parts it names; None where it is not made yet, and names are not checked.

    Raises:
        SpecError: a name is unknown or ambiguous.
    """
    names = [raw] if isinstance(raw, str) else raw or []
    epochs = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
    problems = [] if model is None else name_problems(model, epochs, "freeze")
    if problems:
        raise SpecError(problems, ARGUMENTS)
    return epochs or None


class Freezing:
    """Freezes the named parts of a model, and gives them back.

    Args:
        model: it.
        freeze: for how long, as `check_freeze` gave it. The most specific name decides.
    """

    def __init__(self, model: Model, freeze: Epochs | None) -> None:
        self.model = model
        last = {name: math.inf if epochs is None else epochs for name, epochs in (freeze or {}).items()}
        named = assigned(model, last, nn.Module.parameters)
        # What was frozen before stays so in the end.
        self._held = {p: last[name] for p, name in named.items() if p.requires_grad}
        # Kept from the beginning, since those of a run that goes on may be free by now.
        self._planned = dict(self._held)
        self._norms = {n: last[name] for n, name in assigned(model, last, norms).items() if not is_still(n)}

    @property
    def for_now(self) -> bool:
        """Whether something is frozen that will be freed in this fit."""
        return any(last < math.inf for last in self._held.values())

    def last_of(self, task: str) -> int:
        """The last epoch in which something of a task's own is frozen that will be freed then; 0 where nothing is."""
        own = (p for part in parts_of(self.model, PREDICTION + task).values() for p in part.parameters())
        return int(max((last for p in own if (last := self._planned.get(p, 0)) < math.inf), default=0))

    def hold(self) -> None:
        """Freeze what is never freed in this fit, so that what is planned for a whole fit knows of it."""
        for p, last in self._held.items():
            if last == math.inf:
                p.requires_grad_(False)

    def at(self, epoch: int) -> None:
        """Freeze what is frozen in an epoch, and free what no longer is."""
        for p, last in self._held.items():
            p.requires_grad_(epoch > last)
        for norm, last in self._norms.items():
            if epoch <= last:
                hold_still(norm)
            else:
                release(norm, self.model.training)
        self._held = {p: last for p, last in self._held.items() if epoch <= last}
        self._norms = {norm: last for norm, last in self._norms.items() if epoch <= last}

    def close(self) -> None:
        """Free what still is frozen."""
        for p in self._held:
            p.requires_grad_(True)
        for norm in self._norms:
            release(norm, self.model.training)

    def state_dict(self) -> list[str]:
        """The names of the parameters that are to be freed."""
        return [name for name, p in self.model.named_parameters() if p in self._held]

    def load_state_dict(self, names: Iterable[str]) -> None:
        """Go on from that."""
        known = set(names)
        self._held = {p: self._held.get(p, math.inf) for name, p in self.model.named_parameters() if name in known}
