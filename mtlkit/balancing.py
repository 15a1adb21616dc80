"""What balancers are: they turn the losses of the tasks into gradients.

A balancer is a factory that takes `(tasks, *, options)` and gives an object with `backward(step)`, which leaves in each
parameter's `.grad` what the optimiser will follow. It usually derives from one of

    LossBalancer         combine(losses [k], tasks) -> the scalar to minimise
    GramianBalancer      weigh(gramian [k, k], tasks) -> the weights [k] of the tasks' gradients
    MatrixBalancer       aggregate(matrix [k, n], tasks) -> the gradient [n]

    @mtlkit.balancers.register("softmax_weights")
    class SoftmaxWeights(LossBalancer):
        def combine(self, losses, tasks):
            return (losses.detach().softmax(0) * losses).sum()

`tasks` are those with a label in the batch, in the order of the rows; the others don't take part in the step. State
that belongs to a task, a weight say, is kept by task: `self.rows(tasks)` are the indices of the present ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from mtlkit.errors import PluginError

At = Literal["parameters", "features"]
Place = Literal["parameters", "features", "last_layer"]


class TaskGradients(Protocol):
    """The gradients of some tasks where the model is shared, one row a task."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the rows: those of the step that share something."""

    @property
    def matrix(self) -> Tensor:
        """The rows [k, n]. Raises an error that names the tasks whose row is NaN or infinite."""

    @property
    def gramian(self) -> Tensor:
        """The inner products of the rows [k, k] in float64. Raises as `matrix` does."""

    def combine(self, weights: Tensor) -> None:
        """Leave in `.grad` the rows' sum under these weights [k]; what one task has alone gets its own gradient."""

    def place(self, gradient: Tensor) -> None:
        """Leave in `.grad` this gradient [n] of what is shared; what one task has alone gets its own gradient."""


class Step(Protocol):
    """One batch, after the forward pass: what a balancer works on."""

    @property
    def losses(self) -> Mapping[str, Tensor]:
        """The weighted loss, a scalar, of each task that has a label in the batch."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar to `.grad`."""

    def gradients(self, at: Place) -> TaskGradients:
        """The tasks' gradients at all shared parameters, at the shared features, or at the last shared layer."""


def stacked(losses: Mapping[str, Tensor]) -> Tensor:
    """The losses as a vector [k]. Those of a group of tasks are one already, which is faster than to take it apart."""
    known: Tensor | None = getattr(losses, "stacked", None)
    return torch.stack([*losses.values()]) if known is None else known


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses, a scalar."""
    known: Tensor | None = getattr(losses, "total", None)
    if known is not None:
        return known
    first, *others = losses.values()
    return sum(others, first)


class Balancer(nn.Module):
    """How the losses of the tasks become gradients. Its parameters, if any, are trained by the trainer's optimiser.

    Attributes:
        tasks: all tasks of the model, in the order of the spec.
        weights: the weight of each task of the last step, where the method has such; for those who watch.
    """

    at: Place | None = None
    """Where it takes the tasks' gradients; None for one that works on the losses alone."""

    joint: ClassVar[bool] = True
    """Whether it compares the tasks of one batch, so that batches of one task each leave it nothing to do."""

    symmetric: ClassVar[bool] = True
    """Whether the order of the tasks is of no consequence."""

    nonnegative: bool = False
    """Whether it needs losses that are never negative."""

    losses_alone: ClassVar[bool] = False
    """Whether its `backward` takes no gradient but that of one scalar of the losses. Heads may then be trained as one,
    whose parameters have no gradients of their own. A class that overrides `backward` says it anew."""

    fixed: ClassVar[bool] = False
    """Whether its `backward` is that of a sum of the losses under weights that depend neither on them nor on draws.
    It then need not wait for the losses of other processes. A class that overrides `backward` or `combine` says it
    anew."""

    needs_matrix: ClassVar[bool] = False
    """Whether it needs the rows themselves, not only their inner products."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        # In a list, since torch takes long to set an attribute of a module.
        self._weights: list[tuple[tuple[str, ...], Tensor | tuple[Tensor, ...]]] = [((), ())]
        self._row = {task: row for row, task in enumerate(self.tasks)}

    @property
    def weights(self) -> dict[str, Tensor]:
        tasks, values = self._weights[0]
        return dict(zip(tasks, values, strict=True))

    @weights.setter
    def weights(self, weights: Mapping[str, Tensor]) -> None:
        self._weights[0] = tuple(weights), tuple(weights.values())

    def _weighed(self, tasks: tuple[str, ...], weights: Tensor | tuple[Tensor, ...]) -> None:
        """Keep the weights of a step [k], which are taken apart when somebody looks."""
        self._weights[0] = tasks, weights

    def backward(self, step: Step) -> None:
        """Leave the gradients of one batch in `.grad`."""
        raise NotImplementedError

    def takes_negative(self, task: str) -> bool:
        """Whether the loss of a task may be negative."""
        return not self.nonnegative

    def after_step(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """Called after each optimiser step.

        Args:
            losses: computes the weighted losses of the step's last batch anew, {task: scalar}, without gradients.
        """

    def end_epoch(self) -> None:
        """Called after the last batch of each epoch."""

    def rows(self, tasks: Sequence[str]) -> Tensor:
        """The indices of some tasks among all."""
        return torch.tensor([self._row[task] for task in tasks])

    def by_task(self, values: Mapping[str, float] | None, name: str, default: float) -> Tensor:
        """An option `{task: number}` as a vector over all tasks.

        Raises:
            ValueError: it names a task that is none.
        """
        values = values or {}
        unknown = [task for task in values if task not in self.tasks]
        if unknown:
            raise ValueError(f"{name} names {unknown[0]!r}, which is no task. Tasks: {', '.join(self.tasks)}")
        return torch.tensor([float(values.get(task, default)) for task in self.tasks])


class LossBalancer(Balancer):
    """Combines the losses into one, whose gradient is that of every parameter."""

    losses_alone = True

    def backward(self, step: Step) -> None:
        tasks = tuple(step.losses)
        if len(self.tasks) == 1:
            # One task alone has nothing to be balanced with: it is trained as without a balancer.
            step.backward(step.losses[tasks[0]])
            self.weights = {tasks[0]: torch.ones(())}
            return
        losses = stacked(step.losses)
        self.weights = {}
        if not losses.requires_grad:
            # All that these tasks reach is frozen.
            return
        losses.retain_grad()
        combined = self.combine(losses, tasks)
        if _shape(combined) != [] or not combined.requires_grad:
            found = f"{_shape(combined)}{' without a gradient' if _shape(combined) == [] else ''}"
            raise PluginError(
                f"balancer {type(self).__name__} combined the losses into {found}, expected a scalar to minimise"
            )
        step.backward(combined)
        if losses.grad is None:
            raise PluginError(f"balancer {type(self).__name__} combined the losses into what does not depend on them")
        self._weighed(tasks, losses.grad)

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """The scalar to minimise.

        Args:
            losses: [k], of the tasks that have a label in this batch.
            tasks: their names.
        """
        raise NotImplementedError


class GradientBalancer(Balancer):
    """Combines the tasks' gradients where they share the model.

    `at="parameters"` takes them at all parameters that several tasks share, as the papers do; `at="features"` at the
    features that the shared encoders make: one backward pass through the trunk, however many tasks there are.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters") -> None:
        super().__init__(tasks)
        self.at: Place = at

    def backward(self, step: Step) -> None:
        gradients = step.gradients(self.at)
        if len(gradients.tasks) < 2:
            # Where one task has labels there is nothing to balance.
            self._combine(gradients, torch.ones(len(gradients.tasks)))
        else:
            self.weights = {}
            self.balance(gradients)

    def balance(self, gradients: TaskGradients) -> None:
        """Leave the balanced gradient of two or more tasks in `.grad`."""
        raise NotImplementedError

    def _combine(self, gradients: TaskGradients, weights: Tensor) -> None:
        """Leave the rows' sum under these weights [k] in `.grad`."""
        if _shape(weights) != [len(gradients.tasks)]:
            raise PluginError(
                f"balancer {type(self).__name__} gave weights {_shape(weights)} for the tasks "
                f"{', '.join(gradients.tasks)}, expected [{len(gradients.tasks)}]: one for each task of the step"
            )
        weights = weights.detach()
        self._weighed(gradients.tasks, weights)
        gradients.combine(weights)


