"""What a trainer is made of, each checked: its model, callbacks, balancer and accelerator."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn

from mtlkit.balancing import Balancer
from mtlkit.errors import MtlkitError, PluginError
from mtlkit.model import Model
from mtlkit.part import Part, make
from mtlkit.registry import BUILT_IN, balancers
from mtlkit.train.callback import Callback
from mtlkit.train.walk import modules_of
from mtlkit.train.wrong import wrong


def refuse_other_models(model: object) -> None:
    """Raise SpecError for what is no model of ours, or one whose parameters are not float32."""
    if not isinstance(model, Model):
        cure = ""
        # What torch.compile makes of a module. torch has no public name for it.
        if type(model).__name__ == "OptimizedModule":
            cure = (
                ", not compiled: hand over the model itself and let the trainer compile it, Trainer(..., compile=True)"
            )
        message = f"found {type(model).__name__}, expected what mtlkit.build_model gives{cure}"
        raise wrong("model", message)
    other = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if other:
        found = str(other.pop()).removeprefix("torch.")
        message = f"found {found} parameters, expected float32. Use model.float(), and precision= for mixed precision"
        raise wrong("model", message)


def bring(model: Model, device: torch.device) -> list[nn.Module]:
    """Move a model to where it isn't yet, and return its modules."""
    modules = modules_of(model)
    for module in modules:
        for held in (module._parameters, module._buffers):
            # Most have none.
            for tensor in held.values() if held else ():
                if tensor is not None and tensor.device != device:
                    model.to(device)
                    return modules
    return modules


def checked_callback(callback: Any) -> Any:
    """A callback that has every event, or SpecError."""
    events = [name for name in vars(Callback) if name.startswith("on_")]
    if isinstance(callback, type) or not all(callable(getattr(callback, event, None)) for event in events):
        raise wrong("callbacks", f"found {callback!r}, expected objects of a subclass of mtlkit.Callback")
    return callback


def made_balancer(part: Part, model: Model) -> Balancer:
    """The balancer of a checked part.

    Raises:
        SpecError: an option names no task, or a package that it needs is not installed.
        PluginError: what was registered makes no balancer.
    """
    entry = balancers.describe(part["type"])
    try:
        made = make(balancers, part, model.tasks)
    except ImportError as error:
        # TorchJD's own advice is another.
        cause = str(error).partition(" Install ")[0].rstrip(".")
        advice = '. Install it with: pip install "mtlkit[solvers]"' if entry.owner == BUILT_IN else ""
        message = f"{part['type']!r} needs a package that is not installed: {cause}{advice}"
        raise wrong("balancer", message) from error
    except ValueError as error:
        raise wrong("balancer", f"{part['type']!r}: {error}") from error
    except (TypeError, AttributeError, RuntimeError) as error:
        raise PluginError(f"{entry.who} can't be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, Balancer) or not hasattr(made, "tasks"):
        found = f"{type(made).__name__}{' whose __init__ does not call that of Balancer' * isinstance(made, Balancer)}"
        raise PluginError(f"{entry.who} made a {found}, expected a mtlkit.Balancer")
    return made


def made_accelerator(precision: str) -> Accelerator:
    """Accelerate's state for one precision.

    Raises:
        SpecError: the precision can't be had here.
        MtlkitError: there are several processes that can't train one model together.
    """
    # Accelerate keeps one state a process, which would refuse a second trainer of another precision.
    AcceleratorState._reset_state()
    try:
        # On a machine without GPUs Accelerate takes no notice of other processes unless it is told to.
        cpu = _launched() > 1 and not torch.cuda.is_available()
        accelerator = Accelerator(cpu=cpu, mixed_precision="no" if precision == "fp32" else precision)
    except ValueError as error:
        raise wrong("precision", str(error)) from error
    found = accelerator.distributed_type
    if found not in _KNOWN:
        raise MtlkitError(
            f"found the distributed type {found.value}, which mtlkit does not train with; expected processes that each "
            "have the whole model. Start them with torchrun, or with `accelerate launch` without such a plugin"
        )
    if accelerator.num_processes != _launched():
        raise MtlkitError(
            f"found WORLD_SIZE={_launched()} and {accelerator.num_processes} processes in Accelerate's state, so that "
            "each process would train by itself. Make the trainer in processes that torchrun started, or unset it"
        )
    if accelerator.num_processes > 1 and precision == "fp16":
        message = "'fp16' scales gradients, which is not tried in several processes. Use 'bf16' or 'fp32'"
        raise wrong("precision", message)
    return accelerator


_KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def _launched() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
