"""What a look ahead measures is the paper's formula, and it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import Trainer, build_model
from mtlkit.suggest.lookahead import Lookahead, Watched
from mtlkit.suggest.measure import in_own_steps
from mtlkit.train.batches.examples import batches

TRUNK = {"type": "mlp", "hidden": [8, 8], "norm": "batch", "dropout": 0.3}


def data(tasks: int = 3, missing: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    x, y = torch.randn(32, 6), {f"t{i}": torch.randn(32, 1 + i % 2) for i in range(tasks)}
    if missing:
        y["t1"][torch.rand(32) < 0.5] = torch.nan
    return x, y


def fitted(encoder: Any, given: Any, every: int = 0, weight: float = 1.0, **how: Any) -> tuple[Trainer, Lookahead]:
    """A trainer that was fit, looking ahead at every so many steps, or never."""
    torch.manual_seed(0)
    tasks = {t: {"outputs": y.shape[1], "weight": weight} for t, y in given[1].items()}
    spec = {"input": [6], "encoder": encoder, "tasks": tasks}
    model = build_model(spec)
    watched = Watched(batches(model, given, 8, torch.Generator().manual_seed(0)))
    lookahead = Lookahead(watched, every or 1)
    trainer = Trainer(model, callbacks=[lookahead] if every else [], **{"epochs": 2, "progress": False, **how})
    trainer.fit(watched)
    return trainer, lookahead


@pytest.mark.parametrize("how", [{}, {"accumulate": 2}, {"optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9}}])
@pytest.mark.parametrize("encoder", [TRUNK, {"type": "rnn", "hidden": 8}, {"type": "transformer", "dim": 8}])
@pytest.mark.parametrize("tasks", [3, 9])
def test_training_stays_the_same_to_the_bit(encoder: Any, how: Any, tasks: int) -> None:
    watched, lookahead = fitted(encoder, data(tasks), every=1, **how)
    alone, _ = fitted(encoder, data(tasks), **how)
    assert len(lookahead.records) == watched.step
    for mine, other in zip(watched.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_batches_that_are_watched_are_those_of_the_data() -> None:
    watched, _ = fitted(TRUNK, data(), batch_size=8)
    torch.manual_seed(0)
    plain = Trainer(build_model(watched.model.spec), epochs=2, batch_size=8, progress=False)
    plain.fit(data())
    for mine, other in zip(watched.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("encoder", [{"type": "mlp", "hidden": [8, 8]}, {"type": "rnn", "hidden": 8}])
@pytest.mark.parametrize("scale", [1, 1000])
def test_it_is_the_formula(encoder: Any, scale: int) -> None:
    """Z[i, j] = 1 - L_j(shared - lr_i * gradient of L_i at the shared) / L_j(shared), on the first batch.

    With lr_i = min(0.01 L_i / |gradient|^2, 0.1 |shared| / |gradient|).
    """
    x, y = data(missing=False)
    y["t2"] *= scale
    trainer, lookahead = fitted(encoder, (x, y), every=1, max_steps=1)
    torch.manual_seed(0)
    model = build_model(trainer.model.spec)
    rows = torch.randperm(32, generator=torch.Generator().manual_seed(0))[:8]

    def losses() -> dict[str, Tensor]:
        return {task: (out - y[task][rows]).square().mean() for task, out in model(x[rows]).items()}

    shared = list(model.encoders.parameters())
    start = [p.detach().clone() for p in shared]
    before, z = losses(), torch.empty(3, 3)
    for i, task in enumerate(y):
        gradient = torch.autograd.grad(losses()[task], shared)
        size, slope = (float(torch.cat([v.flatten() for v in values]).norm()) for values in (start, gradient))
        lr = min(0.01 * float(before[task].detach()) / slope**2, 0.1 * size / slope)
        for p, g in zip(shared, gradient, strict=True):
            p.data -= lr * g
        z[i] = torch.tensor([float(1 - (after / before[other]).detach()) for other, after in losses().items()])
        for p, value in zip(shared, start, strict=True):
            p.data.copy_(value)
    assert scale > 1 or z.abs().min() > 1e-6
    torch.testing.assert_close(lookahead.records[0], z, rtol=1e-3, atol=1e-6)


def test_what_draws_at_random_draws_the_same_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout a step so small that it changes nothing has no effect."""
    monkeypatch.setattr("mtlkit.suggest.lookahead._LENGTH", 1e-12)
    _, lookahead = fitted(TRUNK, data(), every=1)
    for record in lookahead.records:
        assert record[~record.isnan()].abs().max() < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_step_lowers_its_own_loss_a_little_whatever_its_scale(scale: float) -> None:
    """Steps of Adam's learning rate would overshoot where losses are large, and change nothing where they are small."""
    x, y = data(missing=False)
    scaled = x, {task: scale * target for task, target in y.items()}
    _, lookahead = fitted({"type": "mlp", "hidden": [8, 8]}, scaled, every=1)
    for record in lookahead.records:
        assert record.diagonal().min() > 1e-5 and record.diagonal().max() < 0.02


def test_weights_and_learning_rates_do_not_count() -> None:
    _, plain = fitted(TRUNK, data(missing=False), every=1, max_steps=1)
    sgd = {"type": "sgd", "lr": 100.0}
    _, weighted = fitted(TRUNK, data(missing=False), every=1, max_steps=1, weight=1e-4, optimizer=sgd)
    torch.testing.assert_close(weighted.records, plain.records, rtol=1e-3, atol=1e-6)


def test_tasks_without_labels_are_unknown() -> None:
    x, y = data(missing=False)
    y["t1"][:] = torch.nan
    with pytest.warns(UserWarning, match="had no label"):
        _, lookahead = fitted(TRUNK, (x, y), every=3)
    for record in lookahead.records:
        assert record.isnan().tolist() == [[False, True, False], [True] * 3, [False, True, False]]


def test_a_failing_task_is_not_recorded() -> None:
    x, y = data(missing=False)
    y["t1"][:] = float("inf")
    with pytest.warns(UserWarning, match="was not finite"):
        trainer, lookahead = fitted(TRUNK, (x, y), every=1, nonfinite="skip_task")
    assert len(lookahead.records) == trainer.step
    assert all(bool(record[1].isnan().all()) for record in lookahead.records)


def test_scales_of_losses_do_not_count() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(5, 50)
    cosines = torch.nn.functional.cosine_similarity(gradients[:, None], gradients, dim=2)
    lengths, losses = torch.rand(5) * 100, torch.rand(5) * 1000
    z = 1e-3 * cosines * lengths[:, None] * lengths / losses
    torch.testing.assert_close(in_own_steps(z), cosines)


def test_where_effects_disagree_or_are_no_measure() -> None:
    z = torch.tensor([[1.0, 0.5, 0.1], [-0.5, 1.0, 0.1], [0.1, 0.1, -1.0]])
    alike = in_own_steps(z)
    assert alike[0, 1] == alike[1, 0] == 0
    assert bool(alike[2].isnan().all()) and bool(alike[:, 2].isnan().all())
