"""Fits that several processes make together, and one by itself; `test_processes` runs this file and compares.

    python several_cases.py OUT PREFIX...     # in each process, with RANK and WORLD_SIZE set; writes OUT/<rank>.pt

Each case gives what it has found as a flat dict of tensors, numbers and text, which has to be the same to the bit in
all processes, and but for rounding that of one process with the whole batch.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

import mtlkit
from mtlkit.part import options_schema

NUMBER, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
ALL = 2
"""Processes of the run that has several; one alone takes batches that are so many times as large."""
SIZE = 4 * ALL // NUMBER

TASKS = {
    "a": {"outputs": 3, "loss": "cross_entropy"},
    "b": {"outputs": 1},
    "c": {"outputs": 2, "loss": "mae", "weight": 0.5},
}
SPEC: dict[str, Any] = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8], "activation": "tanh"},
    "tasks": TASKS,
}
FIVE = {**SPEC, "tasks": {**TASKS, "d": {"outputs": 2}, "e": {"outputs": 2, "loss": "huber"}}}
MANY = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8], "activation": "tanh"},
    "tasks": {f"t{i}": {"outputs": 1 + i // 5, "loss": "mse" if i % 2 else "huber"} for i in range(9)},
}
Result = dict[str, Any]
CASES: dict[str, Callable[[], Result]] = {}


def case(name: str) -> Callable[[Callable[[], Result]], Callable[[], Result]]:
    def add(made: Callable[[], Result]) -> Callable[[], Result]:
        CASES[name] = made
        return made

    return add


def examples(
    spec: Mapping[str, Any], rows: int, missing: str = "full", seed: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Data, of which each four rows that follow one another are one process's in a list of batches."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, *spec["input"], generator=draws)
    y: dict[str, Tensor] = {}
    for task, one in spec["tasks"].items():
        if one.get("loss") == "cross_entropy":
            y[task] = torch.randint(one["outputs"], (rows,), generator=draws)
        else:
            y[task] = torch.randn(rows, one["outputs"], generator=draws)
    first, *_, last = y
    if missing == "uneven":
        _miss(y[first], torch.arange(rows) % 3 == 0)
        _miss(y[last], torch.arange(rows) % 7 < 4)
    if missing == "one":  # absent in one process, then in the other
        _miss(y[first], torch.arange(rows) % 16 < 4)
        _miss(y[last], torch.arange(rows) % 16 > 11)
    if missing == "both":  # absent in all, and then not in all
        _miss(y[first], torch.arange(rows) % 16 < 12)
        _miss(y[last], torch.arange(rows) % 16 < 2)
    return x, y


def _miss(y: Tensor, rows: Tensor) -> None:
    y[rows] = torch.nan if y.is_floating_point() else -100


def listed(data: tuple[Tensor, dict[str, Tensor]], drop: bool = False) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The data as batches in their order; tasks of which nothing is there are left out where `drop`."""
    x, y = data
    found = []
    for start in range(0, len(x), SIZE):
        rows = slice(start, start + SIZE)
        targets = {task: labels[rows] for task, labels in y.items()}
        if drop:
            targets = {
                t: v for t, v in targets.items() if not bool((v.isnan() if v.is_floating_point() else v < 0).all())
            }
        found.append((x[rows], targets))
    return found


def fitted(
    spec: Mapping[str, Any],
    data: Any,
    valid: Any = None,
    prepare: Callable[[nn.Module], Any] = lambda model: None,
    **how: Any,
) -> Result:
    torch.manual_seed(RANK)  # other weights in each process, until the fit begins
    model = mtlkit.build_model(spec)
    if RANK == 0:
        torch.manual_seed(5)
        model = mtlkit.build_model(spec)
    prepare(model)
    how = {"epochs": 2, "batch_size": SIZE, "optimizer": {"type": "sgd", "lr": 0.05}, "progress": False, **how}
    trainer = mtlkit.Trainer(model, **how)
    return found_of(trainer, trainer.fit(data, valid))


