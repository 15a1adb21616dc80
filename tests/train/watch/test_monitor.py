"""What a GradientMonitor records, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import GradientMonitor, MtlkitError, SpecError, Trainer, build_model

SPEC: dict[str, Any] = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8, 8], "norm": "batch", "dropout": 0.3},
    "tasks": {f"t{i}": {"outputs": 1 + i} for i in range(3)},
}
PLAIN = {**SPEC, "encoder": {"type": "mlp", "hidden": [8]}}
PNG = b"\x89PNG\r\n\x1a\n"


def data(rows: int = 32) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    return torch.randn(rows, 6), {f"t{i}": torch.randn(rows, 1 + i) for i in range(3)}


def fitted(monitor: GradientMonitor | None, spec: Any = SPEC, given: Any = None, **how: Any) -> Trainer:
    torch.manual_seed(0)
    callbacks = [] if monitor is None else [monitor]
    settings = {"epochs": 2, "batch_size": 8, "progress": False, **how}
    trainer = Trainer(build_model(spec), callbacks=callbacks, **settings)
    trainer.fit(given or data())
    return trainer


@pytest.mark.parametrize(
    "balancer",
    ["sum", "upgrad", "pcgrad", "gradnorm", "famo", {"type": "upgrad", "at": "features"}, {"type": "graddrop"}],
)
def test_training_stays_the_same_to_the_bit(balancer: Any) -> None:
    watched, alone = fitted(GradientMonitor(every=1), balancer=balancer), fitted(None, balancer=balancer)
    assert len(watched.history.gradients) == 8
    for mine, other in zip(watched.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_records_are_the_cosines_and_lengths_of_autograd() -> None:
    spec = {
        "input": [2],
        "encoder": {"type": "linear", "features": 2},
        "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}},
    }
    x, y = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([-3.0, 0.5])}
    torch.manual_seed(0)
    model = build_model(spec)
    shared = list(model.encoders.parameters())
    outputs = model(x)
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad((outputs[t][:, 0] - y[t]).square().mean(), shared, retain_graph=True)
            ]
        )
        for t in ("a", "b")
    ]
    trainer = Trainer(model, epochs=1, progress=False, callbacks=[GradientMonitor()], balancer="upgrad")
    (record,) = trainer.fit((x, y)).gradients
    cosine = torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=0)
    torch.testing.assert_close(record["cosine"], torch.tensor([[1.0, cosine], [cosine, 1.0]]))
    torch.testing.assert_close(record["norm"], torch.stack(rows).norm(dim=1))
    assert record["conflict_rate"] == float(cosine < 0)
    assert record["step"] == 1
    assert bool((record["weight"] > 0).all())
    assert all(not value.requires_grad for value in record.values() if isinstance(value, Tensor))


def test_what_is_not_known_is_nan() -> None:
    x, y = data(8)
    trainer = fitted(GradientMonitor(), given=(x, {"t0": y["t0"], "t2": y["t2"]}), epochs=1)
    (record,) = trainer.history.gradients
    assert record["norm"].isnan().tolist() == [False, True, False]
    assert record["cosine"].isnan().tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    assert record["weight"].isnan().tolist() == [False, True, False]


def test_weights_are_those_of_the_step() -> None:
    """A batch of one task leaves nothing of the batch before."""
    x, y = data(16)
    first, second = (x[:8], {task: labels[:8] for task, labels in y.items()}), (x[8:], {"t1": y["t1"][8:]})
    for balancer in ("upgrad", "mgda", "uw", "graddrop"):
        trainer = fitted(GradientMonitor(every=1), given=[first, second], epochs=1, balancer=balancer)
        one, other = (record["weight"].isnan().tolist() for record in trainer.history.gradients)
        assert one == [balancer == "graddrop"] * 3
        assert other == [True, False, True]


@pytest.mark.parametrize(("every", "accumulate", "steps"), [(3, 1, [1, 4, 7]), (1, 2, [1, 2, 3, 4]), (100, 1, [1])])
def test_every_so_many_steps(every: int, accumulate: int, steps: list[int]) -> None:
    trainer = fitted(GradientMonitor(every=every), accumulate=accumulate)
    assert [record["step"] for record in trainer.history.gradients] == steps


def test_a_failing_task_is_not_recorded() -> None:
    x, y = data()
    y["t1"][:] = float("inf")
    trainer = fitted(GradientMonitor(every=1), given=(x, y), nonfinite="skip_task", balancer="upgrad")
    for record in trainer.history.gradients:
        assert record["norm"].isnan().tolist() == [False, True, False]


def test_tasks_with_data_of_their_own() -> None:
    x, y = data()
    trainer = fitted(GradientMonitor(every=1), given={task: (x, labels) for task, labels in y.items()})
    assert not any(bool(record["cosine"].isnan().any()) for record in trainer.history.gradients)


def test_the_picture(tmp_path: Path) -> None:
    for balancer in ("sum", "upgrad"):
        path = tmp_path / "new" / f"{balancer}.png"
        fitted(GradientMonitor(every=2, path=path), balancer=balancer)
        assert path.read_bytes().startswith(PNG)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["sum.png", "upgrad.png"]


def test_a_picture_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MtlkitError, match=r"file/p\.png: can't be written"):
        fitted(GradientMonitor(path=tmp_path / "file" / "p.png"))
    with pytest.raises(MtlkitError, match=r"can't be written: it is a folder"):
        fitted(GradientMonitor(path=tmp_path))
    with pytest.raises(ValueError, match=r"path: found .*p\.pdf, expected the name of a \.png"):
        GradientMonitor(path=tmp_path / "p.pdf")


def test_without_matplotlib_the_picture_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:

    def refuse(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("mtlkit.data.extra.import_module", refuse)
    with pytest.raises(MtlkitError, match=r'pip install "mtlkit\[bench\]"'):
        GradientMonitor(path="p.png")
    GradientMonitor()


def test_where_nothing_is_shared_it_is_refused() -> None:
    with pytest.raises(SpecError, match="the tasks share no parameter"):
        fitted(GradientMonitor(), spec={**SPEC, "sharing": "none"})
    for every in (0, True, 1.5):
        with pytest.raises(ValueError, match=f"every: found {every}, expected a positive integer"):
            GradientMonitor(every=every)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_compiled_model_is_watched_too() -> None:
    compiled = fitted(GradientMonitor(every=4), compile=True, balancer="sum", spec=PLAIN)
    plain = fitted(GradientMonitor(every=4), balancer="sum", spec=PLAIN)
    for one, other in zip(compiled.history.gradients, plain.history.gradients, strict=True):
        torch.testing.assert_close(one["cosine"], other["cosine"], rtol=1e-4, atol=1e-5)
