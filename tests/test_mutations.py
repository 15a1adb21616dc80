"""Whatever a spec holds, the answer is a model or a SpecError whose problems say where, and it comes quickly.

Valid specs are mutated at random: keys and values are deleted, doubled, renamed, swapped, made extreme, turned to junk.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mtlkit import DEFAULT_SPEC, Model, SpecError, build_model
from mtlkit.spec import Structure

MUTATIONS = 10_000
# Of processor time, so that a busy machine is no failure.
SECONDS = 2.0
# What this machine can't hold is refused; a mutated width must not take the tests' memory.
PARAMETERS = 2_000_000
# Beyond what the process held before: the weights of the largest, and what planning takes.
MIB = 200

TASKS = {
    "digit": {"outputs": 10, "loss": "cross_entropy", "metrics": ["accuracy", {"type": "f1", "average": "macro"}]},
    "slant": {"outputs": 1, "loss": {"type": "huber", "delta": 0.5}, "weight": 0.5, "head": {"type": "mlp"}},
}
SPECS: dict[str, dict[str, Any]] = {
    "default": dict(DEFAULT_SPEC),
    "mlp": {
        "version": 1,
        "input": {"shape": [6], "dtype": "float32"},
        "encoder": {"type": "mlp", "hidden": [8, 8], "activation": "gelu", "dropout": 0.5, "norm": "batch"},
        "sharing": {"type": "hard"},
        "tasks": TASKS,
    },
    "cnn": {
        "input": [1, 12, 12],
        "encoder": {"type": "cnn", "channels": [4, 8], "kernel": [3, 5], "padding": "valid", "pool": "none"},
        "tasks": {**TASKS, "mask": {"outputs": 2, "loss": "bce", "head": {"type": "dense", "upsample": 2}}},
    },
    "rnn": {
        "input": [12, 6],
        "encoder": {"type": "rnn", "cell": "lstm", "hidden": 8, "layers": 2, "bidirectional": True, "dropout": 0.1},
        "sharing": "none",
        "tasks": {**TASKS, "tag": {"outputs": 3, "loss": "cross_entropy", "head": "token", "on": "encoder"}},
    },
    "hierarchical": {
        "inputs": {"words": {"shape": [None], "dtype": "int64"}, "suffixes": {"shape": [None], "dtype": "int64"}},
        "encoders": {
            "word": {"type": "embedding", "vocab": 20, "dim": 4, "from": "words"},
            "suffix": {"type": "embedding", "vocab": 8, "dim": 4, "from": ["suffixes"]},
            "low": {"type": "rnn", "hidden": 8, "layers": 2, "from": ["word", "suffix"]},
            "high": {"type": "transformer", "dim": 8, "heads": 2, "layers": 1, "from": ["low", "task:pos"]},
        },
        "tasks": {
            "pos": {"on": "low", "outputs": 4, "head": "token", "loss": "cross_entropy"},
            "chunk": {"on": "high", "outputs": 3, "head": "token", "loss": "cross_entropy"},
            "early": {"on": "low:0", "outputs": 2, "loss": "multilabel"},
        },
    },
    "inputs": {
        "inputs": {"left": [3], "right": [4]},
        "encoders": {
            "both": {"type": "mlp", "hidden": [8], "from": ["left", "right"]},
            "own": {"type": "linear", "features": 4, "from": "both", "sharing": "none"},
        },
        "tasks": {"a": {"on": "own", "outputs": 2}, "b": {"on": "both", "outputs": 1, "loss": "poisson"}},
    },
    "sequential": {
        "input": [1, 12, 12],
        "encoder": {
            "type": "sequential",
            "layers": [{"type": "cnn", "channels": [4], "residual": True}, {"type": "mlp", "hidden": [8]}, "linear"],
        },
        "tasks": TASKS,
    },
    "embedding": {
        "input": {"shape": [None], "dtype": "int64"},
        "encoder": {
            "type": "sequential",
            "layers": [{"type": "embedding", "vocab": 9, "dim": 4, "padding": None}, {"type": "cnn", "channels": [4]}],
        },
        "tasks": {"a": {"outputs": 2, "head": {"type": "linear", "pool": "max"}}},
    },
}

JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3.0, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**53, 2**63, 10**400),
    *(
        "",
        " ",
        ".",
        "a.b",
        "a/b",
        "\x00",
        "\ud800",
        "é",
        "task:",
        "task:pos",
        "low:1",
        "low:99",
        "low:-1",
        "x" * 99_999,
    ),
    *("mlp", "linear", "cross_entropy", "none", "identity", "forward", "3", "null", "__class__", "low", "encoder"),
    *([], {}, [[]], [None], [0], [1, 2, 3], [[1], [2]], {"type": "mlp"}, {"type": None}, {"type": []}, {"": 0}),
    *({"type": "sequential", "layers": ["mlp", "rnn"]}, {"shape": [None, None]}, {"shape": [2**24] * 4}, {5: 1}),
    *(b"bytes", {1, 2}, object(), 1j, (1, 2), range(3), ["x"] * 5_000, {str(i): i for i in range(2_000)}),
]

# Of parts, options and nodes.
NAMES = [
    "mlp",
    "rnn",
    "cnn",
    "linear",
    "transformer",
    "identity",
    "token",
    "mse",
    "cross_entropy",
    "mae",
    "none",
    "hard",
]
NAMES += ["low", "high", "word", "words", "encoder", "low:0", "low:1", "task:pos", "lstm", "gru", "same", "max", "last"]


def test_the_specs_that_are_mutated_are_valid() -> None:
    for spec in SPECS.values():
        assert isinstance(build_model(spec, max_parameters=PARAMETERS), Model)


class Worst:
    """The most that one spec took."""

    seconds = mib = 0.0


@pytest.fixture(scope="module", autouse=True)
def _told(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if Worst.seconds:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            sys.stderr.write(
                f"\n{MUTATIONS:,} mutated specs: most {Worst.seconds:.2f} s and {Worst.mib:.0f} MiB for one\n"
            )


def _peak(reset: bool = False) -> float:
    """The most memory that this process held since the last reset, in MiB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@settings(max_examples=MUTATIONS, phases=[Phase.explicit, Phase.generate])  # to shrink one takes minutes
