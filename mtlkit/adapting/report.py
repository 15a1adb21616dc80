"""What became of the weights of a model that was adapted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# As many names as a person reads; the report itself has all.
_LISTED = 20


@dataclass(frozen=True)
class Adapted:
    """Names of parameters and buffers, as in a `state_dict`.

    Attributes:
        kept: of the new model, with the values that the old one had.
        new: of the new model, drawn as `build_model` draws them.
        dropped: of the old model. A name is also among the new ones where it stands for something else now.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"kept: {len(self.kept)}", _line("new", self.new), _line("dropped", self.dropped)])


def _line(what: str, names: Sequence[str]) -> str:
    more = [f"and {len(names) - _LISTED:,} more"] if len(names) > _LISTED else []
    listed = ", ".join([*names[:_LISTED], *more])
    return f"{what}: {len(names)} ({listed})" if names else f"{what}: 0"
