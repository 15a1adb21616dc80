"""Datasets: what a run file's `[data]` table may name, and the form in which each hands over its examples.

A dataset is a function of keyword-only options, registered like every other part, that returns a `Data`:

    @mtlkit.datasets.register("coins")
    def coins(*, path: str, seed: int = 0) -> Data: ...

Where it gives a `table`, it may take that of a trained run as its one positional argument, or None, and reads its own
data as that run did: `mtlkit evaluate` gives it what the run keeps, a run that begins from another what that one keeps.

Its options come from a file, so they are what TOML can say. It splits its examples itself, so that nothing
leaks from one part into another, and it says what a model needs to know of them: `inputs` and `tasks`, as
in a spec.
"""

from mtlkit.data.base import Data, Examples
from mtlkit.data.formats import Format, format_of

__all__ = ["Data", "Examples", "Format", "format_of"]
