from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mtlkit import encoders, heads
from mtlkit.errors import PluginError, Problem
from mtlkit.option import EncoderPart, Size, Sizes
from mtlkit.part import check, make, options_schema, schema_of
from mtlkit.registry import Registry, _installed


def checked(part: Any, registry: Registry = encoders) -> tuple[Any, list[str]]:
    problems: list[Problem] = []
    return check(registry, part, "here", problems), [str(problem) for problem in problems]


@pytest.fixture
def own() -> Iterator[Registry]:
    """A registry of its own kind, so that nothing stays registered."""
    yield Registry("thing", "mtlkit.no_such_group")
    _installed.cache_clear()


def test_a_name_is_a_part_with_every_default() -> None:
    expected = {
        "type": "mlp",
        "hidden": [128],
        "activation": "relu",
        "norm": "none",
        "dropout": 0.0,
        "input_dropout": 0.0,
    }
    assert checked("mlp") == checked({"type": "mlp"}) == (expected, [])
    assert checked(expected) == (expected, []), "a checked part is a right part"


def test_nested_parts_are_checked_and_filled_in() -> None:
    part, problems = checked({"type": "sequential", "layers": ["identity", {"type": "linear", "features": 3}]})
    assert not problems
    assert part["layers"] == [{"type": "identity"}, {"type": "linear", "features": 3, "bias": True}]
    _, problems = checked({"type": "sequential", "layers": ["mpl", {"type": "linear", "feature": 3}]})
    assert [p.partition(":")[0] for p in problems] == ["here.layers.0", "here.layers.1.feature"]
    _, problems = checked({"type": "sequential", "layers": ["mlp", 7]})
    assert [p.partition(":")[0] for p in problems] == ["here.layers.1"]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (
            "mpl",
            "here: no encoder named 'mpl'. Did you mean 'mlp'? Registered: cnn, embedding, identity, linear, mlp, ",
        ),
        ({"type": "MLP"}, "here.type: no encoder named 'MLP'. Did you mean 'mlp'?"),
        ({"hidden": [3]}, "here.type: is missing, expected one of the encoders: cnn"),
        ({"type": 3}, "here.type: found 3"),
        (["mlp"], "here: found ['mlp'], expected one of the encoders by name, or a table with its 'type'"),
        ({"type": "mlp", "hiden": [3]}, "here.hiden: unknown option. Did you mean 'hidden'? Options: hidden, "),
        ({"type": "identity", "x": 1}, "here.x: unknown option. Options: none"),
        ({"type": "embedding"}, "here.vocab: is required and missing"),
        ({"type": "cnn", "kernel": "x"}, "here.kernel: found 'x', expected an integer or a list"),
        (
            {"type": "embedding", "vocab": "30"},
            "here.vocab: found '30', expected an integer. Write it without quotes",
        ),
        ({"type": "mlp", "dropout": "1e-1"}, "here.dropout: found '1e-1', expected a number. Write it without quotes"),
        ({"type": "mlp", "hidden": 64}, "here.hidden: found 64, expected a list, as in [64]"),
        ({"type": "mlp", "hidden": [1, 2.5]}, "here.hidden.1: found 2.5, expected an integer"),
        ({"type": "mlp", "dropout": 2}, "here.dropout: found 2, expected less than 1"),
        ({"type": "rnn", "cell": "lsmt"}, "here.cell: found 'lsmt', expected 'rnn', 'gru' or 'lstm'"),
    ],
)
def test_what_is_wrong_is_said(part: Any, says: str) -> None:
    made, problems = checked(part)
    assert made is None
    assert len(problems) == 1
    assert problems[0].startswith(says)


def test_all_options_that_are_wrong_are_reported() -> None:
    _, problems = checked({"type": "rnn", "hidden": "3", "layers": True, "cell": None, "size": 1})
    assert {p.partition(":")[0] for p in problems} == {"here.hidden", "here.layers", "here.cell", "here.size"}


def test_a_long_name_is_shown_short() -> None:
    _, problems = checked("x" * 10_000)
    assert len(problems[0]) < 1_000


def test_the_signature_is_the_schema(own: Registry) -> None:
    def factory(context: Any, more: Any = 3, *, size: Size, copy: bool = True, schema: Sizes = (1,), free=None) -> Any:  # type: ignore[no-untyped-def,assignment]
        return context, more, size, copy, schema, free

    own.register("thing", factory)
    part, problems = checked({"type": "thing", "size": 2, "free": {"a": [None]}}, own)
    assert not problems
    assert part == {"type": "thing", "size": 2, "copy": True, "schema": [1], "free": {"a": [None]}}
    assert make(own, part, "context") == ("context", 3, 2, True, [1], {"a": [None]})
    assert checked({"type": "thing", "size": 2, "context": 1}, own)[0] is None, "what is positional is no option"


def test_options_may_have_the_names_of_pydantics_own(own: Registry) -> None:
    @own.register("thing")
    def factory(
        *, model_config: int = 1, dict: int = 2, json: int = 3, model_fields: int = 4, validate: int = 5
    ) -> Any:
        return model_config + dict + json + model_fields + validate

    part, problems = checked({"type": "thing", "model_config": 10}, own)
    assert not problems
    assert make(own, part) == 24


def test_a_null_part_stays_null(own: Registry) -> None:
    @own.register("thing")
    def factory(*, inner: EncoderPart | None = None) -> Any:
        return inner

    assert checked("thing", own) == ({"type": "thing", "inner": None}, [])
    assert checked({"type": "thing", "inner": "identity"}, own)[0]["inner"] == {"type": "identity"}
    assert checked({"type": "thing", "inner": "idntity"}, own)[0] is None


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (lambda *, a, **more: None, "hides which options"),
        (lambda *things: None, "hides which options"),
        (lambda *, type: None, "'type' can't be set"),
    ],
)
def test_a_signature_that_is_no_schema(own: Registry, factory: Any, says: str) -> None:
    own.register("thing", factory)
    with pytest.raises(PluginError, match="is no schema") as caught:
        schema_of(own, "thing")
    assert says in str(caught.value) and "thing 'thing'" in str(caught.value)


def test_every_built_in_has_a_schema() -> None:
    for registry in (encoders, heads):
        for name in registry:
            assert options_schema(registry[name]) is options_schema(registry[name]), "made once"
