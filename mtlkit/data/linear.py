"""`linear`: random numbers whose targets a linear map gives, for `mtlkit.DEFAULT_SPEC` as it is.

    [data]
    type = "linear"
    samples = 1000
    noise = 0.1

Tasks: `task1` (5 numbers) and `task2` (3 numbers), each with variance 1 + noise². No model does better
than a mean squared error of noise².
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from mtlkit.data.base import Count, CountOrNone, Data, Pair, Seed, one_input

_INPUTS = 10
_OUTPUTS = {"task1": 5, "task2": 3}


def linear(
    *,
    samples: Count = 1_000,
    valid: CountOrNone = 200,
    test: CountOrNone = 200,
    noise: Annotated[float, Field(ge=0)] = 0.1,
    seed: Seed = 0,
) -> Data:
    """Random inputs [10] with linear targets of 5 and 3 numbers: the data of the default spec.

    Args:
        samples: number of training examples; `valid` and `test` are those of the other parts (0: none).
        noise: standard deviation of the normal noise on every target.
        seed: draws the map, the inputs and the noise.
    """
    random = torch.Generator().manual_seed(seed)
    # Divided so that every target has variance 1 before the noise.
    maps = {task: torch.randn(_INPUTS, outputs, generator=random) / _INPUTS**0.5 for task, outputs in _OUTPUTS.items()}

    def draw(count: int) -> Pair:
        x = torch.randn(count, _INPUTS, generator=random)
        y = {task: x @ map_ for task, map_ in maps.items()}
        return x, {task: clean + noise * torch.randn(clean.shape, generator=random) for task, clean in y.items()}

    return Data(
        train=draw(samples),
        valid=draw(valid) if valid else None,
        test=draw(test) if test else None,
        inputs=one_input([_INPUTS]),
        tasks={task: {"outputs": outputs, "loss": "mse"} for task, outputs in _OUTPUTS.items()},
    )
