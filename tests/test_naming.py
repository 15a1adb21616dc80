from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mtlkit.naming import ByName, module_name, name_of
from mtlkit.trunk import Columns, Trunk

# All that a kind of `ModuleDict` here has: a new method of one of them must be among the names that are evaded.
TAKEN = sorted({*dir(nn.ModuleDict()), *dir(ByName({})), *dir(Columns(Trunk(nn.Identity, (1,), (1,)), []))})
NAMES = st.sampled_from(TAKEN).flatmap(
    lambda name: st.sampled_from([name, f"{name}-", f"{name}--", f"{name}_", name.rstrip("_"), f"a {name}"])
)


@given(st.lists(NAMES | st.text("ab-_ é1", min_size=1), unique=True, max_size=10))
def test_any_names_are_keys_of_their_own(names: list[str]) -> None:
    modules = nn.ModuleDict({module_name(name): nn.Linear(1, 1) for name in names})
    assert len(modules) == len(names)
    assert all(key.startswith(name) for key, name in zip(modules, names, strict=True))
    assert [name_of(key) for key in modules] == names
    assert len(modules.state_dict()) == 2 * len(names)


def test_every_name_that_torch_has_works() -> None:
    modules = nn.ModuleDict({module_name(name): nn.Linear(1, 1) for name in TAKEN})
    assert len(modules) == len(TAKEN)
    modules.train().to(torch.float64)
    assert module_name("digit") == "digit"


@given(st.lists(NAMES | st.text("ab-_ é1", min_size=1), unique=True, max_size=10))
def test_modules_by_name_are_found_by_it(names: list[str]) -> None:
    made = {name: nn.Identity() for name in names}
    found = ByName(made)
    assert all(found.of(name) is module for name, module in made.items())
    assert list(found.values()) == list(made.values())