class GramianBalancer(GradientBalancer):
    """Weighs the tasks' gradients by what their inner products say."""

    scale_free: ClassVar[bool] = True
    """Whether the weights are the same for gradients of any common scale. The Gramian then comes with trace 1, since
    solvers take what is below some absolute tolerance for zero, as gradients at features often are."""

    def balance(self, gradients: TaskGradients) -> None:
        gramian = gradients.gramian
        trace = gramian.trace()
        if trace == 0:
            weights = torch.ones_like(gramian[0])
        else:
            weights = self.weigh(gramian / trace if self.scale_free else gramian, gradients.tasks)
        self._combine(gradients, weights)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """The weight of each task's gradient, [k].

        Args:
            gramian: [k, k] in float64, the inner products of the tasks' gradients.
            tasks: their names.
        """
        raise NotImplementedError


class MatrixBalancer(GradientBalancer):
    """Makes a gradient of the tasks' gradients, coordinate by coordinate. It must scale as its input does."""

    needs_matrix = True

    def balance(self, gradients: TaskGradients) -> None:
        matrix = gradients.matrix
        # Squares of very large or small values leave what a float can hold.
        largest = matrix.abs().amax()
        scale = torch.where(largest > 0, largest, torch.ones_like(largest))
        gradient = self.aggregate(matrix / scale, gradients.tasks)
        if _shape(gradient) != list(matrix.shape[1:]):
            raise PluginError(
                f"balancer {type(self).__name__} gave a gradient {_shape(gradient)} for rows {list(matrix.shape)}, "
                f"expected {list(matrix.shape[1:])}"
            )
        gradients.place(gradient.detach() * scale)

    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """The gradient [n].

        Args:
            matrix: [k, n], the tasks' gradients divided by their largest absolute value.
            tasks: their names.
        """
        raise NotImplementedError


def _shape(found: object) -> list[int] | str:
    """The shape of a tensor, as a message shows it; of anything else its type."""
    return list(found.shape) if isinstance(found, Tensor) else type(found).__name__


class NonFiniteGradients(ArithmeticError):
    """Gradients that are NaN or infinite, by task."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self.values = dict(values)
        super().__init__(f"the gradients of {', '.join(self.values)} are not finite")
