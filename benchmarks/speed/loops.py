"""Training loops in plain torch that mtlkit's is measured beside, and the check that all compute the same.

    original       the loop as first written by hand: default Adam, indexed batches, one head after the other, `.item()`
    fused          the same with fused Adam
    best           plain torch at its best: fused Adam, data permuted once an epoch, heads and losses as one product
    loader         the usual loop over `DataLoader(TensorDataset(...), batch_size=64, shuffle=True)`
    accelerate     the same as Accelerate's documents write it

Each returns the mean loss of each task over the last epoch. `ordered` makes the loaders draw batches as mtlkit does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from benchmarks.speed import modules
from benchmarks.speed.measure import Case, Different, Side
from benchmarks.speed.problem import BATCH, MISSING_CLASS, Problem

LR = 1e-3
_CHECKED_ROWS = 10 * BATCH
_TOLERANCE = 1e-4

Loop = Callable[[nn.Module, Problem, int, bool], list[float]]
"""(model, problem, epochs, ordered) to the tasks' mean losses of the last epoch."""


@dataclass(frozen=True)
class Peer:
    """A loop, and how the module it trains is made, with the first weights of the problem's model."""

    loop: Loop
    make: Callable[[Problem], nn.Module]

    def side(self, problem: Problem) -> Side:
        def prepare(epochs: int) -> Callable[[], object]:
            model = self.make(problem)
            return lambda: self.loop(model, problem, epochs, False)

        return prepare


def compared(name: str, problem: Problem, peers: Mapping[str, Peer], targets: Mapping[str, float]) -> Case:
    """mtlkit's fit beside these loops."""
    sides: dict[str, Side] = {"mtlkit": problem.fitted}
    sides |= {peer: one.side(problem) for peer, one in peers.items()}
    return Case(
        name,
        sides,
        problem.steps,
        targets,
        check=lambda: check(problem, peers),
        once=lambda steps: problem.fitted(max_steps=steps),
        fits=("mtlkit",),
    )


def apart(problem: Problem) -> modules.Apart:
    """The problem's model as one writes it by hand."""
    encoder = dict(problem.spec["encoder"])
    kind, inputs = encoder.pop("type"), problem.spec["input"][0]
    theirs = problem.model.scheme("encoder").trunk
    trunk = {
        "linear": lambda: modules.linear(inputs, encoder["features"]),
        "mlp": lambda: modules.mlp(inputs, *encoder["hidden"]),
        "cnn": lambda: modules.cnn(inputs, *encoder["channels"]),
        "timm": lambda: modules.timm(inputs, encoder["model"]),
    }[kind]()
    _copy(theirs, trunk)
    heads: list[nn.Module] = []
    for task in problem.model.tasks:
        head = problem.model.head(task)
        layers = [nn.Linear(one.in_features, one.out_features) for one in head.modules() if isinstance(one, nn.Linear)]
        heads.append(layers[0] if len(layers) == 1 else nn.Sequential(layers[0], nn.ReLU(), layers[1]))
        _copy(head, heads[-1])
    return modules.Apart(trunk, heads).to(problem.device)


def joined(problem: Problem) -> modules.Joined:
    """The same with all heads as one."""
    return modules.Joined(apart(problem)).to(problem.device)


def original(model: nn.Module, problem: Problem, epochs: int, ordered: bool) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    return _trained(model, problem, epochs, optimizer, _Indexed(problem))


def fused(model: nn.Module, problem: Problem, epochs: int, ordered: bool) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    return _trained(model, problem, epochs, optimizer, _Indexed(problem))


def best(model: nn.Module, problem: Problem, epochs: int, ordered: bool) -> list[float]:
    """For a model `Joined`."""
    order = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    labels = [*problem.y.values()]
    classes = labels[0].ndim == 1
    y = torch.stack(labels, 1) if classes else torch.cat(labels, 1)  # [N, tasks or sum of outputs]
    keep = None
    if problem.missing:
        keep = (y != MISSING_CLASS if classes else ~y.isnan()).float()
        y = y if classes else y.nan_to_num()
    loss = _joined_losses(problem, [1] * len(labels) if classes else [len(one[0]) for one in labels])
    sums = torch.zeros(len(labels), device=problem.device)
    model.train()
    for _ in range(epochs):
        rows = torch.randperm(problem.rows, generator=order).to(problem.device)
        xs, ys = problem.x[rows].split(BATCH), y[rows].split(BATCH)
        keeps = [None] * len(xs) if keep is None else keep[rows].split(BATCH)
        sums = torch.zeros(len(labels), device=problem.device)
        for x, target, kept in zip(xs, ys, keeps, strict=True):
            found = loss(model.together(x), target, kept)
            found.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            sums += found.detach()
    return (sums / problem.steps).tolist()


def loader(model: nn.Module, problem: Problem, epochs: int, ordered: bool) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    return _trained(model, problem, epochs, optimizer, _loaded(problem, ordered))


def accelerate(model: nn.Module, problem: Problem, epochs: int, ordered: bool) -> list[float]:
    accelerator, optimizer = Accelerator(), torch.optim.Adam(model.parameters(), lr=LR)
    model, optimizer, batches = accelerator.prepare(model, optimizer, _loaded(problem, ordered))
    return _trained(model, problem, epochs, optimizer, batches, accelerator.backward)


def _trained(
    model: nn.Module,
    problem: Problem,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Sequence[Tensor]],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> list[float]:
    """The loop that everybody writes, over batches (x, labels of each task)."""
    losses = hand_losses(problem)
    sums = [0.0] * len(losses)
    model.train()
    for _ in range(epochs):
        sums = [0.0] * len(losses)
        for x, *targets in batches:
            outputs = model(x)
            found = [loss(out, y) for loss, out, y in zip(losses, outputs, targets, strict=True)]
            optimizer.zero_grad()
            backward(sum(found))
            optimizer.step()
            for i, one in enumerate(found):
                sums[i] += one.item()
    return [one / problem.steps for one in sums]


