from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from mtlkit.data.kind import Kind, task

KINDS = TypeAdapter(Kind)


@pytest.mark.parametrize("kind", ["class", "binary", "number", "count"])
def test_kinds(kind):
    assert task(KINDS.validate_python(kind), 1)["outputs"] == 1


@pytest.mark.parametrize(
    ("elsewhere", "kind"), [("regression", "number"), ("float", "number"), ("categorical", "class"), ("bool", "binary")]
)
def test_the_names_of_other_tools_are_told_with_ours(elsewhere, kind):
    with pytest.raises(ValidationError, match=rf"'number' or 'count' \(did you mean '{kind}'\?\)"):
        KINDS.validate_python(elsewhere)


@pytest.mark.parametrize("other", ["clas", 3, None, ["class"]])
def test_what_is_no_kind(other):
    with pytest.raises(ValidationError, match="should be 'class', 'binary', 'number' or 'count'"):
        KINDS.validate_python(other)
