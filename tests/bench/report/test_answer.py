"""The answer in words: what is not shown is said as plainly as what is."""

from __future__ import annotations

import math
from collections.abc import Callable

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.answer import Answer, answered
from mtlkit.bench.result import Measure, Result

Made = Callable[..., Result]

BASE = [[0.80, 0.81, 0.82], [0.80, 0.82, 0.81], [0.40, 0.41, 0.42]]
BETTER = [[0.85, 0.862, 0.873], [0.85, 0.871, 0.86], [0.35, 0.36, 0.368]]
SLIGHT = [[0.80, 0.812, 0.818], [0.801, 0.82, 0.812], [0.40, 0.409, 0.421]]
WORSE = [[0.70, 0.71, 0.722], [0.701, 0.72, 0.71], [0.50, 0.51, 0.521]]


def answer(result: Result) -> Answer:
    return answered(Findings.of(result))


def words(found: Answer) -> str:
    return " ".join(sentence for sentences in found.points.values() for sentence in sentences)


def test_a_clear_winner_is_said_to_be_one(scored: Made) -> None:
    found = answer(scored({"cnn/single": BASE, "cnn/hard/sum": SLIGHT, "cnn/hard/upgrad": BETTER}))
    assert found.headline.startswith("cnn/hard/upgrad is the best of 2 variants: +")
    text = words(found)
    assert "It has the best mean in every task." in text
    assert "It is shown to be better than the other variant" in text
    assert "cnn/hard/upgrad is shown to be better than training each task alone" in text
    assert "Of the other 1 no difference" in text
    assert "Nearest: cnn/hard/upgrad is better than cnn/hard/sum by" in text
    assert found.tasks[0].startswith("left: cnn/hard/upgrad is best, accuracy 0.86")


def test_no_difference_is_said_plainly(scored: Made) -> None:
    found = answer(scored({"cnn/single": BASE, "cnn/hard/sum": SLIGHT, "cnn/hard/upgrad": BASE}))
    text = words(found)
    assert "It is not shown to be better than the other variant" in text
    assert found.headline == "No clear best of 2 variants; none is shown to be better than training each task alone"
    assert found.points["Leader"][0].startswith("cnn/hard/sum, +0.04 ± 0.30 % over training each")
    assert "No variant is shown to be better than training each task alone" in text
    assert "3 seeds show large differences only" in text
    assert "is best" not in " ".join(found.tasks) and "has the highest mean" in found.tasks[1]
    assert "and cnn/hard/upgrad have the lowest mean" in found.tasks[2]


def test_sharing_that_harms_is_said_plainly(scored: Made) -> None:
    found = answer(scored({"cnn/single": BASE, "cnn/hard/sum": WORSE}))
    assert found.headline.startswith("cnn/hard/sum, the one variant: −")
    assert "cnn/hard/sum is shown to be worse than training each task alone." in found.points["Alone"]


def test_what_is_better_and_what_is_worse_than_alone_is_counted(scored: Made) -> None:
    scores = {"cnn/single": BASE, "cnn/hard/sum": BETTER, "cnn/mmoe/sum": BETTER, "cnn/hard/upgrad": WORSE}
    found = answer(scored(scores, sharings=["hard", "mmoe"]))
    start = "No clear best of 3 variants; 2 are shown to be better than training each task alone"
    assert found.headline == f"{start}, and 1 to be worse"


def test_one_variant_alone_is_no_best(scored: Made) -> None:
    found = answer(scored({"cnn/hard/sum": BASE}, baselines=False))
    assert found.headline == "cnn/hard/sum is the one variant, with no other to compare it with"
    assert found.tasks[0].startswith("left: cnn/hard/sum has the highest mean")


def test_one_seed_shows_nothing(scored: Made) -> None:
    one = {name: [row[:1] for row in rows] for name, rows in {"cnn/single": BASE, "cnn/hard/sum": BETTER}.items()}
    found = answer(scored({**one, "cnn/mmoe/sum": [row[:1] for row in WORSE]}, seeds=1))
    text = " ".join((words(found), *found.tasks))
    assert found.points["Caution"][0] == "One seed: no difference can be shown."
    assert "is best" not in text and "shown to be" not in text
    assert found.headline == "No clear best of 2 variants"
    assert found.points["Leader"][0].startswith("cnn/hard/sum, +")


