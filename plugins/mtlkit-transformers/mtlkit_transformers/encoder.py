"""`transformers`: a text encoder of Hugging Face transformers over ids, new or with pretrained weights.

    {"type": "transformers", "model": "bert", "config": {"hidden_size": 128, "num_hidden_layers": 4}}
    {"type": "transformers", "pretrained": "FacebookAI/roberta-base"}              # of the Hub, or a folder
    {"type": "transformers", "pretrained": "models/mine", "layers": 6, "freeze": 3, "dropout": 0.2}

It reads what the model's tokenizer gives, ids [T], and gives a sequence [T, D]; heads pool it or predict at each step.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Shape, written
from mtlkit.option import Depth, NotNegativeCount, Probability
from mtlkit_transformers.config import as_data, config_of
from mtlkit_transformers.family import FAMILIES, Family
from mtlkit_transformers.ids import Ids
from mtlkit_transformers.source import Source, new_model
from mtlkit_transformers.stage import Stage, features, layers_of, stages_of


class Transformers(nn.Module):
    """Ids [B, T] -> [B, T, D], the last hidden state of a model of transformers without its pooler.

    Steps whose id is the config's `pad_token_id` are masked and not attended to: 0 where nothing else is said, as
    mtlkit pads (1 for MPNet, which knows no other), and what pretrained weights were trained with. `null` declares that
    every id is real. Padding goes at the end.

    The embeddings are a stage and each layer is one, where the model's layers can be taken one by one; `stages` is None
    of the others.

    Args:
        input_shape: [T] or [None].
        model: the kind, a key of `FAMILIES`; may be left out with `pretrained`.
        config: what is set in the model's config, over what `pretrained` has or over transformers' defaults.
        pretrained: a folder that `save_pretrained` wrote, or a name on the Hugging Face Hub.
        layers: how many to keep, the first ones; all if left out.
        freeze: the first so many stages are not trained: 1 is the embeddings, 3 the embeddings and two layers.
        dropout: the probability of dropping a unit, wherever the model drops some; the config's if left out.

    Raises:
        ValueError: there is no such model, config, folder or weights, or it can't read such an input.
    """

    input_dtype = "int64"

    def __init__(
        self,
        input_shape: Shape,
        *,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        pretrained: str | Literal[False] = False,
        layers: Depth | None = None,
        freeze: NotNegativeCount = 0,
        dropout: Probability | None = None,
    ) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"encoder 'transformers' reads ids [T]; found an input of {written(input_shape)}")
        source = Source(pretrained) if isinstance(pretrained, str) else None
        made_of = config_of(model, config or {}, source, dropout)
        family = FAMILIES[made_of.model_type]
        # The spec alone makes this model again, without the folder and whatever transformers' defaults become.
        self.settled = {"model": made_of.model_type, "config": as_data(made_of)}
        loads = source is not None and torch.get_default_device().type != "meta"
        self.model = source.model(made_of, family) if source and loads else new_model(made_of, family)
        if layers is not None:
            _keep_first(self.model, family, layers, made_of.model_type)
        self.vocab, self.padding_id = made_of.vocab_size, made_of.pad_token_id
        self.longest = _longest(made_of, family)
        self._ids = Ids(self.vocab, self.padding_id, self.longest)
        self.output_shape = (_fitting(input_shape[0], self.longest), made_of.hidden_size)
        self._stages = stages_of(self.model, family, self._ids, self.output_shape)
        if freeze:
            _freeze(self._stages, freeze, made_of.model_type)

    @property
    def stages(self) -> tuple[Stage, ...] | None:
        """The embeddings, then each layer; None where layers can't be taken one by one."""
        return self._stages or None

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        x, mask = self._ids.read(x, mask)
        return features(self.model, mask, input_ids=x), mask  # [B, T, D], [B, T]


def _longest(config: Any, family: Family) -> int | None:
    """How many ids a sequence may have; None where positions are relative and any number will do."""
    positions = None if family.has_decoder else getattr(config, "max_position_embeddings", None)
    if positions is None or not family.counts_padding:
        return positions
    longest: int = positions - config.pad_token_id - 1
    if longest < 1:
        raise ValueError(
            f"config.max_position_embeddings: found {positions}, of which those up to the padding id, "
            f"{config.pad_token_id}, are of no use. Enlarge it"
        )
    return longest


def _fitting(steps: int | None, longest: int | None) -> int | None:
    if steps is not None and longest is not None and steps > longest:
        raise ValueError(
            f"found an input of {steps:,} ids, expected {longest:,} at most, as many as the model has positions "
            "(max_position_embeddings). Cut the sequences, or take a model for longer ones"
        )
    return steps


def _keep_first(model: Any, family: Family, count: int, kind: str) -> None:
    if not family.layers:
        raise ValueError(
            f"layers: those of model {kind!r} can't be taken one by one. Set num_hidden_layers in its config"
        )
    layers = layers_of(model, family)
    if count > len(layers):
        raise ValueError(f"layers: found {count}, but the model has {len(layers)}")
    del layers[count:]


def _freeze(stages: tuple[Stage, ...], count: int, kind: str) -> None:
    if not stages:
        raise ValueError(f"freeze: the layers of model {kind!r} can't be taken one by one, so it has no stages")
    if count > len(stages):
        raise ValueError(f"freeze: found {count}, but the model has {len(stages)} stages")
    # What later stages use as well, biases of relative positions say, is theirs to train.
    later = {id(p) for stage in stages[count:] for p in stage.parameters()}
    for stage in stages[:count]:
        for parameter in stage.parameters():
            if id(parameter) not in later:
                parameter.requires_grad_(False)
