"""The places where a model's tasks share it, found from its graph: its parameters, its features, its last shared layer.

places = Places(model)
places.check(balancer, "mgda")                      # SpecError where it can't work on this model
border = places.border("features")                  # for the forward pass, None where none is needed
gradients = places.gradients("features", losses, border)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import get_args

from torch import Tensor, nn

from mtlkit.balancing import Balancer, Place
from mtlkit.border import Border, Frontier
from mtlkit.errors import MtlkitError, SpecError
from mtlkit.model import Model
from mtlkit.naming import ByName
from mtlkit.train.gradients import FeatureGradients, Gradients, at_parameters, batched_at_parameters
from mtlkit.train.reach import Reach
from mtlkit.train.walk import modules_of, trained
from mtlkit.train.wrong import wrong
from mtlkit.trunk import common_encoder

# What autograd calls the operations whose backward pass is one product for any number of tasks, and those that cost
# little. Of others a batched pass is slower, or has no rule: a recurrent layer of cuDNN, a Function of a plugin.
_CHEAP = ["Relu", "Gelu", "Silu", "Elu", "LeakyRelu", "Tanh", "Sigmoid", "NativeLayerNorm", "NativeDropout", "Mul"]
_VIEWS = ["View", "UnsafeView", "ReshapeAlias", "T", "Transpose", "Permute", "Unsqueeze", "Squeeze", "Alias", "Clone"]
_BATCHABLE = {f"{name}Backward" for name in ["Addmm", "Mm", *_CHEAP, *_VIEWS]}
_BATCHABLE_ON_CUDA = _BATCHABLE | {
    f"{name}Backward" for name in ["Convolution", "NativeBatchNorm", "MaxPool2DWithIndices", "AvgPool2D", "Mean"]
}

# Measured on CPUs (benchmarks/step_cost.py): for fewer tasks the batched pass costs more than it saves, and so it does
# for trunks of more parameters, each pass through which keeps the processor busy.
FEW_TASKS = 8
_SMALL_TRUNK = 20_000


class Places:
    """Where the tasks of a model share it, as long as it has the same tasks and the same parameters are trained.

    What it finds is kept; nothing is looked for before it is needed.
    """

    def __init__(self, model: Model, compiled: bool = False) -> None:
        self.model, self.compiled = model, compiled
        self.graph, self._trained = model.graph, trained(modules_of(model))

    def outdated(self, now: Sequence[nn.Parameter]) -> bool:
        """Whether parameters have been frozen, freed or replaced since, or tasks renamed; these are trained now."""
        # A task with a new name has the parameters that it had.
        if self.model.graph is not self.graph:
            return True
        return len(now) != len(self._trained) or any(p is not q for p, q in zip(now, self._trained, strict=True))

    @cached_property
    def _reach(self) -> Reach:
        return Reach.of(self.model)

    @cached_property
    def reach(self) -> dict[nn.Parameter, tuple[str, ...]]:
        """The tasks whose loss reaches each trainable parameter."""
        parameters = dict(self.model.named_parameters())
        return {parameters[name]: tasks for name, tasks in self._reach.tasks.items() if tasks}

    @cached_property
    def shared(self) -> list[nn.Parameter]:
        """The parameters that several tasks reach."""
        return [p for p, tasks in self.reach.items() if len(tasks) > 1]

    @cached_property
    def own(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that a task has alone."""
        return {task: [p for p, tasks in self.reach.items() if tasks == (task,)] for task in self.model.tasks}

    @cached_property
    def sharing(self) -> frozenset[str]:
        """The tasks that share any parameter."""
        return frozenset(task for p in self.shared for task in self.reach[p])

    @cached_property
    def last_layer(self) -> list[nn.Parameter]:
        """The weights of the last layer that all tasks share: none where there is no such layer.

        Where a scheme has several encoders of one kind, this layer of each of them.
        """
        layers: dict[tuple[str, ...], list[nn.Parameter]] = {}
        for name in reversed(self._reach.called):
            module = self.model.get_submodule(name)
            # The weights under which features are mixed are no layer.
            found = [] if hasattr(module, "rows") else [*module.parameters(recurse=False)]
            weights = [p for p in found if p.ndim > 1 and len(self.reach.get(p, ())) == len(self.model.tasks)]
            if weights:
                layers.setdefault(self._place_in_columns(name), []).extend(weights)
        return next(iter(layers.values()), [])

    def _place_in_columns(self, name: str) -> tuple[str, ...]:
        """A module's name, with a star in place of that of the column, or expert, that it is in."""
        parts = name.split(".")
        holders = [self.model.get_submodule(".".join(parts[:i])) for i in range(len(parts))]
        return tuple("*" if isinstance(holder, ByName) else part for holder, part in zip(holders, parts, strict=True))

    @cached_property
    def frontier(self) -> Frontier:
        """Where what several tasks share ends."""
        return Frontier.of(self.model.graph)

    @cached_property
    def batched(self) -> tuple[bool, str]:
        """Whether the tasks' passes through the trunk are made in one, and why."""
        if self.compiled:
            return False, "one task at a time: the model is compiled, and a compiled backward pass can't be batched"
        if len(self.model.tasks) < FEW_TASKS:
            return False, f"one task at a time: for fewer than {FEW_TASKS} tasks that is faster"
        if not self.frontier.simple or self._with_own():
            return False, "one task at a time: the tasks do not all read the same features"
        device = next(self.model.parameters()).device.type
        if device == "cpu" and sum(p.numel() for p in self.shared) > _SMALL_TRUNK:
            return False, "one task at a time: on cpu that is faster for trunks of more than 20,000 parameters"
        other = sorted(self._reach.operations - (_BATCHABLE_ON_CUDA if device == "cuda" else _BATCHABLE))
        if other:
            return False, f"one task at a time: on {device} that is faster, or safer, for {', '.join(other)}"
        return True, "all tasks in one pass: there are many, and the trunk is made of operations that gain by it"

    def serves(self, balancer: Balancer) -> bool:
        """Whether anything is trained where a balancer takes the tasks' gradients."""
        return balancer.at is None or bool(self.last_layer if balancer.at == "last_layer" else self.shared)

    def check(self, balancer: Balancer, name: str, precision: str = "fp32") -> None:
        """Refuse a balancer that can't work on this model.

        Args:
            balancer: it.
            name: what the message calls it.
            precision: the trainer's.

        Raises:
            SpecError: it says why, and what would work.
        """
        if len(self.model.tasks) == 1:
            return
        for task in self.model.tasks:
            if not balancer.takes_negative(task) and not getattr(self.model.loss(task), "nonnegative", True):
                loss = self.model.graph.tasks[task].loss["type"]
                raise _refused(name, f"needs losses that are never negative, and the {loss!r} of task {task!r} may be")
        if balancer.at is None:
            return
        if precision == "fp16":
            raise _refused(name, "takes the tasks' gradients, which fp16 scales. Use precision 'bf16' or 'fp32'")
        if not self.shared:
            raise _refused(
                name,
                "balances the tasks' gradients at what they share, and they share no parameter that is trained. Use "
                "'sum', or another sharing scheme",
            )
        if not self.serves(balancer):
            raise _refused(
                name, "works at the last layer that all tasks share, and there is none. Use another balancer"
            )
        if balancer.at == "features":
            self._check_features(balancer, name)

    def _check_features(self, balancer: Balancer, name: str) -> None:
        instead = "Use at = 'parameters'"
        if self.compiled:
            raise _refused(name, f"at features can't work with compile, which hides them. {instead}")
        if self._with_own():
            raise _refused(
                name,
                f"at features needs features that tasks share, and here each task has its own of the encoder "
                f"{min(self._with_own())!r}. {instead}",
            )
        border = Border(self.frontier)
        beyond = Reach.of(self.model, border).tasks
        if not any(x.requires_grad for x in border.meetings.values()):
            raise _refused(
                name, f"at features needs encoders that are trained, and all before them are frozen. {instead}"
            )
        parameters = dict(self.model.named_parameters())
        tied = [key for key, tasks in beyond.items() if tasks and len(self.reach[parameters[key]]) > 1]
        if tied:
            raise _refused(
                name,
                f"at features needs tasks that share nothing behind the features, and here {tied[0]!r} is shared by "
                f"{', '.join(self.reach[parameters[tied[0]]])}. {instead}",
            )
        if balancer.needs_matrix and not self.frontier.simple:
            raise _refused(
                name,
                "at features needs one place at which all tasks read them, and here encoders or tasks read one "
                f"another's. {instead}",
            )

    def _with_own(self) -> list[str]:
        """The encoders that several tasks share and that yet give each of them features of its own."""
        return [name for name in self.frontier.sharers if common_encoder(self.model.scheme(name)) is None]

    def border(self, at: Place | None) -> Border | None:
        """What the forward pass must keep for gradients at this place."""
        if at == "features" or (at == "parameters" and self.batched[0]):
            return Border(self.frontier) if len(self.model.tasks) > 1 else None
        return None

    def gradients(
        self, at: Place, losses: Mapping[str, Tensor], border: Border | None, retain_graph: bool = False
    ) -> Gradients:
        """The gradients of these losses; see `mtlkit.balancing.TaskGradients`.

        Args:
            at: where they are taken.
            losses: a scalar a task.
            border: what `border(at)` gave the forward pass.
            retain_graph: whether another backward pass will follow.

        Raises:
            MtlkitError: gradients at features, of a forward pass that did not keep them.
        """
        if at not in get_args(Place):
            raise MtlkitError(f"found {at!r}, expected one of the places {', '.join(get_args(Place))}")
        if at == "features" and len(self.model.tasks) > 1:
            if border is None:
                raise MtlkitError(
                    "gradients at features are there only where the balancer takes them at features too. "
                    "Take them at parameters"
                )
            return FeatureGradients.of(self.own, losses, border, retain_graph)
        if at == "last_layer":
            return at_parameters(losses, self.last_layer, {}, self.sharing, retain_graph=True)
        if border is not None and border.copies and len(losses) >= FEW_TASKS and self.batched[0]:
            return batched_at_parameters(losses, self.shared, self.own, border, retain_graph)
        return at_parameters(losses, self.shared, self.own, self.sharing, retain_graph)


def _refused(name: str, message: str) -> SpecError:
    return wrong("balancer", f"{name!r} {message}")