def test_a_winner_by_rank_that_its_scores_contradict_is_not_called_the_best(scored: Made) -> None:
    """It wins two tasks by a little and loses the third by far."""
    narrow = [[0.99, 0.991, 0.992], [0.993, 0.992, 0.994], [0.12, 0.119, 0.121]]
    last = [[0.95, 0.951, 0.953], [0.96, 0.961, 0.962], [0.05, 0.051, 0.049]]
    found = answer(scored({"a/hard/sum": narrow, "b/hard/sum": last}, trunks=["a", "b"], baselines=False))
    assert found.headline == "No clear best of 2 variants"
    first, tasks, sizes = found.points["Leader"]
    assert first == "a/hard/sum, mean rank 1.33 among 2."
    assert tasks.endswith("in every task: a/hard/sum in left and right and b/hard/sum in ink.")
    assert sizes.endswith("which is better depends on how tasks are weighed.")
    text = words(found)
    assert "shown to be worse than b/hard/sum in the mean over tasks, though its mean rank is better" in text
    assert "it is behind b/hard/sum by " in text and "SD over seeds [" in text and "(shown, p = 0.0" in text
    assert "Nearest" not in text and "nothing says whether sharing helps" in text


def test_who_is_ahead_by_differences_is_named_where_that_is_not_shown(scored: Made) -> None:
    narrow = [[0.99, 0.97, 0.98], [0.993, 0.97, 0.98], [0.12, 0.13, 0.111]]
    wide = [[0.96, 0.985, 0.975], [0.97, 0.99, 0.96], [0.05, 0.13, 0.02]]
    found = answer(scored({"a/hard/sum": narrow, "b/hard/sum": wide}, trunks=["a", "b"], baselines=False))
    assert found.points["Leader"][0] == "a/hard/sum, mean rank 1.33 among 2."
    text = words(found)
    assert "it is behind b/hard/sum by " in text and "(not shown, p = " in text and "no difference" not in text


def test_a_baseline_that_is_as_good_is_named(scored: Made) -> None:
    scores = {"a/single": BETTER, "a/hard/sum": BASE, "b/single": WORSE, "b/hard/sum": BETTER}
    found = answer(scored(scores, trunks=["a", "b"]))
    assert found.headline.startswith("b/hard/sum is the best of 2 variants: mean rank 1.50 among 4 with the baselines")
    assert "At least as good is training each task alone: a/single (mean rank 1.50)." in found.points["Alone"]


def test_who_shares_the_best_mean_is_named(scored: Made) -> None:
    found = answer(scored({"cnn/hard/sum": BETTER, "cnn/mmoe/sum": BETTER, "cnn/hard/upgrad": BASE}, baselines=False))
    expected = "It has the best mean in every task, in left, right and ink together with others."
    assert found.points["Leader"][1] == expected
    assert found.tasks[0].startswith("left: cnn/hard/sum and cnn/mmoe/sum have the highest mean, accuracy 0.86")


def test_what_failed_or_is_undefined_is_said(made: Made, scored: Made) -> None:
    broken = [BETTER[0], [0.9, math.nan, 0.9], BETTER[2]]
    found = answer(scored({"cnn/single": BASE, "cnn/hard/sum": broken, "cnn/mmoe/sum": SLIGHT}))
    assert "Δm is undefined for cnn/hard/sum" in words(found)
    nothing = answer(made(failing="cnn/hard/sum", sharings=["hard"], balancers=["sum"]))
    assert nothing.headline == "Nothing can be ranked: every run failed"
    assert "3 of 12 runs failed" in words(nothing)


def test_a_measure_of_unknown_direction_is_named(made: Made) -> None:
    result = made()
    result.measures["ink"] = Measure("mae", None)
    found = answer(result)
    assert "ink" in next(text for text in found.points["Caution"] if text.startswith("Left out"))
    assert found.tasks[2] == "ink: which direction is better is not known."