def found_of(trainer: Any, history: Any) -> Result:
    found: Result = {f"model.{name}": value.clone() for name, value in trainer.model.state_dict().items()}
    found |= {f"balancer.{name}": value.clone() for name, value in trainer.balancer.state_dict().items()}
    for record in history.epochs:
        found |= {f"epoch {record['epoch']}.{key}": value for key, value in flat(record) if key != "seconds"}
    return found


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def parts(name: str) -> list[Any]:
    """A balancer at each place where it can work."""
    fields = options_schema(mtlkit.balancers[name]).model_fields.values()
    if not any(field.alias == "at" for field in fields):
        return [name]
    return [{"type": name, "at": at} for at in ("parameters", "features")]


MISSING = ("full", "uneven", "one", "both")


def _balancers() -> None:
    for name in mtlkit.balancers:
        for part in parts(name):
            at = part["at"] if isinstance(part, dict) else "-"
            for missing in MISSING:
                for accumulate in (1, 2):
                    # Rows that are no whole number of batches: the last is of one process alone.
                    def made(part: Any = part, missing: str = missing, accumulate: int = accumulate) -> Result:
                        # Of three tasks the two that are nearest to one another are equally near.
                        spec = FIVE if "krum" in (part, *(part.values() if isinstance(part, dict) else ())) else SPEC
                        data = listed(examples(spec, 20, missing), drop=missing == "both")
                        epochs = 3 if part == "dwa" else 1
                        return fitted(spec, data, balancer=part, accumulate=accumulate, epochs=epochs)

                    CASES[f"balancer/{name}/{at}/{missing}/{accumulate}"] = made


def _sharings() -> None:
    for name in mtlkit.sharings:
        for missing in ("full", "one"):

            def made(name: str = name, missing: str = missing) -> Result:
                spec = {**SPEC, "sharing": name}
                return fitted(spec, listed(examples(spec, 36, missing)))

            # Those that normalise over the batch do it in each process by itself.
            normalised = any("norm" in key for key in mtlkit.build_model({**SPEC, "sharing": name}).state_dict())
            CASES[f"{'ranks/' * normalised}sharing/{name}/{missing}"] = made


def _many() -> None:
    for missing in MISSING:
        for balancer in ("sum", "uw", "dwa", "famo", "upgrad", "mgda"):
            for accumulate in (1, 2):

                def made(missing: str = missing, balancer: str = balancer, accumulate: int = accumulate) -> Result:
                    data = examples(MANY, 36, missing)
                    more: dict[str, Any] = {"balancer": balancer, "accumulate": accumulate}
                    return fitted(MANY, data if accumulate == 1 else listed(data, drop=True), **more)

                CASES[f"many/{balancer}/{missing}/{accumulate}"] = made


_balancers()
_sharings()
_many()


class Rows(Dataset[Any]):
    def __init__(self, data: tuple[Tensor, dict[str, Tensor]]) -> None:
        self.x, self.y = data

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Any:
        return self.x[row], {task: y[row] for task, y in self.y.items()}


class Stream(IterableDataset[Any]):
    def __init__(self, data: tuple[Tensor, dict[str, Tensor]]) -> None:
        self.rows = Rows(data)

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[i] for i in range(len(self.rows)))


ADAM = {"type": "adamw", "lr": 0.01}


@case("data/tensors")
def _() -> Result:
    data, valid = examples(SPEC, 37, "uneven"), examples(SPEC, 11, "uneven", 2)
    how: dict[str, Any] = {"optimizer": ADAM, "scheduler": "one_cycle", "clip_norm": 0.5, "balancer": "random"}
    return fitted(SPEC, data, valid, **how)


@case("data/fewer rows than processes")
def _() -> Result:
    return fitted(SPEC, examples(SPEC, 1), examples(SPEC, 1), balancer="pcgrad")


@case("data/dataset")
def _() -> Result:
    return fitted(SPEC, Rows(examples(SPEC, 33, "uneven")), Rows(examples(SPEC, 5)), balancer="random")


@case("data/loader")
def _() -> Result:
    loader = DataLoader(Rows(examples(SPEC, 35, "uneven")), SIZE, shuffle=True)
    return fitted(SPEC, loader, DataLoader(Rows(examples(SPEC, 9)), SIZE), balancer="random")


