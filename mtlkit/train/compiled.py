"""The model run through `torch.compile`, and a word of ours where that can't be or does not pay.

how, why = mode(True, "cuda", balancer)
run = Compiled(model, how)
with told():
    run(x, tasks=("digit",))          # compiled now, and its backward pass where it is first needed

Only training runs it. Evaluation and prediction, in another mode and for other numbers of rows, run the model as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Literal

import torch
from torch import Tensor

from mtlkit.balancing import Balancer
from mtlkit.errors import MtlkitError
from mtlkit.grouping import Groups
from mtlkit.inputs import Inputs
from mtlkit.model import Model
from mtlkit.train.wrong import wrong

Asked = bool | Literal["reduce-overhead", "max-autotune"]
"""What the trainer's `compile` may be."""

MOST_SETS = 8
"""Sets of tasks with labels in a batch that are compiled: each is a graph of its own, and takes seconds or minutes."""

# A graph for each set of tasks, and for each of these one for full batches, one for others and one for a single
# example. Torch's own limit of 8 counts those of all models in a process together, and ends compiling where it is met.
_MOST_GRAPHS = 128


def mode(
    asked: Asked, device: str, balancer: Balancer, accumulate: int = 1, callbacks: bool = False
) -> tuple[str, str]:
    """The mode of `torch.compile`, and why.

    Args:
        asked: the trainer's `compile`, if not False.
        device: the kind of device.
        balancer: the trainer's.
        accumulate: batches that make one optimiser step.
        callbacks: whether there are any, which may take gradients of their own.
    """
    if device != "cuda":
        return ("default", "CUDA graphs are for GPUs") if asked is True else (str(asked), "as asked")
    forbidden = [
        (balancer.at is not None, "the balancer takes each task's gradient"),
        (accumulate > 1, "the gradients of several batches are added up"),
        (callbacks, "callbacks may take gradients of their own"),
    ]
    found = [why for there, why in forbidden if there]
    if found:
        without = "max-autotune-no-cudagraphs" if asked == "max-autotune" else "default"
        return without, f"{found[0]}, and a CUDA graph writes each pass into the same memory"
    if asked is True:
        return "reduce-overhead", "CUDA graphs launch all kernels of a pass at once"
    return str(asked), "as asked"


class Compiled:
    """A model that is compiled when it first runs, and anew for each set of tasks and kind of input.

    A model that breaks torch's graph runs in pieces, and a further set of tasks as it is; a warning says so once.

    Args:
        model: it.
        mode: that of `torch.compile`.

    Raises:
        SpecError: this Python or platform has no `torch.compile`.
    """

    def __init__(self, model: Model, mode: str) -> None:
        from torch._dynamo import config as dynamo
        from torch._functorch import config as functorch

        # Tasks' gradients may be taken one by one, by a balancer, a callback, or to find the one that isn't finite;
        # a compiled backward pass may else write into what the next task's pass needs.
        if hasattr(functorch, "donated_buffer"):  # torch 2.4 has none
            functorch.donated_buffer = False
        dynamo.cache_size_limit = max(dynamo.cache_size_limit, _MOST_GRAPHS)
        self._model = model
        try:
            self._whole = torch.compile(model, mode=mode, fullgraph=True)
            self._pieces = torch.compile(model, mode=mode)
        except RuntimeError as error:
            raise wrong("compile", f"{error}. Leave compile at False") from error
        self._run: Callable[..., dict[str, Tensor]] = self._whole
        self._sets: set[tuple[str, ...]] = set()
        self._refused = False

    def __call__(self, x: Inputs, tasks: tuple[str, ...], groups: Groups | None = None) -> dict[str, Tensor]:
        """The output of each of these tasks; arguments as of the model's `forward`."""
        more = {} if groups is None else {"groups": groups}
        if not self._admitted(tasks):
            return self._model(x, tasks=tasks, **more)
        # What the first pass would leave behind is there before it, so that the second needs no other graph.
        self._model._plan_for(tasks, False, groups)
        if groups is not None:
            groups.made.clear()
        if self._run is not self._whole:
            return self._run(x, tasks=tasks, **more)
        from torch._dynamo import exc

        try:
            return self._whole(x, tasks=tasks, **more)
        except getattr(exc, "FailOnRecompileLimitHit", ()):  # torch 2.4 has none
            self._run = self._model
            warnings.warn(
                f"compile: this process has compiled more than {_MOST_GRAPHS} graphs, of other models or in other "
                "fits; this model goes on as without compile. Start another process",
                stacklevel=2,
            )
            return self._run(x, tasks=tasks, **more)
        except exc.TorchDynamoException as error:
            # If it fails in pieces too, then the error is about those.
            self._run = self._pieces
            outputs = self._run(x, tasks=tasks, **more)
            warnings.warn(
                f"compile: {_where(error, self._model)} can't be compiled in one graph with the rest of the model, "
                f"which runs in pieces and gains less: {_cause(error)}",
                stacklevel=2,
            )
            return outputs

    def _admitted(self, tasks: tuple[str, ...]) -> bool:
        """Whether this set of tasks is, or will be, compiled."""
        if tasks in self._sets:
            return True
        if len(self._sets) < MOST_SETS:
            self._sets.add(tasks)
            return True
        if not self._refused:
            self._refused = True
            warnings.warn(
                f"compile: batches have labels of more than {MOST_SETS} different sets of tasks, each of which needs "
                "a graph of its own; those of further sets run as without compile",
                stacklevel=3,
            )
        return False


@contextmanager
def told() -> Iterator[None]:
    """Say in a sentence why a model can't be compiled.

    Raises:
        MtlkitError: it can't.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise MtlkitError(
            f"compile: the model can't be compiled here: {_cause(error)}. torch.compile needs a C++ compiler on the "
            "CPU (on Debian: apt-get install g++ python3-dev), and Triton on a GPU. Install it, or leave compile at "
            "False"
        ) from error


def _cause(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _where(error: Exception, model: Model) -> str:
    """The innermost module of the model in which tracing ended, and its line; "the model" where that isn't known."""
    kinds = {type(module) for module in model.modules()}
    codes = [(kind, getattr(made, "__code__", None)) for kind in kinds for made in vars(kind).values()]
    for frame in reversed(getattr(error, "real_stack", None) or []):
        for kind, code in codes:
            if code is not None and code.co_filename == frame.filename and frame.lineno in _lines(code):
                return f"{kind.__name__} ({frame.filename}:{frame.lineno})"
    return "the model"


def _lines(code: CodeType) -> set[int | None]:
    return {line for _, _, line in code.co_lines()}
