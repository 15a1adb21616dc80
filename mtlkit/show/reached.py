"""Which tasks reach which parameter of a model, for a drawing.

reached = Reached.of(model)
reached.counts              # (900, 334): the numbers of parameters of several tasks, and of one
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from mtlkit.errors import SpecError
from mtlkit.feature import PROBE
from mtlkit.model import Model
from mtlkit.saving import without_pretrained
from mtlkit.show.few import on_meta
from mtlkit.show.work import walk
from mtlkit.train.reach import Reach, evaluated
from mtlkit.trunk import common_encoder

Tasks = tuple[str, ...]

# A second or two of a processor; some ten ResNet-50 on pictures of 224 x 224.
_MOST_FLOPS = 10**11
_MOST_BYTES = 2**30
_FEW_PRODUCTS = 10**9


@dataclass(frozen=True)
class Reached:
    """Which tasks reach each parameter.

    Attributes:
        tasks: those of each parameter, trained or frozen.
        now: the same of evaluation alone, under the values of now; empty where it is not known, asked by no scheme, or
            would take too long for a drawing.
        everyone: all tasks.
        doubt: why `tasks` are only those that need the encoder or head of a parameter; "" where they are exact.
    """

    tasks: Mapping[nn.Parameter, Tasks]
    now: Mapping[nn.Parameter, Tasks]
    everyone: Tasks
    doubt: str = ""

    @staticmethod
    def of(model: Model) -> Reached:
        """Find it by passes of copies, or where these fail from the graph of the spec."""
        parameters = dict(model.named_parameters())
        try:
            tasks = {parameters[name]: found for name, found in Reach.of(model, frozen=True).tasks.items()}
        except SpecError as error:
            cause = error.__cause__
            return Reached(_by_graph(model), {}, model.tasks, f"{type(cause).__name__}: {cause}")
        now: Mapping[str, Tasks] = {}
        if any(common_encoder(scheme) is None for scheme in model.encoders.values()) and _is_soon_run(model):
            now = evaluated(model) or {}
        run = {parameters[name]: found for name, found in now.items()}
        # What is run together with others, for speed, is behind their features, too.
        run = {p: tuple(task for task in found if task in tasks[p]) for p, found in run.items()}
        return Reached(tasks, run, model.tasks)

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of parameters that several tasks share, and of the others."""
        shared = sum(p.numel() for p, found in self.tasks.items() if len(found) > 1)
        return shared, sum(p.numel() for p in self.tasks) - shared


def _is_soon_run(model: Model) -> bool:
    """Whether the forward pass of an example takes little time and memory. A short spec may ask for a lot of both."""
    values = max(math.prod(n or PROBE for n in one.shape) for one in model.graph.inputs.values())
    # No parameter meets a value twice, or hardly: to count exactly takes longer than to run a small model.
    if values * sum(p.numel() for p in model.parameters()) < _FEW_PRODUCTS:
        return True
    try:
        works = walk(on_meta(without_pretrained(model.spec)), 1, PROBE).of.values()
    except Exception:  # noqa: BLE001  # whatever a plugin's forward does that looks into values
        return True
    return sum(work.forward for work in works) < _MOST_FLOPS and sum(work.kept for work in works) < _MOST_BYTES


def users_of(model: Model, encoder: str) -> Tasks:
    """The tasks that need an encoder."""
    return tuple(task for task in model.tasks if encoder in model.graph.needed([task]))


def _by_graph(model: Model) -> dict[nn.Parameter, Tasks]:
    """The tasks that need the encoder or head that holds each parameter."""
    found = {p: users_of(model, name) for name in model.graph.encoders for p in model.scheme(name).parameters()}
    for task in model.tasks:
        for module in (model.head(task), model.loss(task)):
            for p in module.parameters():
                found[p] = tuple(dict.fromkeys((*found.get(p, ()), task)))
    return found
