"""Training in several processes: they agree to the bit, and give what one process with the whole batch gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import mtlkit
from mtlkit.train.several.processes import share

HERE, ROOT = Path(__file__).parent, Path(mtlkit.__file__).parents[1]
SCRIPT = HERE / "several_cases.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
Result = dict[str, Any]


def started(number: int, out: Path, prefixes: Sequence[str]) -> list[subprocess.Popen[str]]:
    """The cases with these prefixes in so many processes."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = []
    for rank in range(number):
        mine = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
        mine |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        more = {key: str(value) for key, value in mine.items()} if number > 1 else {}
        command = [sys.executable, "-W", "ignore", str(SCRIPT), str(out), *prefixes]
        pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
        run.append(subprocess.Popen(command, env=ENVIRONMENT | more, **pipes))
    return run


def compared(tmp_path: Path, prefixes: Sequence[str], number: int = 2) -> dict[str, list[Result]]:
    """By case what each of the processes has found, and last what one alone has."""
    run = [*started(number, tmp_path / "several", prefixes), *started(1, tmp_path / "one", prefixes)]
    try:
        errors = [process.communicate(timeout=300)[1] for process in run]
    finally:
        for process in run:
            process.kill()
    assert [process.returncode for process in run] == [0] * len(run), "\n".join(errors)
    files = [*(tmp_path / "several" / f"{rank}.pt" for rank in range(number)), tmp_path / "one" / "0.pt"]
    found = [torch.load(path, weights_only=False) for path in files]
    assert all(one.keys() == found[0].keys() for one in found)
    return {name: [one[name] for one in found] for name in found[0]}


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same to the bit."""
    if isinstance(left, Tensor):
        return torch.equal(left.nan_to_num(1234.5), right.nan_to_num(1234.5))
    return bool(left == right) or (left != left and right != right)


def near(left: Any, right: Any) -> bool:
    """Whether they are the same but for rounding."""
    if isinstance(left, str) or left is None:
        return bool(left == right)
    pair = [torch.as_tensor(value, dtype=torch.float64) for value in (left, right)]
    return torch.allclose(*pair, rtol=1e-5, atol=1e-5, equal_nan=True)


def check(found: dict[str, list[Result]], as_one: bool = True) -> None:
    """Processes agree in all that they found, and with one process alone."""
    for name, (first, *others, one) in found.items():
        for other in others:
            assert first.keys() == other.keys(), name
            assert [key for key in first if not same(first[key], other[key])] == [], name
        if as_one:
            assert first.keys() == one.keys(), name
            wrong = {key: (first[key], one[key]) for key in first if not near(first[key], one[key])}
            assert not wrong, f"{name}: {wrong}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """All cases, by name; one run of three processes costs less than many."""
    return compared(tmp_path_factory.mktemp("cases"), [])


def some(found: dict[str, list[Result]], *prefixes: str) -> dict[str, list[Result]]:
    return {name: results for name, results in found.items() if name.startswith(prefixes)}


@pytest.mark.slow
def test_every_balancer_does_what_it_does_in_one_process(found: dict[str, list[Result]]) -> None:
    """Full labels, uneven ones, tasks absent in one or all processes; one batch a step and two."""
    here = some(found, "balancer/")
    assert {name.split("/")[1] for name in here} == set(mtlkit.balancers)
    check(here)


@pytest.mark.slow
def test_every_sharing_scheme_does(found: dict[str, list[Result]]) -> None:
    check(some(found, "sharing/", "penalty/", "hierarchy/", "images/"))
    check(some(found, "ranks/sharing/"), as_one=False)
    assert {name.split("sharing/")[1].split("/")[0] for name in found if "sharing/" in name} == set(mtlkit.sharings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["many", "data", "evaluation", "callbacks", "parts"])
def test_so_do_groups_of_heads_and_all_kinds_of_data(kind: str, found: dict[str, list[Result]]) -> None:
    check(some(found, kind))


@pytest.mark.slow
def test_one_process_may_stop_all(found: dict[str, list[Result]]) -> None:
    stopped = found["callbacks/stop in one process"][0]
    assert stopped["epoch 1.step"] == 3
    assert "epoch 2.step" not in stopped


@pytest.mark.slow
def test_what_is_not_finite_anywhere_fails_everywhere(found: dict[str, list[Result]]) -> None:
    check(some(found, "nonfinite"))
    assert found["nonfinite/raise"][0]["error"].startswith("NonFiniteError: the loss of task 'b' is inf at step 1")
    assert found["nonfinite/skip"][0]["epoch 1.skipped.b"] > 0
    assert found["nonfinite/skip a gradient"][0]["1.epoch 1.skipped.b"] > 0


@pytest.mark.slow
def test_processes_agree_where_one_alone_is_another_thing(found: dict[str, list[Result]]) -> None:
    """Batch normalisation and dropout are of each process's slice; lower precision rounds each slice."""
    check(some(found, "ranks/"), as_one=False)


