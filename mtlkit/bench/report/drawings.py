"""A model as nested boxes, for the report: inputs, encoders with the parts of their scheme, and the tasks on them.

    drawings(result)[0].encoders[0].parts       # (("expert 0", "4,096 parameters, of all 3 tasks"), ...)

The words are those of `mtlkit show`. Variants that differ in their balancer alone share a drawing. A model is built
without memory for its weights; where that fails, of a plugin that is not installed say, the drawing says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mtlkit.bench.result import Result
from mtlkit.errors import MtlkitError, printable
from mtlkit.feature import written
from mtlkit.graph import Encoder
from mtlkit.model import Model
from mtlkit.show.few import on_meta
from mtlkit.show.parts import parts_of
from mtlkit.show.reached import Reached
from mtlkit.show.wording import count, encoder_type, said, shared_by, task_line, tasks_on
from mtlkit.spec import Spec


@dataclass(frozen=True)
class Box:
    """An encoder with its sharing scheme: name, kind, what it reads and gives with shapes, and who shares it."""

    name: str
    kind: str
    reads: tuple[str, ...]
    gives: str
    parameters: int
    shared: str
    parts: tuple[tuple[str, str], ...]
    tasks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Drawing:
    """The model of some variants. `problem` says why there is none, or what is not known of it."""

    variants: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...] = ()
    encoders: tuple[Box, ...] = ()
    shared: int = 0
    single: int = 0
    problem: str = ""


def drawings(result: Result) -> list[Drawing]:
    """A drawing for each spec, in the order of the variants; none of baselines, which are a model for each task."""
    names: dict[str, list[str]] = {}
    specs: dict[str, Spec] = {}
    for variant in result.compared:
        key = json.dumps(variant.spec, sort_keys=True, default=str)
        names.setdefault(key, []).append(variant.name)
        specs[key] = variant.spec
    return [_drawing(specs[key], tuple(map(printable, same))) for key, same in names.items()]


def _drawing(spec: Spec, variants: tuple[str, ...]) -> Drawing:
    try:
        model = on_meta(spec)
    except MtlkitError as error:
        return Drawing(variants, problem=str(error))
    reached = Reached.of(model)
    shared, single = reached.counts
    return Drawing(
        variants,
        tuple((printable(one.name), f"{written(one.shape)} {one.dtype}") for one in model.graph.inputs.values()),
        tuple(_box(model, encoder, reached) for encoder in model.graph.encoders.values()),
        shared,
        single,
        printable(reached.doubt),
    )


def _box(model: Model, encoder: Encoder, reached: Reached) -> Box:
    scheme = model.scheme(encoder.name)
    return Box(
        printable(encoder.name),
        encoder_type(model, encoder),
        tuple(printable(f"{source} {written(model.shapes[source])}") for source in encoder.sources),
        written(model.shapes[encoder.key]),
        count(scheme),
        printable(shared_by(model, encoder, reached)),
        _printable((part.name, said(part, reached.everyone)) for part in parts_of(scheme, reached)),
        _printable((alike.names, task_line(model, alike)) for alike in tasks_on(model, encoder.name)),
    )


def _printable(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((printable(first), printable(second)) for first, second in pairs)
