"""Trunks made as large as a reference: one common factor on all their widths, found without memory.

    match = "parameters"                            # of [bench]: as many as the first trunk under the first scheme has
    match = { by = "flops", to = "cnn/hard" }       # of a step, as those of this trunk under this scheme
    match = { by = "parameters", to = 100_000 }

Widths are those of `mtlkit.bench.widths`. A trunk is scaled under each scheme by itself, so that MMoE with four experts
has narrower ones. Its baseline has the trunk that it has under `hard`. What a model has beside its trunk stays as it
is, and a trunk without widths, of timm say, too: its note says so. FLOPs are those of a forward and backward pass by
the plain sum, whatever the balancer adds.

Where heads of attention make steps of `dim` too coarse for the budget, the other widths get a factor of their own.
Where a scheme cuts widths into equal parts, they stay multiples of the number of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlkit.bench.costs import plain_flops_of
from mtlkit.bench.grid import Grid
from mtlkit.bench.variants import without_memory
from mtlkit.bench.widths import each_width, scaled
from mtlkit.blueprint import TooManyParameters
from mtlkit.errors import PluginError, Problem, SpecError, nearest
from mtlkit.part import Part
from mtlkit.spec import Spec

TOLERANCE = 0.05
_UNITS = range(1, 65)
_NEAR = 0.005
_STEPS = 32
_CLOSE = 1e-3  # widths of a thousand differ by that
_LEAST, _MOST = 1 / 1024, 1024.0
_POWER, _LEAST_POWER = 1.5, 0.1  # of layers that are between linear and quadratic in the width


@dataclass
class Sizes:
    """Gives each trunk under each scheme the part that meets the budget; see `mtlkit.bench.variants.Sized`.

    Args:
        grid: with its schemes checked.
        spec: of the model but for encoder and sharing.
        batch: examples of a step.
        by: "parameters" or "flops".
        budget: of these.
        asked: `match` of the bench file; with the budget where the reference is not among what is compared.
    """

    grid: Grid
    spec: Spec
    batch: int
    by: str
    budget: float
    asked: dict[str, Any]
    found: dict[str, tuple[Any, str]] = field(default_factory=dict)
    measured: dict[str, float | None] = field(default_factory=dict)

    def __call__(self, trunk: str, scheme: Part) -> tuple[Any, str]:
        """The part, and what was done.

        Raises:
            SpecError: no factor meets the budget, or the trunk can't be built at all.
        """
        key = repr((trunk, scheme))
        if key not in self.found:
            self.found[key] = self._matched(trunk, scheme)
        return self.found[key]

    def _matched(self, trunk: str, scheme: Part) -> tuple[Any, str]:
        model = without_memory({**self.spec, "encoder": self.grid.trunks.parts[trunk], "sharing": scheme})
        part: Part = model.spec["encoder"]
        if scaled(part, 2.0) == part:
            return part, f"size not matched: {part['type']!r} has no option that is a width"
        size = self._size(part, scheme)
        if size is None:
            return part, "size not matched: its FLOPs are not known"
        best, how = (part, "widths as they are") if self._off(size) <= _NEAR else self._bisected(part, scheme)
        size = self._size(best, scheme) or 0.0
        if self._off(size) > TOLERANCE:
            raise SpecError([Problem("encoder", self._refusal(size))])
        off = 100 * (size / self.budget - 1)
        return best, f"{how}, for {self.by} of {size:,.0f}, {off:+.1f} % from {self.budget:,.0f}"

    def _refusal(self, size: float) -> str:
        found = f"{self.by} of {size:,.0f} are the nearest to {self.budget:,.0f} that one factor on its widths gives"
        return f"{found}; expected them within {100 * TOLERANCE:.0f} %. Choose other widths, or another match.to"

    def _bisected(self, part: Part, scheme: Part) -> tuple[Part, str]:
        """The nearest by one factor; where steps of attention's widths are too coarse, by another one for the rest."""
        unit = self._unit(part, scheme)
        best, factor = self._search(lambda factor: scaled(part, factor, unit=unit), scheme)
        note = f"widths times {factor:.3g}" + (f", multiples of {unit}" if unit > 1 else "")
        if self._off(self._size(best, scheme)) > TOLERANCE:
            other, finer = self._search(lambda finer: scaled(part, finer, coarse=factor, unit=unit), scheme)
            if self._off(self._size(other, scheme)) < self._off(self._size(best, scheme)):
                best, note = other, f"{note}, those beside attention's times {finer:.3g}"
        return best, note

    def _unit(self, part: Part, scheme: Part) -> int:
        """The least number such that widths may be changed where they stay multiples of it; 1 where none is found."""
        wider = ((unit, each_width(part, lambda width, step, _: width + step, unit)) for unit in _UNITS)
        return next((unit for unit, one in wider if self._size(one, scheme) is not None), 1)

    def _search(self, made: Callable[[float], Part], scheme: Part) -> tuple[Part, float]:
        """The nearest that is met on the way to the budget: rounded widths give no size exactly.

        A size grows as a power of the factor, so that a line through two points on logarithmic scales leads there in
        few steps; where it leads out of the bracket, this is halved. What is refused for another reason than its size
        is left in the direction of the widths of the file, which are not.
        """
        low, high, at = math.log(_LEAST), math.log(_MOST), 0.0
        before: tuple[float, float] | None = None
        tried: list[tuple[float, float, Part]] = []
        while len(tried) < _STEPS and high - low > _CLOSE:
            candidate = made(math.exp(at))
            size = self._size(candidate, scheme)
            tried.append((self._off(size), at, candidate))
            if tried[-1][0] <= _NEAR:
                break
            wider = at < 0 if size is None else size < self.budget
            low, high = (at, high) if wider else (low, at)
            guess = (low + high) / 2
            if size is not None and math.isfinite(size):
                power = _POWER if before is None else (math.log(size) - before[1]) / (at - before[0])
                line = at + math.log(self.budget / size) / max(power, _LEAST_POWER)
                guess = line if low < line < high else guess
                before = at, math.log(size)
            at = guess
        _, at, best = min(tried, key=lambda one: (one[0], abs(one[1])))
        return best, math.exp(at)

    def _off(self, size: float | None) -> float:
        return math.inf if size is None else abs(size / self.budget - 1)

    def _size(self, part: Part, scheme: Part) -> float | None:
        """The parameters or FLOPs of the model, infinite where it has too many to be built.

        None where it is refused for another reason, or they are not known.
        """
        spec = {**self.spec, "encoder": part, "sharing": scheme}
        key = repr(spec)
        if key not in self.measured:
            try:
                self.measured[key] = size_of(spec, self.by, self.batch)
            except TooManyParameters:
                self.measured[key] = math.inf
            except SpecError:
                self.measured[key] = None
        return self.measured[key]


