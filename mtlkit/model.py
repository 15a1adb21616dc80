"""The model that a spec describes: an ordinary `nn.Module` from inputs to {task: output}.

    out = model(x)                        # {"digit": [B, 10], "slant": [B, 1]}
    out = model(x, tasks=["slant"])       # runs only what this task needs
    model.save("m/")
    model.push_to_hub("anna/houses")     # with a model card; Model.from_pretrained("anna/houses") reads it
    model.add_task("price", {"outputs": 1})    # what was learned stays; see docs/surgery.md
    model.freeze("encoder")

Outputs are logits where the loss takes logits; `model.predict(x)` gives probabilities and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtlkit.border import Border
from mtlkit.feature import Shape
from mtlkit.freezing import freeze, unfreeze
from mtlkit.graph import Graph, owner
from mtlkit.grouping import Groups, HeadGroup, head_groups
from mtlkit.inputs import Ids, Inputs, checked
from mtlkit.naming import module_name
from mtlkit.plan import Plan, planned
from mtlkit.spec import Spec
from mtlkit.trunk import common_encoder

if TYPE_CHECKING:
    from mtlkit.adapting import Adapted

# Plans of different sets of tasks that are kept; a user who draws sets at random must not fill the memory.
_MAX_PLANS = 256


class Model(nn.Module):
    """Inputs to the outputs of tasks. Made by `build_model` or `load`.

    Attributes:
        spec: the spec with every default filled in; `build_model(model.spec)` makes the same architecture.
        graph: which encoders and tasks read one another.
        encoders: the sharing scheme of each encoder, which holds the encoder itself.
        heads, losses: one module a task.
        ids: of each input that holds ids, how many there are, which one pads, and how many a sequence may have.
        shapes: of an example of each input, of each encoder's features, of each task's output ("task:pos").
        notes: what was measured of this model, by what it was measured for; copies of the model are measured anew.
        adapted: which weights were kept, new and dropped when the model was last adapted; None for one built or loaded.
    """

    def __init__(
        self,
        spec: Spec,
        graph: Graph,
        encoders: nn.ModuleDict,
        heads: nn.ModuleDict,
        losses: nn.ModuleDict,
        ids: dict[str, Ids],
        shapes: dict[str, Shape],
    ) -> None:
        super().__init__()
        self.spec = spec
        self.graph = graph
        self.encoders = encoders
        self.heads = heads
        self.losses = losses
        self.ids = ids
        self.shapes = shapes
        self._plans: dict[tuple[tuple[str, ...] | None, bool, Groups | None], Plan] = {}
        self.notes: dict[tuple[object, ...], int] = {}
        self.adapted: Adapted | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order of the spec."""
        return tuple(self.graph.tasks)

    def forward(
        self,
        x: Inputs,
        tasks: Sequence[str] | None = None,
        border: Border | None = None,
        groups: Groups | None = None,
    ) -> dict[str, Tensor]:
        """The output of each task.

        Args:
            x: [B, *input_shape], or {input name: such a tensor}.
            tasks: run only what these need; all if left out.
            border: keeps the features at which what several tasks share ends (see `mtlkit.border`).
            groups: heads to run as one, whose outputs it keeps (see `mtlkit.grouping`); where one task of a group is
                asked for, all of its heads are run.

        Raises:
            DataError: an input is missing, unknown, or has another shape or kind of numbers than the spec declares.
        """
        plan = self._plan_for(tasks, border is not None, groups)
        return plan.run(self, checked(self.graph.inputs, x, plan.inputs), border)

    def predict(self, x: Inputs, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """What people read, by task: class probabilities, rates, values. Arguments as of `forward`."""
        return {task: self.as_prediction(task, output) for task, output in self(x, tasks).items()}

    def as_prediction(self, task: str, output: Tensor) -> Tensor:
        """The prediction of a task for its output: probabilities for logits, say."""
        predict = getattr(self.loss(task), "predict", None)
        return output if predict is None else predict(output)

    def penalty(self) -> Tensor | None:
        """What the sharing schemes add to the sum of the losses, a scalar; None where none of them adds anything.

        The trainer minimises it along; a loop of one's own is to add it.
        """
        schemes: list[Any] = [scheme for scheme in self.encoders.values() if hasattr(scheme, "penalty")]
        penalties = [penalty for scheme in schemes if (penalty := scheme.penalty()) is not None]
        return torch.stack(penalties).sum() if penalties else None

    def inputs_of(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The inputs that some tasks need."""
        return self._plan_for(tuple(tasks), bordered=False).inputs

    def scheme(self, encoder: str) -> nn.Module:
        """The sharing scheme of an encoder, by the encoder's name."""
        return self.encoders[module_name(encoder)]

    def head(self, task: str) -> nn.Module:
        """The head of a task, by the task's name."""
        return self.heads[module_name(task)]

    def loss(self, task: str) -> nn.Module:
        """The loss of a task, by the task's name."""
        return self.losses[module_name(task)]

    def head_groups(self, few: int | None = None) -> list[HeadGroup]:
        """The heads that can run as one as they are now (see `mtlkit.grouping`), `few` at least."""
        heads = {task: self.head(task) for task in self.tasks}
        held = Counter(id(p) for module in self.modules() for p in module._parameters.values() if p is not None)
        twice = {p for p, times in held.items() if times > 1}
        if twice:
            # One whose parameters are another's too can't have them among its group's.
            heads = {t: head for t, head in heads.items() if twice.isdisjoint(map(id, head.parameters()))}
        alike = {
            task.on for task in self.graph.tasks.values() if common_encoder(self.scheme(owner(task.on))) is not None
        }
        return head_groups(self.graph, heads, alike, few)

    def forget(self, groups: Groups) -> None:
        """Drop what was planned for heads that are no longer run as one."""
        self._plans = {key: plan for key, plan in self._plans.items() if key[2] is not groups}

    def add_task(self, name: str, task: Mapping[str, Any]) -> None:
        """Add a task, in place: its head, and what a sharing scheme has for it, are drawn as `build_model` draws them.

        Parameters that stay remain the same objects, so that an optimiser which has them goes on; `adapted` tells what
        was kept, new and dropped. Weights of all tasks together, such as those of `cross_stitch`, are new. During a fit
        tasks can't change.

        Args:
            name: of the task.
            task: as in a spec: {"outputs": 1, "loss": "mse"}.

        Raises:
            SpecError: there is such a task, or it can't be built; the model is as before.
        """
        from mtlkit.adapting import add_task

        add_task(self, name, task)

    def remove_task(self, name: str) -> None:
        """Remove a task, in place, as `add_task` adds one.

        Raises:
            SpecError: there is no such task, it is the only one, or an encoder reads its prediction or feeds no other
                task; the model is as before.
        """
        from mtlkit.adapting import remove_task

        remove_task(self, name)

    def rename_task(self, old: str, new: str) -> None:
        """Rename a task, in place, also where encoders read its prediction. All weights are kept.

        Raises:
            SpecError: there is no such task, or the new name is taken or can't be one; the model is as before.
            PluginError: a plugin's sharing scheme depends on more than the order of the tasks.
        """
        from mtlkit.adapting import rename_task

        rename_task(self, old, new)

    def freeze(self, *names: str) -> None:
        """Train some parts no further: their parameters require no gradient, and their batch normalisation works by the
        statistics that it has, also in training mode. What is frozen is not saved.

        Args:
            names: "encoder" for all encoders with their sharing schemes, "head" for all heads, an encoder's name, or a
                task's, for its head and what a sharing scheme holds under its name. All parts if left out.

        Raises:
            MtlkitError: a name is unknown, or that of several things; nothing is frozen then.
        """
        freeze(self, names)

    def unfreeze(self, *names: str) -> None:
        """Train some parts again; names and errors as of `freeze`."""
        unfreeze(self, names)

    def __getstate__(self) -> dict[str, Any]:
        # Plans are made anew: they hold what a fit has lent them.
        return {**self.__dict__, "_plans": {}, "notes": {}}

    def save(self, path: str | Path) -> None:
        """Write model.safetensors, spec.json and manifest.json into a folder, which `mtlkit.load` reads.

        Raises:
            CheckpointError: the folder can't be written; what was there before is left as it was.
        """
        from mtlkit.saving import save

        save(self, path)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        license: str | None = None,
        tags: Sequence[str] = (),
        data: str | None = None,
        scores: Mapping[str, Mapping[str, float]] | None = None,
        run: str | Path | None = None,
    ) -> None:
        """Write a folder as `save` does, with a model card, README.md (see `mtlkit.hub`).

        Args:
            folder: which `mtlkit.load` and `Model.from_pretrained` read.
            name: by which the card says to load it; the folder's own if left out.
            license, tags: of the model, as the Hub names them: "mit". No license is assumed.
            data: what it was trained and scored on, in Markdown.
            scores: what `Trainer.evaluate` gave.
            run: the folder that `mtlkit train` wrote, so that `mtlkit predict` works on this one too.

        Raises:
            CheckpointError: the folder can't be written, holds a run, or `run` is damaged or of another model.
            SpecError: what is said is of no use for a card, or `scores` has an unknown task.
        """
        from mtlkit.hub.card import About
        from mtlkit.hub.pretrained import save_pretrained

        save_pretrained(self, folder, About(license, tags, data, scores), name=name, run=run)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        license: str | None = None,
        tags: Sequence[str] = (),
        data: str | None = None,
        scores: Mapping[str, Mapping[str, float]] | None = None,
        run: str | Path | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub, in one commit, whose address is returned.

        Args:
            repo_id: "owner/name", or "name" of one's own; made where it does not exist.
            private: of a new repository; as the Hub has it if left out, which mostly is public.
            token: with the right to write; that of `hf auth login` or HF_TOKEN if left out.
            revision, create_pr: the branch, and whether to open a pull request instead.
            license, tags, data, scores, run: as of `save_pretrained`, with its errors. Nothing is uploaded then.

        Raises:
            CheckpointError: there is no token, it may not write there, or the Hub can't be reached.
        """
        from mtlkit.hub.card import About
        from mtlkit.hub.pretrained import push_to_hub
        from mtlkit.hub.remote import Target

        target = Target(private, token, commit_message, revision, create_pr)
        return push_to_hub(self, repo_id, About(license, tags, data, scores), target, run=run)

    @staticmethod
    def from_pretrained(
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        max_parameters: int | None = None,
    ) -> Model:
        """A model from a folder, or from a repository of the Hugging Face Hub; in evaluation mode.

        Args:
            name_or_folder: a folder that is there, else the name of a repository, "owner/name".
            revision, token, cache_dir, local_files_only, force_download: as of huggingface_hub's snapshot_download.
            max_parameters: a larger model is refused, as by `mtlkit.load`.

        Raises:
            CheckpointError: it can't be found or reached, or is refused as by `mtlkit.load`, with its other errors.
        """
        from mtlkit.hub.reading import from_pretrained
        from mtlkit.hub.remote import Source

        source = Source(revision, token, cache_dir, local_files_only, force_download)
        return from_pretrained(name_or_folder, source, max_parameters)

    def _plan_for(self, tasks: Sequence[str] | None, bordered: bool, groups: Groups | None = None) -> Plan:
        key = (None if tasks is None else tuple(tasks), bordered, groups)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = planned(self, self.tasks if key[0] is None else key[0], bordered, groups)
        return plan
