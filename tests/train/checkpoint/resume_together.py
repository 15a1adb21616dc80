"""Run by torchrun: in each process, a run that is cut short and goes on is compared with one that is not."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from test_resume import in_memory, loader, noisy, run, told
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import mtlkit


def distributed() -> Any:
    data = noisy()
    return DataLoader(data, 4, sampler=DistributedSampler(data, seed=3))


def own() -> Any:
    """Tasks with data of their own, one of which each process gets a part of."""
    x, targets = in_memory()
    rows = TensorDataset(x[:24], targets["b"][:24])
    order = torch.Generator().manual_seed(3)
    return {
        "a": DataLoader(TensorDataset(x, targets["a"]), 4, shuffle=True, generator=order),
        "b": DataLoader(rows, 3, sampler=DistributedSampler(rows, seed=3)),
    }


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "in memory": (in_memory, {}),
    "a dataset": (noisy, {"balancer": "gradnorm"}),
    "a loader": (loader, {"balancer": "uw"}),
    "workers": (lambda: loader(2), {}),
    "accumulation": (in_memory, {"balancer": "pcgrad", "accumulate": 2}),
    "parts": (distributed, {"every": "epoch"}),
    "own data": (own, {}),
}


def same(folder: Path, data: Any, how: dict[str, Any]) -> bool:
    every, how = how.get("every", 1), {name: value for name, value in how.items() if name != "every"}
    whole = run(data, **how)
    run(data, 6, out_dir=str(folder), save_every=every, resume=True, **how)
    again = run(data, out_dir=str(folder), save_every=every, resume=True, **how)
    assert whole is not None and again is not None
    pairs = zip(whole[0].state_dict().values(), again[0].state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs) and told(whole[1]) == told(again[1])


class Tells(mtlkit.Callback):
    """Writes the step into a file of its process."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.path = folder / f"at-{rank}"

    def on_step_end(self, trainer: Any, losses: Any) -> None:
        self.path.write_text(str(trainer.step))
        time.sleep(0.01)


def main(folder: Path, what: str) -> None:
    rank = mtlkit.Trainer(mtlkit.build_model()).processes.rank
    if what == "signal":
        trainer = mtlkit.Trainer(
            mtlkit.build_model(), epochs=1000, out_dir=str(folder), callbacks=[Tells(folder, rank)], progress=False
        )
        x = torch.randn(640, 10)
        trainer.fit((x, {"task1": x[:, :5], "task2": x[:, :3]}))
    found = {name: same(folder / name.replace(" ", "-"), *case) for name, case in CASES.items()}
    (folder / f"found-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
