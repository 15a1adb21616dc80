"""The processes that train one model together: which of them this is, and what they tell one another.

    processes = Processes(accelerator, seed=0)
    processes.several                       # False in one process: nothing below is called then
    processes.sum(counts)                   # in place, over all processes
    with processes.alike():                 # torch's draws are the same in all processes here
        balancer.backward(step)

Elsewhere each process draws its own: dropout is another in each. Every method but `alike` and `own` must
be called by all processes in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from mtlkit.errors import MtlkitError

_MOST_AXES = 8
# Larger tensors are sent by themselves.
_SMALL = 65_536
_KINDS = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
_State = tuple[Tensor, Tensor | None]


class Processes:
    """The processes of a run, as Accelerate has found them.

    Args:
        accelerator: it.
        seed: where the draws begin that all processes make alike.

    Attributes:
        rank: the number of this process, from 0.
        number: how many there are.
        several: whether there are more than one.
        first: whether this is the one that writes files and shows what goes on.
    """

    def __init__(self, accelerator: Accelerator, seed: int) -> None:
        self.rank, self.number = accelerator.process_index, accelerator.num_processes
        self.device: torch.device = accelerator.device
        self.several, self.first = self.number > 1, self.rank == 0
        self._are_alike = False
        self.wish: Callable[[], bool] = lambda: False
        """Whether this process wants all of them to stop. It is asked for each batch."""
        self.wished = False
        """Whether any of them wanted it at the last batch."""
        if self.several:
            before = self._state()
            torch.manual_seed(seed)
            self._other = self._state()
            self._set(before)

    def seed(self, seed: int) -> None:
        """Begin all draws anew: those that are alike as in one process, each process's own with a seed of its own."""
        set_seed(seed)
        if self.several:
            self._other = self._state()
            set_seed((seed + 1 + self.rank) % 2**32)

    @contextmanager
    def alike(self) -> Iterator[None]:
        """All processes draw the same from torch's generator while this lasts."""
        with self._drawing(alike=True):
            yield

    @contextmanager
    def own(self) -> Iterator[None]:
        """Each process draws its own, within `alike` too."""
        with self._drawing(alike=False):
            yield

    @contextmanager
    def _drawing(self, alike: bool) -> Iterator[None]:
        if not self.several or self._are_alike == alike:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        now = self._state()
        self._set(self._other)
        self._other, self._are_alike = now, not self._are_alike

    def state_dict(self) -> dict[str, Any]:
        """The state of the draws that are not under way: torch's generator has that of the others."""
        if not self.several:
            return {}
        cpu, device = self._other
        return {"cpu": cpu, **({} if device is None else {"device": device})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if self.several:
            self._other = state["cpu"], state.get("device")

    def follow(self, drew: bool) -> None:
        """Go on alike from the state of the first process that `drew`, where not all of them did."""
        flags = torch.zeros(self.number, device=self.device)
        flags[self.rank] = drew
        there = self.sum(flags).tolist()
        if 0 < sum(there) < self.number:
            states = [None if state is None else state.to(self.device) for state in self._other]
            for state in states:
                if state is not None:
                    dist.broadcast(state, there.index(1.0))
            self._other = states[0].cpu(), None if states[1] is None else states[1].cpu()  # type: ignore[union-attr]

    def _state(self) -> _State:
        return torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    def _set(self, state: _State) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self.device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same in each to the bit, in place."""
        dist.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values on the CPU over the processes, without those that are NaN."""
        if not self.several:
            return values
        known = ~values.isnan()
        table = self.sum(torch.stack([values.nan_to_num(0.0), known.to(values)]).to(self.device)).cpu()
        return table[0] / table[1]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)))

    def gather(self, values: Tensor, group: Any = None) -> list[Tensor]:
        """The values of each process, which may differ in their number of rows.

        Args:
            values: [rows, ...]. Where there is no row, other axes and the kind of numbers may be any.
            group: taken for torchmetrics' sake.
        """
        heads = torch.full((self.number, 3 + _MOST_AXES), -1, device=self.device)
        shape = [values.numel(), _KINDS.index(values.dtype), values.ndim, *values.shape]
        heads[self.rank, : len(shape)] = torch.tensor(shape, device=self.device)
        dist.all_gather([*heads.unbind()], heads[self.rank].clone())
        known: list[list[int]] = heads.tolist()
        like = next((head for head in known if head[0]), known[0])
        kind, axes = _KINDS[like[1]], like[4 : 3 + like[2]]
        if like[2] == 0:
            scalars = [torch.zeros_like(values) for _ in known]
            dist.all_gather(scalars, values.contiguous())
            return scalars
        rows = [head[3] if head[0] else 0 for head in known]
        padded = torch.zeros(max(rows), *axes, dtype=kind, device=self.device)
        if rows[self.rank]:
            padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in known]
        dist.all_gather(parts, padded)
        return [part[:number] for part, number in zip(parts, rows, strict=True)]

    def spread(self, module: nn.Module, what: str) -> None:
        """Give all processes the parameters and buffers of the first.

        Args:
            module: whose.
            what: the message calls it.

        Raises:
            MtlkitError: the processes' modules differ in their sizes.
        """
        tensors = [*module.parameters(), *module.buffers()]
        self.agree(f"{what}: the number of values", sum(t.numel() for t in tensors))
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor.detach())
        for alike in kinds.values():
            small = [t for t in alike if t.numel() <= _SMALL]
            for some in [small] * bool(small) + [[t] for t in alike if t.numel() > _SMALL]:
                # A copy: one that sends it may hold on to it for a while, and a parameter is to be in one hand.
                sent = torch.cat([t.reshape(-1) for t in some])
                dist.broadcast(sent, 0)
                for tensor, values in zip(some, sent.split([t.numel() for t in some]), strict=True):
                    tensor.copy_(values.view(tensor.shape))

    def agree(
        self,
        what: str,
        number: int,
        remedy: str = "Give all of them the same model and data; mtlkit cuts each batch itself",
    ) -> None:
        """Raise MtlkitError in all processes if a number is not the same in each."""
        found = torch.tensor([number, -number], dtype=torch.int64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        most, least = int(found[0]), -int(found[1])
        if most != least:
            raise MtlkitError(
                f"{what} differs between the processes: found {least:,} and {most:,}, expected the same in each. "
                f"{remedy}"
            )

    def most(self, number: int) -> int:
        """The largest of a number over all processes."""
        found = torch.tensor(number, dtype=torch.int64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    def end(self) -> None:
        """Take leave of the others: nothing can be done together after it."""
        if self.several:
            dist.destroy_process_group()

    def share(self, rows: int, least: int = 1) -> slice:
        """Which of some rows are this process's; see `share`."""
        return share(rows, self.rank, self.number, least)


def share(rows: int, rank: int, number: int, least: int = 1) -> slice:
    """The slice of some rows that one of several processes takes.

    Args:
        rows: how many there are.
        rank: of the process.
        number: of processes.
        least: no slice is shorter, but for empty ones and where there are fewer rows.
    """
    slices = max(1, min(number, rows // least))
    if rank >= slices:
        return slice(rows, rows)
    return slice(rows * rank // slices, rows * (rank + 1) // slices)


def numbered(names: Iterable[str]) -> dict[str, int]:
    """The place of each name."""
    return {name: place for place, name in enumerate(names)}