@case("data/loader with workers")
def _() -> Result:
    loader = DataLoader(Rows(examples(SPEC, 35)), SIZE, shuffle=True, num_workers=1, persistent_workers=True)
    return fitted(SPEC, loader, epochs=1)


@case("data/iterable")
def _() -> Result:
    return fitted(SPEC, Stream(examples(SPEC, 35, "uneven")))


@case("data/distributed sampler")
def _() -> Result:
    rows = Rows(examples(SPEC, 32))
    sampler = DistributedSampler(rows, NUMBER, RANK, shuffle=False)
    return fitted(SPEC, DataLoader(rows, SIZE, sampler=sampler))


@case("data/parts of other lengths")
def _() -> Result:
    rows = Rows(examples(SPEC, 20))
    sampler: Any = DistributedSampler(rows, NUMBER, RANK, shuffle=False)
    loader = DataLoader(rows, SIZE, sampler=sampler)
    if NUMBER > 1:
        # The first process has three batches, the other two.
        chosen = ([*range(4), *range(8, 12), *range(16, 20)], [*range(4, 8), *range(12, 16)])[RANK]
        sampler.num_samples = len(chosen)
        sampler.__class__ = type("Sampler", (DistributedSampler,), {"__iter__": lambda self: iter(chosen)})
    return fitted(SPEC, loader, epochs=1)


@case("data/own")
def _() -> Result:
    x, y = examples(SPEC, 30, "uneven")
    own = {"a": (x[:17], y["a"][:17]), "b": (x[17:], y["b"][17:]), "c": (x, y["c"])}
    return fitted(SPEC, own, own, balancer="upgrad")


@case("data/own, drawn")
def _() -> Result:
    x, y = examples(SPEC, 30, "uneven")
    own = {"a": Rows2(x[:17], y["a"][:17]), "b": DataLoader(Rows2(x, y["b"]), SIZE), "c": (x, y["c"])}
    return fitted(SPEC, own, own, sampler="proportional", accumulate=2)


