"""The states of all random draws that are not a generator's own: of torch, on the CPU and on GPUs, numpy and Python.

    state = drawn()       # plain values and tensors
    draw_from(state)      # what is drawn next is what was drawn after `drawn()`

numpy and Python are among them since a data set of the user's own may draw from them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def drawn() -> dict[str, Any]:
    """The states of now."""
    version, words, gauss = random.getstate()
    own = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": [version, torch.tensor(words), gauss],
        # numpy's words have 32 bits without a sign.
        "numpy": {**own, "state": {**own["state"], "key": torch.from_numpy(own["state"]["key"].astype(np.int64))}},
    }


def draw_from(state: Mapping[str, Any]) -> None:
    """Put the states back."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([*state["cuda"]])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    own = state["numpy"]
    key = own["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**own, "state": {**own["state"], "key": key}})
