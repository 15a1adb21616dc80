"""The kinds of models that the encoder takes, and how each is put together.

    FAMILIES["bert"]      # layers "encoder.layer", after "embeddings"

A kind stands here once the battery of tests holds for it: padding changes no feature, its layers one after another are
the model. To add one, write its line and give it a small config in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

StandIn = Literal["given", "zero", "same"]
"""What a module is where its work is done already: it hands on the features that the model is given, adds nothing to
what it is added to, or changes nothing."""


@dataclass(frozen=True)
class Family:
    """How models of one kind are put together; modules by their paths in the model.

    Attributes:
        layers: the list of layers; "" where they can't be taken one by one.
        first: what comes before the layers, with what stands in its place where that was run already.
        last: what comes after them.
        with_first: what runs beside the first layer alone.
        in_pairs: whether a layer gives its features beside its attention, and there must be one.
        keys: of its config, beside those that it declares.
        padding: the id that its code has for padding, whatever the config says; None where the config's counts.
        counts_padding: whether the table of positions begins after the padding id, as fairseq's does.
        has_decoder: whether the model has a decoder too, which is left out.
    """

    layers: str = ""
    first: dict[str, StandIn] = field(default_factory=dict)
    last: tuple[str, ...] = ()
    with_first: tuple[str, ...] = ()
    in_pairs: bool = False
    keys: tuple[str, ...] = ()
    padding: int | None = None
    counts_padding: bool = False
    has_decoder: bool = False


_BERT = Family("encoder.layer", {"embeddings": "given"})
_ROBERTA = Family("encoder.layer", {"embeddings": "given"}, counts_padding=True)
# Each step of these sees itself and the steps before it.
_LLAMA = Family("layers", {"embed_tokens": "given"}, ("norm",))

FAMILIES: dict[str, Family] = {
    "albert": Family(),  # its layers are one
    "bert": _BERT,
    "camembert": _ROBERTA,
    "data2vec-text": _ROBERTA,
    "deberta-v2": Family(
        "encoder.layer",
        {"embeddings": "given"},
        with_first=("encoder.conv",),
        in_pairs=True,
        keys=(
            *("attention_head_size", "conv_act", "conv_groups", "conv_kernel_size", "embedding_size"),
            *("norm_rel_ebd", "position_buckets", "share_att_key"),
        ),
    ),
    "distilbert": Family("transformer.layer", {"embeddings": "given"}),
    "electra": Family("encoder.layer", {"embeddings": "given", "embeddings_project": "same"}),
    "ernie": _BERT,
    "gpt2": Family("h", {"wte": "given", "wpe": "zero", "drop": "same"}, ("ln_f",)),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "modernbert": Family("layers", {"embeddings": "given"}, ("final_norm",)),
    "mpnet": Family("encoder.layer", {"embeddings": "given"}, padding=1, counts_padding=True),
    "mt5": Family(has_decoder=True),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "roberta": _ROBERTA,
    "roberta-prelayernorm": Family("encoder.layer", {"embeddings": "given"}, ("LayerNorm",), counts_padding=True),
    "t5": Family(has_decoder=True),  # its first layer makes the biases of all
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": Family("encoder.layer", {"embeddings": "given"}, ("encoder.LayerNorm",), counts_padding=True),
}