class _Indexed:
    """Batches cut by the indices of a permutation."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.order = problem, torch.Generator().manual_seed(0)

    def __iter__(self) -> Iterator[list[Tensor]]:
        x, targets = self.problem.x, [*self.problem.y.values()]
        for rows in torch.randperm(len(x), generator=self.order).to(x.device).split(BATCH):
            yield [x[rows], *(y[rows] for y in targets)]


def images_last(problem: Problem) -> modules.Apart:
    """`apart` with its maps' channels as the last axis in memory, where CPUs and GPUs are faster."""
    return apart(problem).to(memory_format=torch.channels_last)


ORIGINAL, LOADER, ACCELERATE = Peer(original, apart), Peer(loader, apart), Peer(accelerate, apart)
BEST, IMAGES_BEST = Peer(best, joined), Peer(fused, images_last)


def _loaded(problem: Problem, ordered: bool) -> DataLoader[tuple[Tensor, ...]]:
    data = TensorDataset(problem.x, *problem.y.values())
    if not ordered:
        return DataLoader(data, batch_size=BATCH, shuffle=True)
    # `shuffle` makes the same sampler, with a generator that is seeded anew each epoch.
    return DataLoader(data, batch_size=BATCH, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(0)))


def hand_losses(problem: Problem) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """A loss for each task, with masks only where labels are missing."""
    plain = {"mse": F.mse_loss, "bce": F.binary_cross_entropy_with_logits, "cross_entropy": F.cross_entropy}
    made = []
    for name in problem.losses.values():
        # Cross-entropy leaves out -100 by itself.
        mask = problem.missing and name != "cross_entropy"
        made.append(_masked(plain[name]) if mask else plain[name])
    return made


def _masked(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def masked(output: Tensor, target: Tensor) -> Tensor:
        keep = ~target.isnan()
        return loss(output[keep], target[keep])

    return masked


def _joined_losses(problem: Problem, widths: list[int]) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """(outputs, labels, which of them are known) of all tasks side by side to the loss of each, [T]."""
    (name,) = {*problem.losses.values()}
    tasks, even = len(widths), len({*widths}) == 1
    owner = torch.arange(tasks).repeat_interleave(torch.tensor(widths)).to(problem.device)
    columns = torch.tensor(widths, device=problem.device)

    def by_task(values: Tensor) -> Tensor:
        """[B, sum of widths] to sums [T]."""
        if even:
            return values.unflatten(1, (tasks, -1)).sum((0, 2))
        return values.new_zeros(tasks).index_add(0, owner, values.sum(0))

    def each(outputs: Tensor, labels: Tensor) -> Tensor:
        if name == "mse":
            return (outputs - labels).square()
        if name == "bce":
            return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
        logits = outputs.unflatten(1, (tasks, -1)).flatten(0, 1)  # [B * T, classes]
        return F.cross_entropy(logits, labels.flatten(), reduction="none").view_as(labels)

    def losses(outputs: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        found = each(outputs, labels)
        if known is None:
            return by_task(found) / (columns * len(found))
        return by_task(found * known) / by_task(known)

    return losses


def check(problem: Problem, peers: Mapping[str, Peer]) -> None:
    """Train each from the same weights on the same batches, and compare every task's loss.

    Raises:
        Different: two differ by more than a ten-thousandth of the loss, or nothing was learnt.
    """
    small = problem.cut(min(problem.rows, _CHECKED_ROWS))
    model, history = small.fitted(epochs=1)()
    told = torch.tensor([history.epochs[0]["train"][task]["loss"] for task in model.tasks])
    wanted = final_losses(lambda x: [*model(x).values()], model, small)
    untrained = apart(small)
    if torch.allclose(final_losses(untrained, untrained, small), wanted, rtol=_TOLERANCE, atol=0):
        raise Different(f"mtlkit's losses are within {_TOLERANCE:g} of the untrained model's; expected it to learn")
    for name, peer in peers.items():
        plain = peer.make(small)
        means = torch.tensor(peer.loop(plain, small, 1, True))
        found = final_losses(plain, plain, small)
        compare(f"{name}, after an epoch", found, wanted)
        if not problem.missing:
            # With missing labels a mean of batches' means is another number than that of all labels.
            compare(f"{name}, over an epoch", means, told)


def compare(what: str, found: Tensor, wanted: Tensor, scale: float = 0.0) -> None:
    """Compare values, those below `scale` by parts of it: what is near zero differs by much of itself.

    Raises:
        Different: they differ by more than rounding.
    """
    worst = float(((found - wanted).abs() / wanted.abs().clamp(min=scale)).max())
    if not worst <= _TOLERANCE:
        raise Different(f"{what}: values differ from mtlkit's by {worst:.1e} of them; expected at most {_TOLERANCE:g}")


def final_losses(run: Callable[[Tensor], list[Tensor]], model: nn.Module, problem: Problem) -> Tensor:
    """The loss of each task over all rows, [T]."""
    model.eval()
    with torch.no_grad():
        outputs = run(problem.x)
        each = zip(hand_losses(problem), outputs, problem.y.values(), strict=True)
        return torch.stack([loss(out, y) for loss, out, y in each]).cpu()


def _copy(theirs: nn.Module, mine: nn.Module) -> None:
    """Give one module the parameters and buffers of another with the same layers."""
    with torch.no_grad():
        for mine_values, their_values in (
            (mine.parameters(), theirs.parameters()),
            (mine.buffers(), theirs.buffers()),
        ):
            for one, other in zip(mine_values, their_values, strict=True):
                one.copy_(other)
