"""The report: whole pages without outer things, whatever the names; and the same figures in its other files."""

from __future__ import annotations

import csv
import html
import io
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mtlkit.bench.report import write_report
from mtlkit.bench.report.drawings import drawings
from mtlkit.bench.result import Result
from mtlkit.errors import MtlkitError

Made = Callable[..., Result]

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://evil.example")',
    "\u05e2\u05d1\u05e8\u05d9\u05ea \u202egnirts",
    "a|b`c*d_e[f](http://evil.example)\\$x_1^2$%&#{}~",
    "{{ 7 * 7 }}{% raw %}",
    '- 1) + "left"',
    "x" * 100,
)
# Commands of LaTeX that every font of text has.
IN_OT1 = (
    "textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|symbol|textbf|textit|ldots|pm|approx|uparrow|"
    "downarrow|Delta"
)
VOID = {"meta", "br", "img", "link", "input", "hr"}
SHAPES = {"line", "circle", "path"}


class Page(HTMLParser):
    """Tags, attributes and text, with every tag closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def page_of(result: Result, out: Path) -> Page:
    paths = write_report(result, out)
    assert [path.name for path in paths] == ["report.html", "report.md", "results.csv", "table.tex"]
    assert sorted(out.iterdir()) == sorted(paths)
    return Page((out / "report.html").read_text("utf-8"))


def hostile(made: Made) -> Result:
    return made(
        trunks=HOSTILE[:2], sharings=("hard", HOSTILE[4]), balancers=("sum", HOSTILE[3]), tasks=HOSTILE, failing=""
    )


CASES = {
    "usual": {},
    "one variant, one seed, one epoch": {
        "sharings": ["hard"], "balancers": ["sum"], "seeds": 1, "epochs": 1, "baselines": False, "tasks": ["a"]
    },
    "forty-five variants of twelve tasks": {
        "trunks": ["mlp", "cnn", "rnn"],
        "sharings": ["hard", "mmoe", "cgc"],
        "balancers": ["sum", "uw", "upgrad", "mgda", "a_balancer_with_a_name_that_never_ends"],
        "tasks": [f"task {i} with a long name" for i in range(12)],
        "epochs": 3,
    },
    "all failed": {"sharings": ["hard"], "balancers": ["sum"], "baselines": False, "failing": "cnn/hard/sum"},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_page_is_whole_and_needs_nothing_beside_it(made: Made, case: dict[str, object], tmp_path: Path) -> None:
    page = page_of(made(**case), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    for tag, attributes in page.seen:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "use", "image", "foreignobject")
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
        for value in attributes.values():
            assert "nan" not in re.split(r"[ ,MLHVZ%]", value or "") and "inf" not in re.split(
                r"[ ,MLHVZ%]", value or ""
            )
    assert not re.search(r"url\(|@import|https?://", text)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes["aria-labelledby"] for _, attributes in page.seen if "aria-labelledby" in attributes}
    assert named <= set(ids) and {a["href"][1:] for t, a in page.seen if t == "a"} <= set(ids)
    assert all("scope" in attributes for tag, attributes in page.seen if tag == "th")
    every = [tag for tag, _ in page.seen]
    assert every.count("script") == 1 and every.count("h1") == 1


def test_hostile_names_are_text_in_every_file(made: Made, tmp_path: Path) -> None:
    page = page_of(hostile(made), tmp_path)
    assert [tag for tag, _ in page.seen].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.seen for name in attributes)
    assert HOSTILE[0] in page.text and HOSTILE[1] in page.text and "{{ 7 * 7 }}" in page.text
    for name in ("report.html", "report.md", "table.tex"):
        assert "\u202e" not in (tmp_path / name).read_text("utf-8")
    # Markdown: no tag, no link, no cell more than there are columns.
    lines = (tmp_path / "report.md").read_text("utf-8").split("\n")
    plain = [re.sub(r"\\.", "", text) for text in lines]
    tables = [block.split("\n") for block in "\n".join(plain).split("\n\n") if block.startswith("| ")]
    assert len(tables[0]) == 12 and all(len({text.count("|") for text in table}) == 1 for table in tables)
    assert not any(re.match(r"- ([-+=]|\d+[.)])\s", text) for text in lines)  # no list within one
    fenced = plain.index("```")
    assert not any(mark in text for text in plain[:fenced] for mark in ("<", "](", "http://"))
    # LaTeX: what is special is escaped, but for the signs between the cells.
    bare = [
        re.sub(rf"\\({IN_OT1})(?![a-zA-Z])(\{{\}})?|\\[{{}}$&#%_]|\$-\$", "", text.removesuffix(r" \\"))
        for text in (tmp_path / "table.tex").read_text("utf-8").split("\n")
        if text.endswith(r" \\")
    ]
    bare = [text.replace("$_m$", "") for text in bare]
    # Two tables, each of half the columns.
    assert len(bare) == 24 and {text.count("&") for text in bare} == {7}
    for text in bare:
        assert not re.search(r"[#%_^~\\]", text) and text.count("{") == text.count("}")


def test_baselines_are_in_italics_as_the_legend_says(made: Made, tmp_path: Path) -> None:
    write_report(made(), tmp_path)
    assert "\n| *cnn/single* |" in (tmp_path / "report.md").read_text("utf-8")
    assert "\n\\textit{cnn/single} &" in (tmp_path / "table.tex").read_text("utf-8")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_typesets_the_table(made: Made, tmp_path: Path) -> None:
    write_report(made(), tmp_path)
    paper = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table.tex}\end{document}"
    (tmp_path / "paper.tex").write_text(paper)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "paper.pdf").exists(), done.stdout[-2000:]


def test_a_csv_holds_every_figure_and_no_formula(made: Made, tmp_path: Path) -> None:
    result = hostile(made)
    result.runs[-1].test[HOSTILE[2]]["accuracy"] = math.nan
    write_report(result, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text("utf-8"))))
    assert list(rows[0]) == ["variant", "trunk", "sharing", "balancer", "task", "seed", "metric", "value"]
    assert len(rows) == sum(len(scores) for run in result.runs for scores in run.test.values())
    texts = [cell for row in rows for key, cell in row.items() if key not in ("seed", "value")]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in texts)
    task = f"'{HOSTILE[2]}"
    found = {
        (row["variant"], int(row["seed"])): row["value"]
        for row in rows
        if row["task"] == task and row["metric"] == "accuracy"
    }
    wanted = {
        (run.variant, run.seed): run.test[HOSTILE[2]]["accuracy"] for run in result.runs if HOSTILE[2] in run.test
    }
    assert {key: float(value) for key, value in found.items() if value} == {
        key: value for key, value in wanted.items() if math.isfinite(value)
    }
    assert list(found.values()).count("") == 1


def test_a_constant_prediction_stands_below_the_variants_in_every_file(made: Made, tmp_path: Path) -> None:
    result = hostile(made)
    measures = result.measures.items()
    near = result.runs_of(next(iter(result.variants)))[0].test or {}
    result.constant = {task: {one.metric: near[task][one.metric] if task in near else 0.4} for task, one in measures}
    page = page_of(result, tmp_path)
    assert "is a constant prediction, the same for every example" in page.text and "‹ 0.4" in page.text
    assert [attributes.get("class") for tag, attributes in page.seen if tag == "line"].count("constant") >= 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text("utf-8"))))
    constant = [row for row in rows if row["variant"] == "constant prediction"]
    assert len(constant) == len(measures) and constant[2]["task"] == f"'{HOSTILE[2]}"
    assert {(row["seed"], row["trunk"]) for row in constant} == {("", "")}
    for name, mark in (("report.md", "| *constant prediction* | "), ("table.tex", r"\textit{constant prediction} & ")):
        lines = [text for text in (tmp_path / name).read_text("utf-8").split("\n") if text.startswith(mark)]
        assert lines and "0.4" in lines[0]


def test_the_page_says_what_was_compared_and_how_to_do_it_again(made: Made, tmp_path: Path) -> None:
    result = made(failing="cnn/mmoe/upgrad")
    result.variants["cnn/hard/sum"] = replace(result.variants["cnn/hard/sum"], note="widened to 1,000 parameters")
    page = page_of(result, tmp_path)
    flat = " ".join(page.text.split())
    for words in (
        "4 variants on digits, 3 tasks",
        "Every run: 6 epochs, 96 steps of 64 examples, adam; 3 seeds",
        "1,000 train, 200 valid, 200 test",
        "lowest weighted sum of validation losses",
        "cnn/single: one model for each task",
        "widened to 1,000 parameters",
        "RuntimeError: out of <luck>",
        "mtlkit bench bench.toml",
        '"batch_size": 64',
        result.versions["torch"],
        str(result.machine["processor"]),
    ):
        assert words in flat, words
    again = (tmp_path / "report.md").read_text("utf-8")
    for words in ("# 4 variants on digits, 3 tasks", "mtlkit bench bench.toml", "out of \\<luck\\>"):
        assert words in again, words


def test_a_result_that_was_kept_gives_the_same_report(made: Made, tmp_path: Path) -> None:
    result = made()
    result.runs[-1].test["left"]["accuracy"] = math.nan
    result.runs[-1].epochs[-1]["valid"]["left"]["accuracy"] = math.nan
    kept = Result.read(result.write(tmp_path / "kept"))
    first, second = write_report(result, tmp_path / "first"), write_report(kept, tmp_path / "second")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_model_that_cannot_be_built_is_said_to_be_so(made: Made, tmp_path: Path) -> None:
    result = made(sharings=["hard"], balancers=["sum"], baselines=False)
    result.variants["cnn/hard/sum"].spec["encoder"] = {"type": "of_a_plugin"}
    assert "no encoder named 'of_a_plugin'" in page_of(result, tmp_path).text


def test_baselines_are_models_of_one_task_and_not_drawn_as_those_of_all(made: Made) -> None:
    result = made(sharings=["hard"], balancers=["sum"])
    assert [one.variants for one in drawings(result)] == [("cnn/hard/sum",)]


@pytest.mark.parametrize("package", ["jinja2", "scipy.special"])
def test_without_the_extra_nothing_is_written(
    made: Made, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MtlkitError, match="pip install"):
        write_report(made(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser on PATH")
def test_a_browser_has_nothing_to_complain_of(made: Made, tmp_path: Path) -> None:
    page_of(hostile(made), tmp_path)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    page = (tmp_path / "report.html").as_uri()
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", page], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr
    # The script ran: titles of columns are buttons.
    assert done.stdout.count("<button") == html.unescape(done.stdout).count('data-first="') + 1
