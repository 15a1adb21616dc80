"""Methods that fall behind on MultiMNIST, by TorchJD called from a plain loop: is it the method or our wiring?

    python -m benchmarks.multimnist_by_hand pbi pcd         # from the root of the repository; on one thread

The model, its initial weights, optimiser and schedule are those of `multimnist.toml`; the order of the data is another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchjd import autojac
from torchjd.aggregation import PCD
from torchjd.scalarization import PBI

from benchmarks.multimnist_balancers import RUN_FILE
from mtlkit import runfile

BATCH, EPOCHS = 256, 4


def main() -> None:
    torch.set_num_threads(1)
    run, _ = runfile.read_run(RUN_FILE)
    examples = run.load_data()
    for name in sys.argv[1:]:
        print(name, scores(run, examples, LEARN[name]()), flush=True)


def scores(run: runfile.RunFile, examples: Any, learn: Callable[[list[Tensor], Any], None]) -> dict[str, float]:
    """Train by `learn(losses, model)`, which leaves gradients; the accuracy of each task on the test data."""
    model = runfile.seeded_model(runfile.complete(run.model, examples), run.train)
    (x, y), (x_test, y_test) = examples.train, examples.test
    steps = -(-len(x) // BATCH) * EPOCHS
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    cross_entropy = torch.nn.CrossEntropyLoss()
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            outputs = model(x[rows])
            learn([cross_entropy(outputs[task], y[task][rows]) for task in model.tasks], model)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval()
    with torch.no_grad():
        outputs = [model(part) for part in x_test.split(1000)]
    found = {task: torch.cat([output[task] for output in outputs]).argmax(1) for task in model.tasks}
    return {task: float((found[task] == y_test[task]).double().mean()) for task in model.tasks}


def pbi() -> Callable[[list[Tensor], Any], None]:
    scalarizer = PBI(5.0, torch.ones(2), torch.zeros(2))
    return lambda losses, model: scalarizer(torch.stack(losses)).backward()


def pcd() -> Callable[[list[Tensor], Any], None]:
    aggregator = PCD()

    def learn(losses: list[Tensor], model: Any) -> None:
        shared = list(model.encoders.parameters())
        autojac.backward(losses, inputs=shared, retain_graph=True, parallel_chunk_size=1)
        autojac.jac_to_grad(shared, aggregator)
        torch.stack(losses).sum().backward(inputs=list(model.heads.parameters()))

    return learn


LEARN = {"pbi": pbi, "pcd": pcd}

if __name__ == "__main__":
    main()
