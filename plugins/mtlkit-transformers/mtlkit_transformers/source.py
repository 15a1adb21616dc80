"""Models with new weights, and with those of a folder or of the Hugging Face Hub, of which only safetensors are read.

    new_model(config, family)
    source = Source("FacebookAI/roberta-base")          # or a folder: "models/mine", which is looked for first
    source.config()                                      # what its config.json says
    source.model(config, family)

Without network, `HF_HUB_OFFLINE=1` makes transformers take what it downloaded before. Code that lies beside weights is
never run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoModelForTextEncoding

from mtlkit.errors import shown
from mtlkit_transformers.family import Family

# "bert-base-uncased", "FacebookAI/roberta-base"; a path has more parts, or begins with one of dots.
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# What transformers, its strict configs and the models themselves raise of values that they can't use.
_REFUSALS = (
    *(OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError),
    *(ImportError, StrictDataclassError),
)


@dataclass(frozen=True)
class Source:
    """Where pretrained weights lie: a folder on this machine, or a name on the Hub. It is looked at when it is read."""

    name: str

    def config(self) -> dict[str, Any]:
        """What the config says, "model_type" among it.

        Raises:
            ValueError: there is none that can be read.
        """
        terms = self._terms()
        with told(f"no config of {shown(self.name)} can be read"):
            return AutoConfig.from_pretrained(self.name, **terms).to_dict()

    def model(self, config: Any, family: Family) -> nn.Module:
        """The model with the weights.

        Raises:
            ValueError: there are no safetensors, some are missing, or they are of other sizes.
        """
        auto, more = _auto(config, family)
        terms = {**self._terms(), **more, "use_safetensors": True, "dtype": torch.float32}
        with told(f"no weights of {shown(self.name)} can be read"):
            made, report = auto.from_pretrained(self.name, config=config, output_loading_info=True, **terms)
        # What is missing was drawn anew.
        missing = sorted(report["missing_keys"])
        if missing:
            raise ValueError(
                f"pretrained: {shown(self.name)} lacks {len(missing)} tensors of a {config.model_type} with this "
                f"config, such as {missing[0]!r}. Take other weights, or a config that fits"
            )
        return made.train()

    def _terms(self) -> dict[str, Any]:
        """How it is read: of a folder nothing is fetched, and code that lies beside is not run."""
        is_folder = Path(self.name).is_dir()
        if not is_folder and not _HUB_NAME.fullmatch(self.name):
            found = f"found {shown(self.name)}, expected a folder that is there, or a name on the Hub"
            raise ValueError(f"pretrained: {found}")
        if is_folder and (Path(self.name) / "adapter_config.json").exists():
            raise ValueError(f"pretrained: {shown(self.name)} holds an adapter. Merge it into its model, and save that")
        return {"trust_remote_code": False, "local_files_only": is_folder}


def new_model(config: Any, family: Family) -> nn.Module:
    """A model with new weights, which are drawn where the default device is not meta.

    Raises:
        ValueError: transformers makes none of this config.
    """
    auto, more = _auto(config, family)
    with told(f"no {config.model_type} can be made of this config"):
        made = auto.from_config(config, dtype=torch.float32, trust_remote_code=False, **more)
    return made.train()


def _auto(config: Any, family: Family) -> tuple[Any, dict[str, Any]]:
    """What makes such models, and the arguments that leave out what reads the first step alone: heads do that."""
    if family.has_decoder:
        return AutoModelForTextEncoding, {}
    made_by: Any = MODEL_MAPPING[type(config)]
    pools = "add_pooling_layer" in inspect.signature(made_by).parameters
    return AutoModel, {"add_pooling_layer": False} if pools else {}


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turns what transformers raises of values or files that it can't use into a ValueError that begins with `what`."""
    try:
        yield
    except _REFUSALS as error:
        detail = " ".join(str(error).split())[:500]
        raise ValueError(f"{what} ({type(error).__name__}: {detail})") from error