class Rows2(Dataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Any:
        return self.x[row], self.y[row]


@case("penalty/soft")
def _() -> Result:
    sharing = {"type": "soft", "weight": 0.1}
    return fitted({**SPEC, "sharing": sharing}, examples(SPEC, 36, "one"), accumulate=2)


@case("penalty/trace norm")
def _() -> Result:
    sharing = {"type": "soft", "penalty": "trace_norm", "weight": 0.1}
    return fitted({**SPEC, "sharing": sharing}, examples(SPEC, 36, "one"))


@case("hierarchy/features")
def _() -> Result:
    spec = {
        "input": [6],
        "encoders": {
            "low": {"type": "mlp", "hidden": [8], "activation": "tanh"},
            "high": {"type": "mlp", "hidden": [8], "activation": "tanh", "from": ["low", "task:a"]},
        },
        "tasks": {
            "a": {**TASKS["a"], "on": "low"},
            "b": {**TASKS["b"], "on": "high"},
            "c": {**TASKS["c"], "on": "high"},
        },
    }
    return fitted(spec, listed(examples(spec, 36, "one")), balancer={"type": "upgrad", "at": "features"})


IMAGES = {"input": [3, 8, 8], "encoder": {"type": "cnn", "channels": [4, 6], "norm": "none"}, "tasks": TASKS}


@case("images/features")
def _() -> Result:
    return fitted(IMAGES, listed(examples(IMAGES, 20, "one")), balancer={"type": "graddrop", "at": "features"})


@case("nonfinite/skip")
def _() -> Result:
    x, y = examples(SPEC, 36, "uneven")
    y["b"][5] = torch.inf
    return fitted(SPEC, listed((x, y)), nonfinite="skip_task", balancer="random")


@case("nonfinite/skip a gradient")
def _() -> Result:
    mtlkit.losses.register("breaks")(Breaks)
    spec = {**SPEC, "tasks": {**TASKS, "b": {"outputs": 1, "loss": "breaks"}}}
    x, y = examples(SPEC, 36)
    y["b"][13] = 100.0
    found = [fitted(spec, listed((x, y)), nonfinite="skip_task", balancer=b) for b in ("sum", "upgrad")]
    return {f"{i}.{key}": value for i, one in enumerate(found) for key, value in one.items()}


class _NaN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(target)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (target,) = ctx.saved_tensors
        return gradient.masked_fill(target > 50, torch.nan), None


class Breaks(nn.Module):
    """A mean squared error whose gradient is NaN where a target is large."""

    labels = "element"

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (_NaN.apply(output, target) - target.clamp(max=1)).square().mean()


@case("nonfinite/raise")
def _() -> Result:
    return raised({"balancer": "sum"}) | {f"upgrad {k}": v for k, v in raised({"balancer": "upgrad"}).items()}


@case("nonfinite/raise, as one")
def _() -> Result:
    x, y = examples(MANY, 24)
    y["t3"][6] = torch.inf
    return error_of(lambda: fitted(MANY, listed((x, y))))


def raised(how: Mapping[str, Any]) -> Result:
    x, y = examples(SPEC, 24)
    y["b"][6] = torch.inf  # in the second process
    return error_of(lambda: fitted(SPEC, listed((x, y)), **how))


def error_of(run: Callable[[], Any]) -> Result:
    try:
        run()
    except mtlkit.MtlkitError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    raise AssertionError("no error")


class StopsInOne(mtlkit.Callback):
    def on_step_end(self, trainer: Any, losses: Mapping[str, Tensor]) -> None:
        if trainer.step == 3 and RANK == NUMBER - 1:
            trainer.stop("enough")


@case("callbacks/stop in one process")
def _() -> Result:
    return fitted(SPEC, examples(SPEC, 36), callbacks=[StopsInOne()])


@case("callbacks/monitor")
def _() -> Result:
    monitor = mtlkit.GradientMonitor(every=1)
    torch.manual_seed(5)
    model = mtlkit.build_model(SPEC)
    how: dict[str, Any] = {"batch_size": SIZE, "epochs": 1, "callbacks": [monitor], "progress": False}
    trainer = mtlkit.Trainer(model, balancer="uw", optimizer={"type": "sgd", "lr": 0.05}, **how)
    history = trainer.fit(listed(examples(SPEC, 36, "one")))
    found = found_of(trainer, history)
    for record in history.gradients:
        found |= {f"gradients {record['step']}.{key}": record[key] for key in ("cosine", "norm", "weight")}
    return found


@case("callbacks/sharing monitor")
def _() -> Result:
    torch.manual_seed(5)
    model = mtlkit.build_model({**SPEC, "sharing": "mmoe"})
    how: dict[str, Any] = {"batch_size": SIZE, "epochs": 1, "callbacks": [mtlkit.SharingMonitor(every=1)]}
    trainer = mtlkit.Trainer(model, optimizer={"type": "sgd", "lr": 0.05}, progress=False, **how)
    history = trainer.fit(listed(examples(SPEC, 32)))
    found = found_of(trainer, history)
    for record in history.sharing:
        found |= {f"weights {record['step']}.{name}": values for name, values in record["weights"].items()}
    return found


@case("callbacks/patience")
def _() -> Result:
    return fitted(SPEC, examples(SPEC, 36), examples(SPEC, 13, "uneven", 3), patience=1, epochs=8)


@case("parts/stopped tasks")
def _() -> Result:
    how = {"patience": {"a": 1, "c": 2}, "epochs": 8, "optimizer": {"type": "sgd", "lr": {"encoder": 0.1, "head": 0.6}}}
    return fitted(SPEC, examples(SPEC, 36), examples(SPEC, 13, "uneven", 3), **how)


@case("parts/heads that run as one")
def _() -> Result:
    how = {"patience": {"t0": 1, "t4": 2}, "epochs": 8, "optimizer": {"type": "sgd", "lr": {"head": 0.6, "t2": 0.3}}}
    return fitted(MANY, examples(MANY, 36), examples(MANY, 13, seed=3), **how)


@case("parts/frozen for now")
def _() -> Result:
    return fitted(SPEC, examples(SPEC, 36, "one"), freeze={"encoder": 1, "b": 2}, balancer="upgrad", epochs=3)


METRICS = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8]},
    "tasks": {
        "a": {"outputs": 3, "loss": "cross_entropy", "metrics": ["accuracy", "auroc", "f1"]},
        "b": {"outputs": 2, "metrics": ["mae", "r2", "rmse"]},
        "c": {"outputs": 4, "loss": "multilabel", "metrics": ["f1", "auroc", "average_precision"]},
        "d": {"outputs": 1, "metrics": ["mae"]},
    },
}