@given(st.sampled_from(sorted(SPECS)), st.randoms(use_true_random=False), st.integers(1, 3))
def test_a_mutated_spec_is_a_model_or_a_spec_error(name: str, chance: random.Random, mutations: int) -> None:
    spec = copy.deepcopy(SPECS[name])
    for _ in range(mutations):
        _mutate(spec, chance)
    before, started = _peak(reset=True), time.process_time()
    try:
        model = build_model(spec, max_parameters=PARAMETERS)
    except SpecError as error:
        keys = [*Structure.model_fields, *(str(key)[:80] or "''" for key in spec), "(top)"]
        assert error.problems
        for problem in error.problems:
            assert problem.message.strip()
            assert any(f"{problem.path}.".startswith(f"{key}.") for key in keys), problem
            assert len(str(problem)) < 3_000
    else:
        assert isinstance(model, Model)
    seconds, mib = time.process_time() - started, _peak() - before
    Worst.seconds, Worst.mib = max(Worst.seconds, seconds), max(Worst.mib, mib)
    assert seconds < SECONDS, f"too slow: {str(spec)[:5_000]}"
    assert mib < MIB, f"too large: {str(spec)[:5_000]}"


def _mutate(spec: dict[str, Any], chance: random.Random) -> None:
    """Change one place of a spec, which may be any of its tables and lists."""
    places = list(_places(spec))
    if not places:
        return
    holder, key = chance.choice(places)
    other, other_key = chance.choice(places)
    changes: list[Callable[[], Any]] = [
        lambda: holder.pop(key),
        lambda: _set(holder, key, chance.choice(JUNK)),
        lambda: _set(holder, key, chance.choice(JUNK)),
        lambda: _set(holder, key, [holder[key]] * chance.choice([1, 2, 40])),
        lambda: _set(holder, key, {"type": holder[key]}),
        lambda: _set(holder, key, _nested(holder[key], chance.choice([3, 31, 100]))),
        lambda: _set(holder, key, _of_another_type(holder[key])),
        lambda: _swap(holder, key, other, other_key),
        lambda: _set(holder, key, copy.deepcopy(other[other_key])),
        lambda: _rename(holder, key, chance.choice([*JUNK[17:43], other_key, f"{key}x", str(key)[:-1]])),
        lambda: _duplicate(holder, key, f"{key} 2"),
        *[lambda: _set(holder, key, _alike(holder[key], chance))] * 4,
    ]
    chance.choice(changes)()


def _places(value: Any, depth: int = 0) -> Any:
    """Each (container, key) below a value."""
    if depth > 40 or not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 5)):
        yield value, key
        yield from _places(value[key], depth + 1)


def _set(holder: Any, key: Any, value: Any) -> None:
    # A copy: places that share an object would be changed together.
    holder[key] = copy.deepcopy(value)


def _swap(one: Any, key: Any, other: Any, other_key: Any) -> None:
    mine, theirs = copy.deepcopy(one[key]), copy.deepcopy(other[other_key])
    other[other_key] = mine
    # The first write may have cut the place of the second off the spec, which does no harm.
    one[key] = theirs


def _rename(holder: Any, key: Any, name: Any) -> None:
    if isinstance(holder, dict) and isinstance(name, str | int):
        holder[name] = holder.pop(key)


def _duplicate(holder: Any, key: Any, name: str) -> None:
    if isinstance(holder, dict):
        holder[name] = copy.deepcopy(holder[key])
    else:
        holder.append(copy.deepcopy(holder[key]))


def _nested(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"type": "sequential", "layers": value}
    return value


def _alike(value: Any, chance: random.Random) -> Any:
    """Another value of the same type, which may well be right."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([1, 2, 3, 4, 7, 8, 16, value + 1])
    if isinstance(value, float):
        return chance.choice([0.0, 0.25, 1.0, 2.0])
    if isinstance(value, str):
        return chance.choice(NAMES)
    if isinstance(value, dict):
        return dict(reversed(value.items()))
    return list(reversed(value)) if isinstance(value, list) else value


def _of_another_type(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return list(value.items())
    return dict(enumerate(value)) if isinstance(value, list) else 0
