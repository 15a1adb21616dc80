"""Small models of every kind, and nothing fetched."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

# Tests run several processes at once; more threads than cores make each of them slower.
torch.set_num_threads(1)

# Before transformers is imported, which looks at it once.
os.environ["HF_HUB_OFFLINE"] = "1"

# As the configs of all kinds call these.
SMALL: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 40,
}
_HEADS = {"num_key_value_heads": 1, "head_dim": 4}
_MIXED = ["full_attention", "sliding_attention"]
OTHER: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 6},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "conv_kernel_size": 3,
        "position_buckets": 4,
    },
    "distilbert": {"hidden_dim": 12},
    "electra": {"embedding_size": 6},
    "gpt2": {"n_inner": 12},
    "llama": _HEADS,
    "mistral": {**_HEADS, "sliding_window": 4},
    "modernbert": {"layer_types": _MIXED, "local_attention": 4},
    "qwen2": {"num_key_value_heads": 1, "layer_types": _MIXED, "use_sliding_window": True, "sliding_window": 3},
    "qwen3": {**_HEADS, "layer_types": _MIXED[::-1], "use_sliding_window": True, "sliding_window": 3},
    "mt5": {"d_kv": 4, "d_ff": 12},
    "t5": {"d_kv": 4, "d_ff": 12},
}
# Kinds whose configs have no such key.
WITHOUT: dict[str, tuple[str, ...]] = {
    "distilbert": ("intermediate_size",),
    "gpt2": ("intermediate_size",),
    "mt5": ("intermediate_size", "max_position_embeddings"),
    "t5": ("intermediate_size", "max_position_embeddings"),
}


@pytest.fixture(scope="session")
def small() -> Any:
    """The encoder's part of a small model of a kind; more keys of its config may be given."""

    def part(model: str, **config: Any) -> dict[str, Any]:
        common = {key: value for key, value in SMALL.items() if key not in WITHOUT.get(model, ())}
        return {"type": "transformers", "model": model, "config": {**common, **OTHER.get(model, {}), **config}}

    return part