@case("evaluation")
def _() -> Result:
    torch.manual_seed(0)
    model = mtlkit.build_model(METRICS)
    trainer = mtlkit.Trainer(model, batch_size=3, progress=False)
    draws = torch.Generator().manual_seed(3)
    x, rows = torch.randn(25, 6, generator=draws), torch.arange(25)
    y = {
        "a": torch.randint(3, (25,), generator=draws),
        "b": torch.randn(25, 2, generator=draws),
        "c": torch.randint(2, (25, 4), generator=draws).float(),
        "d": torch.full((25, 1), torch.nan),
    }
    found: Result = {}
    for name, none in {"all": rows < 0, "first": rows < 13, "second": rows > 11, "few": rows != 20}.items():
        labels = {task: values.clone() for task, values in y.items()}
        for values in labels.values():
            _miss(values, none)
        for kind, data in {
            "tensors": (x, labels),
            "dataset": Rows((x, labels)),
            "loader": DataLoader(Rows((x, labels)), 4),
            "one": (x[:1], {task: values[:1] for task, values in labels.items()}),
        }.items():
            found |= {f"{name}.{kind}.{key}": value for key, value in flat(trainer.evaluate(data))}
    found |= {f"predicted.{task}": values for task, values in trainer.predict(x).items()}
    for kind, data in {"tensors": (x, y), "loader": DataLoader(Rows((x, y)), 4)}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "d" has no label
            found |= {f"constant.{kind}.{key}": value for key, value in flat(trainer.evaluate_constant(data, data))}
    return found


NORM = {**SPEC, "encoder": {"type": "mlp", "hidden": [8], "norm": "batch"}}


@case("ranks/batch norm")
def _() -> Result:
    # 33 rows: the one that is left joins the last batch.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted(NORM, examples(NORM, 33, "uneven"), examples(NORM, 7))
        found |= {f"few.{key}": value for key, value in fitted(NORM, examples(NORM, 19)).items()}
    told = sum("batch normalisation takes" in str(one.message) for one in caught)
    assert told == (2 if NUMBER > 1 and RANK == 0 else 0), told
    return found


@case("ranks/dropout")
def _() -> Result:
    spec = {**SPEC, "encoder": {"type": "mlp", "hidden": [8], "dropout": 0.5}}
    return fitted(spec, examples(SPEC, 33, "uneven"), balancer="pcgrad")


@case("ranks/bf16")
def _() -> Result:
    return fitted(SPEC, examples(SPEC, 33, "uneven"), precision="bf16")


@case("compile")
def _() -> Result:
    return fitted(SPEC, examples(SPEC, 33, "one"), compile=True, epochs=1)


@case("refused/other data")
def _() -> Result:
    return error_of(lambda: fitted(SPEC, examples(SPEC, 20 + RANK))) if NUMBER > 1 else {}


@case("refused/another order")
def _() -> Result:
    order = torch.Generator().manual_seed(RANK)
    loader = DataLoader(Rows(examples(SPEC, 32)), SIZE, shuffle=True, generator=order)
    return error_of(lambda: fitted(SPEC, loader)) if NUMBER > 1 else {}


@case("refused/another model")
def _() -> Result:
    spec = {**SPEC, "encoder": {"type": "mlp", "hidden": [8 + RANK]}}
    return error_of(lambda: fitted(spec, examples(SPEC, 20))) if NUMBER > 1 else {}


def main() -> None:
    out, prefixes = Path(sys.argv[1]), sys.argv[2:] or [""]
    torch.set_num_threads(1)
    found: dict[str, Result] = {}
    for name, made in CASES.items():
        if any(name.startswith(prefix) for prefix in prefixes):
            try:
                found[name] = made()
            except Exception as error:
                raise RuntimeError(f"in the case {name}") from error
    torch.save(found, out / f"{RANK}.pt")
    if NUMBER > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
