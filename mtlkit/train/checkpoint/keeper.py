"""When a run writes checkpoints, and from which it goes on.

keeper = Keeper(run, checkpoints, every=100)
with keeper:
    keeper.begin(resume=True)       # from the newest good one
    loop.after_step = keeper.after_step
    keeper.after_epoch(best=True, last=False)
"""

from __future__ import annotations

import signal
from typing import Literal

from mtlkit.errors import CheckpointError
from mtlkit.train.batches.loaders import DEAD_WORKER
from mtlkit.train.checkpoint.checkpoints import Checkpoint, Checkpoints, read
from mtlkit.train.checkpoint.signals import Signals, leave
from mtlkit.train.checkpoint.snapshot import Run

Every = int | Literal["epoch"] | None


class Keeper:
    """Writes the checkpoints of a run: every so many steps or each epoch, of the best epoch, at the end, and when a
    signal asks the run to end.

    Args:
        run: what is written.
        checkpoints: where to; None where nothing is kept.
        every: so many steps, or "epoch"; None for signals alone.
        again: how to go on after a signal, for its message.
        anew: whether checkpoints that are there are removed when the run begins.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints | None, every: Every, again: str, anew: bool = False) -> None:
        self.run, self.checkpoints, self.every, self.again, self.anew = run, checkpoints, every, again, anew
        self.signals = Signals()
        self._written: int | None = None

    def __enter__(self) -> Keeper:
        if self.checkpoints is not None:
            self.signals.__enter__()
            self.run.trainer.processes.wish = lambda: bool(self.signals.caught)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        self.signals.__exit__()
        if self.signals.caught and DEAD_WORKER in str(error):
            # A signal for all processes of a terminal ends the loader's workers too, of which the loader complains.
            self._leave()

    def begin(self, resume: bool) -> None:
        """Go on from the newest good checkpoint, if `resume`; where there is none, begin.

        Raises:
            CheckpointError: there are checkpoints that would be mixed with those of a run that begins; or the newest is
                of another run.
        """
        if self.checkpoints is None:
            return
        processes = self.run.trainer.processes
        if processes.first:
            self.checkpoints.begin()
            if self.anew:
                self.checkpoints.clear()
        if processes.several:
            processes.wait()
        if not resume:
            there = self.checkpoints.paths()
            if there:
                raise CheckpointError(
                    f"{self.checkpoints.folder}: holds checkpoints of another run, the newest {there[0].name}. Go on "
                    "with it by resume=True, or choose another out_dir"
                )
            return
        found = self._newest()
        if found is None:
            return
        if found.spec != self.run.trainer.model.spec:
            raise CheckpointError(
                f"{found.path}: is of a model of another spec. Go on with that of its spec.json, or begin anew with "
                "another out_dir"
            )
        try:
            self.run.load_state_dict(found.state, found.weights)
        except CheckpointError as error:
            raise CheckpointError(f"{found.path}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"{found.path}: can't be what this mtlkit wrote of such a run: {type(error).__name__}: {error}. "
                "Go on with the versions in its manifest.json, or begin anew with another out_dir"
            ) from error
        self._written = self.run.trainer.step

    def _newest(self) -> Checkpoint | None:
        """The newest good one, of which all processes are sure that it is the same."""
        assert self.checkpoints is not None
        processes = self.run.trainer.processes
        found = self.checkpoints.newest() if processes.first else None
        if not processes.several:
            return found
        # What the first has put aside the others do not find.
        processes.wait()
        paths = self.checkpoints.paths()
        if not processes.first and paths:
            found = read(paths[0])
        step = -1 if found is None else int(found.state["step"])
        processes.agree("the step of the newest checkpoint", step, "Give all of them an out_dir that all of them see")
        return found

    def after_step(self) -> None:
        """After each optimiser step."""
        trainer, every = self.run.trainer, self.every
        if every is not None and (trainer.stopped or (every != "epoch" and trainer.step % every == 0)):
            self._write("step")
        # All processes learn of it with the gradients of a batch, so that they leave after the same step.
        self._leave_if(trainer.processes.wished if trainer.processes.several else bool(self.signals.caught))

    def after_epoch(self, best: bool, last: bool) -> None:
        """After each epoch and its validation, but one that was stopped within, where the run would go on.

        Args:
            best: whether it is the best so far.
            last: whether it is the last.
        """
        if self.every is not None and (best or last or self.every == "epoch"):
            if best:
                self.run.best_step = self.run.trainer.step
            self._write("best" if best else "end" if last else "epoch")
        processes, caught = self.run.trainer.processes, bool(self.signals.caught)
        self._leave_if(processes.any(caught) if processes.several and self.checkpoints is not None else caught)

    def _leave_if(self, asked: bool) -> None:
        if not asked:
            return
        # It may have been another process that was told to end.
        self.signals.caught = self.signals.caught or signal.SIGTERM
        if self._written != self.run.trainer.step:
            self._write(self.signals.caught.name)
        self._leave()

    def _leave(self) -> None:
        assert self.signals.caught is not None and self.checkpoints is not None
        kept = self.checkpoints.paths()
        what = f"kept {kept[0]}. Go on with: {self.again}" if kept else "no checkpoint was written yet"
        said = f"stopped after step {self.run.trainer.step}; {what}" if self.run.trainer.processes.first else ""
        leave(self.signals.caught, said)

    def _write(self, reason: str) -> None:
        run, state = self.run, self.run.state_dict()
        assert self.checkpoints is not None
        processes = run.trainer.processes
        if processes.first:
            self.checkpoints.write(run.trainer.step, run.trainer.model, state, reason, processes.number, run.best_step)
        if processes.several:
            # None goes on before it is there.
            processes.wait()
        self._written = run.trainer.step