@pytest.mark.slow
def test_a_compiled_model_does_what_it_does_in_one_process(found: dict[str, list[Result]]) -> None:
    check(some(found, "compile"))


@pytest.mark.slow
def test_processes_that_differ_are_refused(found: dict[str, list[Result]]) -> None:
    check(some(found, "refused"), as_one=False)
    rows, values = (found[f"refused/{name}"][0]["error"] for name in ("other data", "another model"))
    order = found["refused/another order"][0]["error"]
    assert "the first batch that a sampler draws differs" in order and "the same seed" in order
    assert "the number of examples differs between the processes: found 20 and 21" in rows
    assert "the model: the number of values differs" in values


@pytest.mark.slow
def test_three_processes(tmp_path: Path) -> None:
    found = compared(tmp_path, ["ranks/batch norm", "ranks/dropout", "evaluation"], number=3)
    check(some(found, "ranks/"), as_one=False)
    check(some(found, "evaluation"))


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, timeout=120)


RUN = """
[data]
type = "linear"
[model]
encoder = {{ type = "linear", features = 20 }}
[train]
epochs = 2
batch_size = {size}
optimizer = {{ type = "sgd", lr = 0.01 }}
"""


@pytest.mark.slow
def test_the_command_line_in_two_processes(tmp_path: Path) -> None:
    for name, size in {"two": 8, "one": 16}.items():
        (tmp_path / f"{name}.toml").write_text(RUN.format(size=size))
    done = torchrun(tmp_path, "-m", "mtlkit", "train", "two.toml")
    assert done.returncode == 0, done.stderr
    told = ("examples: ", "epochs, ", "kept in runs/two")
    assert [done.stdout.count(text) for text in told] == [1, 1, 1]
    mtlkit_alone = [sys.executable, "-m", "mtlkit", "train", "one.toml"]
    subprocess.run(mtlkit_alone, env=ENVIRONMENT, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    two, one = (mtlkit.load(tmp_path / "runs" / name).state_dict() for name in ("two", "one"))
    assert all(torch.allclose(two[key], one[key], rtol=1e-5, atol=1e-5) for key in one)
    lines = (tmp_path / "runs" / "two" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    done = torchrun(tmp_path, "-m", "mtlkit", "evaluate", "runs/two", "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    done = torchrun(tmp_path, "-m", "mtlkit", "predict", "runs/two")
    assert done.returncode != 0 and "`mtlkit predict` runs in one process; found 2" in done.stderr


FAILS = """
import mtlkit, os, torch
x = torch.randn(32, 10)
batches = [(x, {"task1": torch.randn(32, 5)}), (x, {"task1": torch.randn(32, 5)})]
if os.environ["RANK"] == "1":
    batches[1] = (x, {"task1": torch.randn(32, 4)})
mtlkit.Trainer(mtlkit.build_model(), progress=False).fit(batches)
"""


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    started_at = time.monotonic()
    done = torchrun(tmp_path, "fails.py")
    assert done.returncode != 0
    assert "DataError: task 'task1': expected targets [B, 5], found [32, 4]" in done.stderr
    assert time.monotonic() - started_at < 60


@pytest.mark.parametrize("least", [1, 2])
def test_slices_hold_every_row_once_and_are_even(least: int) -> None:
    for rows in range(30):
        for number in range(1, 6):
            cut = [share(rows, rank, number, least) for rank in range(number)]
            assert [row for one in cut for row in range(rows)[one]] == [*range(rows)]
            sizes = [one.stop - one.start for one in cut if one.stop > one.start]
            assert max(sizes, default=0) - min(sizes, default=0) <= 1
            assert min(sizes, default=least) >= min(least, rows)


def test_processes_that_accelerate_does_not_see_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlkit.train.fittings._launched", lambda: 2)
    with pytest.raises(mtlkit.MtlkitError, match="found WORLD_SIZE=2 and 1 processes in Accelerate's state"):
        mtlkit.Trainer(mtlkit.build_model())


def test_plugins_that_cut_a_model_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(mtlkit.MtlkitError, match="found the distributed type FSDP, .*Start them with torchrun"):
        mtlkit.Trainer(mtlkit.build_model())


def test_fp16_is_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import DistributedType

    two = SimpleNamespace(num_processes=2, distributed_type=DistributedType.MULTI_GPU)
    monkeypatch.setattr("mtlkit.train.fittings.Accelerator", lambda **how: two)
    monkeypatch.setattr("mtlkit.train.fittings._launched", lambda: 2)
    with pytest.raises(mtlkit.SpecError, match="precision: 'fp16' scales gradients.* Use 'bf16' or 'fp32'"):
        mtlkit.Trainer(mtlkit.build_model(), precision="fp16")
