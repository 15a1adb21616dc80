"""The most memory that a process takes which trains: `python -m benchmarks.speed.memory cnn mtlkit 1`, in MB.

It is what Linux calls VmHWM and not `ru_maxrss`, which for a new process begins with what its parent had taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

_BATCH, _EPOCHS = 64, 2


def train(name: str, way: str) -> None:
    """Some steps, of the problem of `benchmarks.speed.images`."""
    if way == "loop without mtlkit":
        _without(name)
        return
    from benchmarks.speed import images
    from benchmarks.speed.loops import original
    from benchmarks.speed.modules import Apart
    from benchmarks.speed.problem import Problem
    from mtlkit import Trainer

    problem = Problem(images.SPECS[name], images.ROWS[name])
    model = problem.model
    if way == "mtlkit":
        Trainer(model, epochs=_EPOCHS, progress=False).fit((problem.x, problem.y))
        return
    trunk = model.scheme("encoder").trunk
    assert isinstance(trunk, nn.Module)
    original(Apart(trunk, [model.head(task) for task in model.tasks]), problem, _EPOCHS, True)


def _without(name: str) -> None:
    """The same shapes in plain torch; written again, since a process that imports mtlkit takes more."""
    from benchmarks.speed import modules

    rows = {"cnn": 512, "resnet18": 128}[name]
    x = torch.randn(rows, *{"cnn": (1, 28, 28), "resnet18": (3, 64, 64)}[name])
    classes, values = torch.randint(10, (rows,)), torch.randn(rows, 1)
    trunk = modules.cnn(1, 32, 64) if name == "cnn" else modules.timm(3, "resnet18")
    width = 64 if name == "cnn" else 512
    model = modules.Apart(trunk, [nn.Linear(width, 10), nn.Linear(width, 1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(_EPOCHS):
        for index in torch.randperm(rows).split(_BATCH):
            a, b = model(x[index])
            loss = nn.functional.cross_entropy(a, classes[index]) + nn.functional.mse_loss(b, values[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def most_megabytes() -> float:
    """What this process has taken at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM; this benchmark needs Linux")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    train(sys.argv[1], sys.argv[2])
    sys.stdout.write(f"{most_megabytes():.1f}\n")
