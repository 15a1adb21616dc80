"""A result in words, as one would tell a colleague: which is best, what is shown, and what is not.

    answer = answered(found)
    answer.headline      # "No clear best of 9 variants; none is shown to be better than training each task alone"
    answer.points        # {"Leader": ["cnn/mmoe/upgrad, mean rank 2.33 ...", ...], "Others": [...], ...}
    answer.tasks         # ["left: cnn/mmoe/upgrad has the highest mean, accuracy 0.989 ± 0.003; ...", ...]

What is not shown is said as plainly as what is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtlkit.bench.findings import Findings, Row
from mtlkit.bench.learned import learned_alone, told_not_learned
from mtlkit.bench.report.limits import limits_of
from mtlkit.bench.statistics import Difference
from mtlkit.bench.wording import (
    MOST_NAMES,
    compared,
    counted,
    estimated,
    figure,
    interval,
    isolated,
    listed,
    probability,
    some,
    times,
)


@dataclass(frozen=True)
class Answer:
    """One sentence; what is to be known of it, sentences by what they are about; and a sentence for each task."""

    headline: str
    points: dict[str, list[str]]
    tasks: list[str]


def answered(found: Findings) -> Answer:
    """The answer that a result gives."""
    points = {
        "Not learned": [*told_not_learned(found), *_of_learned(found)],
        "Leader": [*_leader(found), *_by_task(found), *_sizes(found)],
        "Others": [*_against_others(found)],
        "Alone": [*_against_alone(found)],
        "Cost": [*_cost(found)],
        "Caution": [*limits_of(found)],
    }
    told = {about: sentences for about, sentences in points.items() if sentences}
    return Answer(_headline(found), told, [_of_task(found, task) for task in found.result.measures])


def _of_learned(found: Findings) -> Iterator[str]:
    """The headline that the tasks give that something has learned: in a mean over tasks noise counts as much."""
    rest = learned_alone(found)
    if rest is not None:
        left_out = [isolated(task) for task in found.result.measures if task not in rest.result.measures]
        without = listed(left_out) if len(left_out) <= MOST_NAMES else f"these {len(left_out)} tasks"
        yield f"Without {without}: {_headline(rest)}."


def _headline(found: Findings) -> str:
    if found.best is None:
        return f"Nothing can be ranked: {found.ranking.why}"
    number, name = len(found.result.compared), isolated(found.best)
    if number == 1:
        if found.by != "gain":
            return f"{name} is the one variant, with no other to compare it with"
        return f"{name}, the one variant: {_standing(found)}"
    if _is_clear(found):
        return f"{name} is the best of {number} variants: {_standing(found)}"
    return f"No clear best of {number} variants{_none_better(found)}"


def _is_clear(found: Findings) -> bool:
    """Whether the best is shown to be better than every other variant."""
    return all(one.shown and one.gain > 0 for one in found.others.values())


def _none_better(found: Findings) -> str:
    """ "; none is shown to be better than training each task alone, and 11 to be worse"."""
    better, worse, rest = _alone(found)
    if not (better or worse or rest):
        return ""
    start = f"; {len(better) or 'none'} {'are' if len(better) > 1 else 'is'} shown to be better than training each task"
    return f"{start} alone{f', and {len(worse)} to be worse' if worse else ''}"


def _standing(found: Findings) -> str:
    """How good the best is, by what variants are ranked by."""
    row = found.row(found.best or "")
    if row.gain_percent is not None and found.by == "gain":
        return f"{estimated(row.gain_percent, found.gain_decimals, sign=True)} % over training each task alone"
    if found.ranking.task is not None:
        return _figure(row, found, found.ranking.task)
    # Variants and baselines are ranked together.
    with_baselines = " with the baselines" if found.has_baselines else ""
    return f"mean rank {figure(row.rank, 2)} among {len(found.ranking.ranks)}{with_baselines}"


def _leader(found: Findings) -> Iterator[str]:
    """Who is first where nobody is shown to be the best: the headline names no one then."""
    if found.best is not None and not _is_clear(found):
        yield f"{isolated(found.best)}, {_standing(found)}."


def _sizes(found: Findings) -> Iterator[str]:
    """Who is ahead of the best by mean rank, by how much: the two ways to weigh tasks need not agree."""
    if not found.ahead:
        return
    ahead = [*found.ahead.items()][:MOST_NAMES]
    words = [f"{isolated(name)} by {_lead(one, found)}" for name, one in ahead]
    words += [f"{len(found.ahead) - MOST_NAMES} more by less"] * (len(found.ahead) > MOST_NAMES)
    behind = f"By size of differences, in the mean over tasks, it is behind {listed(words)}"
    yield f"{behind}: which is better depends on how tasks are weighed."


def _lead(one: Difference, found: Findings) -> str:
    """ "1.3 SD over seeds [−0.4, 3.0] (not shown, p = 0.30)"."""
    places = found.others_decimals
    by = f"{figure(-one.gain, places)} {found.others_unit} {interval(-one.gain, one.half, places)}"
    tested = [] if one.p is None else ["shown" if one.shown else "not shown", probability(one.p)]
    return f"{by.rstrip()} ({', '.join(tested)})" if tested else by.rstrip()


def _by_task(found: Findings) -> Iterator[str]:
    """Who has the best mean where: a mean over tasks hides it."""
    tasks: dict[str, list[str]] = {}
    for task in found.result.measures:
        for row in found.best_of(task):
            tasks.setdefault(row.variant.name, []).append(task)
    if found.best is None or len(found.rows) < 2 or len(found.result.measures) < 2:
        return
    mine = tasks.get(found.best, [])
    others = {task for name, its in tasks.items() if name != found.best for task in its}
    if others <= {*mine}:
        also = f", in {_tasks([task for task in mine if task in others])} together with others" if others else ""
        yield f"It has the best mean in every task{also}."
        return
    most = sorted(tasks, key=lambda name: -len(tasks[name]))
    words = [f"{isolated(name)} in {_tasks(tasks[name])}" for name in most[:MOST_NAMES]]
    words += [f"{len(most) - MOST_NAMES} more in the rest"] * (len(most) > MOST_NAMES)
    yield f"It does not have the best mean in every task: {listed(words)}."


def _tasks(tasks: list[str]) -> str:
    return listed([isolated(task) for task in tasks]) if len(tasks) < MOST_NAMES else f"{len(tasks)} tasks"


def _against_others(found: Findings) -> Iterator[str]:
    if not found.others or found.result.seeds == 1:
        return
    better = [name for name, one in found.others.items() if one.shown and one.gain > 0]
    worse = [name for name, one in found.others.items() if one.shown and one.gain < 0]
    same = [name for name, one in found.others.items() if one.p is not None and not one.shown]
    untested = [one.why for one in found.others.values() if one.p is None]
    count = len(found.others)
    if not better and not same and not worse:
        yield f"No difference can be tested: {untested[0]}."
        return
    where = "" if found.by == "score" else " in the mean over tasks"
    if better:
        whole = "the other variant" if count == 1 else f"all {count} others"
        whom = whole if len(better) == count else f"{len(better)} of the {count} others"
        yield f"It is shown to be better than {whom}{where}."
    else:
        whom = "the other variant" if count == 1 else f"any of the {count} others"
        yield f"It is not shown to be better than {whom}{where}."
    if worse:
        though = "though its mean rank is better" if found.by == "rank" else "on the seeds that both have"
        yield f"It is shown to be worse than {some(worse)}{where}, {though}."
    if same and better:
        yield f"It is not shown to differ from {some(same)}."
    if untested:
        yield f"{counted(len(untested), 'comparison')} could not be made: {untested[0]}."
    behind = [name for name in same or better or worse if name not in found.ahead]
    if not behind:
        return
    near = min(behind, key=lambda name: abs(found.others[name].gain))
    words = _compared(found.others[near], found.best or "", near, found.others_decimals, found.others_unit)
    yield f"Nearest: {words}."


def _against_alone(found: Findings) -> Iterator[str]:
    if found.by != "gain" and (equals := found.baselines_as_good):
        names = [f"{isolated(row.variant.name)} ({_quality(found, row)})" for row in equals]
        yield f"At least as good is training each task alone: {listed(names)}."
    if not found.alone:
        if not found.has_baselines:
            yield "No task was trained alone, so that nothing says whether sharing helps."
        return
    better, worse, same = _alone(found)
    if not (better or worse or same):
        if found.result.seeds > 1:
            yield f"Against training each task alone nothing can be tested: {next(iter(found.alone.values())).why}."
        return
    rest = len(found.alone) - len(better) - len(worse)
    start = f"{some(better)} {_is(better)} shown to be better" if better else "No variant is shown to be better"
    yield f"{start} than training each task alone with the same trunk."
    if worse:
        yield f"{some(worse)} {_is(worse)} shown to be worse than training each task alone."
    if rest and (better or worse):
        yield f"Of the other {rest} no difference from training each task alone is shown."


def _alone(found: Findings) -> tuple[list[str], list[str], list[str]]:
    """The variants shown to be better than training each task alone, those shown to be worse, and the others tested."""
    tested = {name: one for name, one in found.alone.items() if one.p is not None}
    better = [name for name, one in tested.items() if one.shown and one.gain > 0]
    worse = [name for name, one in tested.items() if one.shown and one.gain < 0]
    return better, worse, [name for name, one in tested.items() if not one.shown]


def _cost(found: Findings) -> Iterator[str]:
    alone = None if found.best is None else found.result.baseline_of(found.best)
    if found.best is None or alone is None:
        return
    mine, other = found.row(found.best).cost, found.row(alone).cost
    ratios = [f"{times(mine.parameters / other.parameters)} the parameters"] if other.parameters else []
    if mine.seconds and other.seconds:
        ratios.append(f"{times(mine.seconds / other.seconds)} the training time")
    if ratios:
        yield f"{isolated(found.best)} takes {listed(ratios)} of training each task alone."


def _of_task(found: Findings, task: str) -> str:
    measure, name = found.result.measures[task], isolated(task)
    tops = found.best_of(task)
    if not tops:
        unknown = measure.higher_is_better is None
        why = "which direction is better is not known" if unknown else "no variant has a figure"
        return f"{name}: {why}."
    first, others = tops[0], [row.tasks[task].versus for row in found.rows]
    versus = [one for one in others if one is not None]
    value = _figure(first, found, task)
    if versus and all(one.shown for one in versus):
        words = [f"{name}: {isolated(first.variant.name)} is best, {value}"]
    else:
        have = "has" if len(tops) == 1 else "have"
        mean = "highest" if measure.higher_is_better else "lowest"
        words = [f"{name}: {some([row.variant.name for row in tops])} {have} the {mean} mean, {value}"]
    same = sum(row.tasks[task].like_best for row in found.rows)
    if same:
        words.append(f"{counted(same, 'other')} {'is' if same == 1 else 'are'} not shown to differ")
    alone = found.result.baseline_of(first.variant.name)
    over = None if alone is None else found.row(alone).tasks[task].versus
    if over is not None and over.p is not None and alone is not None:
        words.append(_compared(over, first.variant.name, alone, found.decimals(task), ""))
    if (constant := found.result.constant_of(task)) is not None:
        words.append(f"a constant prediction has {figure(constant, found.decimals(task))}")
    return "; ".join(words) + "."


def _quality(found: Findings, row: Row) -> str:
    """ "mean rank 1.33", "accuracy 0.989 ± 0.003"."""
    task = found.ranking.task
    return f"mean rank {figure(row.rank, 2)}" if task is None else _figure(row, found, task)


def _figure(row: Row, found: Findings, task: str) -> str:
    """ "accuracy 0.989 ± 0.003"."""
    return f"{found.result.measures[task].metric} {estimated(row.tasks[task].estimate, found.decimals(task))}"


def _compared(one: Difference, first: str, second: str, decimals: int, unit: str) -> str:
    return compared(one, isolated(first), isolated(second), decimals, unit)


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
