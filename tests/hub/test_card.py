"""The model card: what it says, and that nothing in a name changes how it is read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import mtlkit
from mtlkit import SpecError
from mtlkit.hub.card import About, Card
from mtlkit.hub.markdown import line
from mtlkit.show import mermaid
from mtlkit.spec import name_fault

READER = MarkdownIt("commonmark", {"html": True}).enable("table")
SCORES = {"price": {"loss": 0.125, "mae": 0.25}, "sold": {"loss": 1.5, "accuracy": 0.875, "f1": float("nan")}}


def test_it_says_what_the_model_is(model: mtlkit.Model) -> None:
    about = About("mit", ["houses"], "400 houses in **three** cities.", SCORES)
    text = Card.of(model, about).text("anna/houses")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "mtlkit" and head["license"] == "mit"
    assert head["tags"] == ["mtlkit", "multi-task-learning", "pytorch", "houses"]
    assert head["metrics"] == ["loss", "mae", "accuracy", "f1"]
    for words in (
        "# anna/houses\n",
        "2 tasks, made with [mtlkit](https://github.com/mtlkit/mtlkit): 49 parameters, of which 25 are shared",
        "| price | encoder | 1 | linear | mse | 1 | mae |",
        "| sold | encoder | 3 | linear | cross_entropy | 0.5 | accuracy |",
        "| task | loss | mae | accuracy | f1 |\n| --- | ---: | ---: | ---: | ---: |\n",
        "| price | 0.125 | 0.25 |  |  |\n| sold | 1.5 |  | 0.875 |  |",
        "400 houses in **three** cities.",
        'model = mtlkit.Model.from_pretrained("anna/houses")',
        "`x` is a tensor of float32, examples × 4.",
        f"| mtlkit | {mtlkit.__version__} |",
        f"```mermaid\n{mermaid(model)}\n```",
    ):
        assert words in text, words


def test_the_hub_reads_its_scores(model: mtlkit.Model) -> None:
    """A task each, although the Hub puts together what is of one type; no NaN."""
    text = Card.of(model, About(data="Houses", scores=SCORES)).text("anna/houses")
    data = ModelCard(text).data
    assert data.model_name == "anna/houses"
    found = {(one.task_name, one.metric_type): one.metric_value for one in data.eval_results or []}
    assert found == {(t, m): v for t, values in SCORES.items() for m, v in values.items() if v == v}
    assert {one.dataset_name for one in data.eval_results or []} == {"Houses"}
    json.dumps(yaml.safe_load(text.split("---\n")[1]), allow_nan=False)


def test_what_is_not_given_is_not_said(model: mtlkit.Model) -> None:
    text = Card.of(model, About()).text("houses")
    assert not {"license", "model-index", "metrics", "model_name"} & set(yaml.safe_load(text.split("---\n")[1]))
    assert "## Scores" not in text and "## Data" not in text and "mtlkit predict" not in text


def test_its_code_runs_on_the_model_that_it_describes(model: mtlkit.Model, tmp_path: Any, monkeypatch: Any) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    model.save_pretrained("houses")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "houses" / "README.md").read_text(), re.DOTALL)
    assert code and code[1].count("\n") == 3
    names: dict[str, Any] = {"x": torch.randn(2, 4)}
    exec(code[1], names)
    expected = model.eval().predict(names["x"])
    assert all(torch.equal(value, expected[task]) for task, value in names["predictions"].items())


def test_how_to_predict_from_the_command_line(model: mtlkit.Model) -> None:
    card = Card.of(model, About(), "new.csv --out predicted.csv")
    fetch, command = "hf download anna/houses --local-dir houses", "mtlkit predict houses new.csv --out predicted.csv"
    assert f"```\n{fetch}\n{command}\n```" in card.text("anna/houses")
    assert f"```\n{command}\n```" in card.text("houses")
    assert "mtlkit predict 'my houses' new.csv" in card.text("my houses")


def test_named_inputs_and_lengths() -> None:
    spec = {
        "inputs": {"words": {"shape": [None], "dtype": "int64"}, "image": [3, 8, 8]},
        "encoders": {
            "w": {"type": "embedding", "vocab": 9, "dim": 4, "from": "words"},
            "i": {"type": "mlp", "hidden": [4], "from": "image"},
        },
        "tasks": {"a": {"outputs": 1, "on": "w"}, "b": {"outputs": 1, "on": "i"}},
    }
    text = Card.of(mtlkit.build_model(spec), About()).text("x")
    assert "`x` holds a tensor by the name of each input" in text
    assert "| words | any | int64 |\n| image | 3 × 8 × 8 | float32 |" in text


def test_a_long_spec_is_in_its_file_alone() -> None:
    tasks = {f"task {i}": {"outputs": 1} for i in range(300)}
    text = Card.of(mtlkit.build_model({"input": [2], "encoder": "linear", "tasks": tasks}), About()).text("x")
    assert "see spec.json" in text and "```json" not in text and "And 100 more." in text
    assert len(text) < 50_000


def _names() -> st.SearchStrategy[str]:
    marks = st.text(alphabet="|`*_[]<>&~#-+=!$:{}\"'%@?,;() ab\u2028\u202e", min_size=1, max_size=30)
    return st.one_of(marks, st.text(min_size=1, max_size=30)).filter(lambda name: name_fault(name) is None)


@settings(max_examples=60)
@given(st.lists(_names(), min_size=1, max_size=3, unique_by=lambda name: line(name)), st.text(max_size=20))
def test_names_of_any_kind(names: list[str], word: str) -> None:
    """The YAML parses and holds the names; the tables keep their shape; nothing becomes HTML, a link or an image."""
    model = _model(names)
    metric = word if word.strip() else "mae"
    about = About("mit", [metric], None, {name: {metric: 0.5, "loss": 1.0} for name in names})
    text = Card.of(model, about).text("anna/houses")
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert [result["task"]["name"] for result in head["model-index"][0]["results"]] == [*map(line, names)]
    assert head["tags"][-1] == line(metric)
    assert str(ModelCard(text)) == text  # as the Hub reads it

    tokens = READER.parse(ModelCard(text).text)
    assert [token.content for token in tokens if token.type == "html_block"] == [
        "<details>\n<summary>The spec</summary>\n",
        "</details>\n",
    ]
    inline = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inline} <= {
        "text",
        "text_special",
        "code_inline",
        "link_open",
        "link_close",
        "softbreak",
    }
    assert [child.attrs["href"] for child in inline if child.type == "link_open"] == [
        "https://github.com/mtlkit/mtlkit"
    ]
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert titles == ["anna/houses", "Inputs", "Tasks", "Scores", "Architecture", "Versions"]
    fences = {token.info: token.content for token in tokens if token.type == "fence"}
    assert list(fences) == ["python", "mermaid", "json"]
    assert json.loads(fences["json"]) == model.spec and fences["mermaid"] == f"{mermaid(model)}\n"
    rows = text.count("\n| ")
    assert rows == (2 + 1) + (2 + len(names)) + (2 + len(names)) + (2 + 2)


def _model(names: list[str]) -> mtlkit.Model:
    return mtlkit.build_model(
        {"input": [2], "encoder": {"type": "linear", "features": 2}, "tasks": {name: {"outputs": 1} for name in names}}
    )


@pytest.mark.parametrize(
    ("wrong", "path", "words"),
    [
        ({"license": ""}, "license", "expected a text"),
        ({"license": 3}, "license", "found 3"),
        ({"data": "  "}, "data", "expected a text"),
        ({"tags": "houses"}, "tags", "expected a list of texts"),
        ({"tags": [1]}, "tags", "expected a list of texts"),
        ({"tags": None}, "tags", "expected a list of texts"),
        ({"scores": [1]}, "scores", "what Trainer.evaluate() gives"),
        ({"scores": {"prise": {}}}, "scores.prise", "Did you mean 'price'?"),
        ({"scores": {"price": 0.5}}, "scores.price", "expected a number by the name of each metric"),
        ({"scores": {"price": {"mae": "0.5"}}}, "scores.price", "expected a number by the name of each metric"),
        ({"scores": {"price": {"mae": True}}}, "scores.price", "expected a number by the name of each metric"),
        ({"scores": {"price": {"": 1.0}}}, "scores.price", "expected a number by the name of each metric"),
    ],
)
def test_what_is_of_no_use_for_a_card(model: mtlkit.Model, wrong: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        Card.of(model, About(**wrong))
    [problem] = error.value.problems
    assert problem.path == path and words in problem.message


def test_all_that_is_wrong_is_told_at_once(model: mtlkit.Model) -> None:
    with pytest.raises(SpecError) as error:
        model.save_pretrained("nowhere", license="", tags="a", scores={"x": {}})
    assert [problem.path for problem in error.value.problems] == ["license", "tags", "scores.x"]


def test_scores_of_numpy_are_numbers(model: mtlkit.Model) -> None:
    import numpy as np

    text = Card.of(model, About(scores={"price": {"mae": np.float32(0.25)}})).text("x")
    assert "| price | 0.25 |" in text and "value: 0.25" in text