def size_of(spec: Spec, by: str, batch: int) -> float | None:
    """The parameters of a model, or the FLOPs of one of its examples, None where these are not known.

    Raises:
        SpecError: it can't be built.
    """
    model = without_memory(spec)
    if by == "parameters":
        return float(sum(p.numel() for p in model.parameters()))
    return plain_flops_of(model, batch)


def sizes(grid: Grid, spec: Spec, train: Mapping[str, Any], problems: list[Problem]) -> Sizes | None:
    """What `[bench] match` asks for; None where it asks for nothing, or after adding what is wrong to `problems`."""
    match, here = grid.table["match"], [*grid.pairs()]
    if match is None or not train or not here:
        return None
    by, to = match["by"], here[0] if match["to"] is None else match["to"]
    if not isinstance(to, str):
        return Sizes(grid, spec, train["batch_size"], by, float(to), match)
    if to not in grid.references:
        known = f"{nearest(to, [*grid.references])} There are: {', '.join(grid.references)}"
        problems.append(Problem("bench.match.to", f"no trunk/sharing named {to!r}.{known}"))
        return None
    encoder, sharing = grid.references[to]
    try:
        budget = size_of({**spec, "encoder": encoder, "sharing": sharing}, by, train["batch_size"])
    except (SpecError, PluginError) as error:
        if to not in here:  # else it is told where variants are combined
            problems.append(Problem("bench.match.to", f"{to!r} can't be built: {error}"))
        return None
    if not budget:
        problems.append(Problem("bench.match.to", f"the {by} of {to!r} are not known. Give a number"))
        return None
    return Sizes(grid, spec, train["batch_size"], by, budget, match if to in here else {"by": by, "to": budget})
