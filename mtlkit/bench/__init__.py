"""The bench: trunks compared on one dataset, each with the same budget and the same choice of its epoch.

    result = run_bench(None, Path("bench"), trunks=None, seeds=None, console=Console())
    result.summary()["cnn"].test["left"].mean

Without a file it runs `default.toml`, which lies beside this module and is the example to copy. Every trunk is trained
once for each seed; validation data choose the epoch, and test data are scored once a run. `results.json` keeps
every figure and what it came from, `bench.png` shows them.
"""

from mtlkit.bench.compare import run_bench
from mtlkit.bench.result import Result
from mtlkit.bench.run import Run

__all__ = ["Result", "Run", "run_bench"]
