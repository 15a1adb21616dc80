"""The bench: trunks, sharing schemes and balancers compared on one dataset, each with the same budget, honestly.

    result = run_bench(None, Path("bench"), trunks=None, seeds=None, console=Console())
    result.scores("cnn", "left")          # {0: 0.989, 1: 0.991, 2: 0.987}, by seed
    result.baseline_of("cnn")             # "cnn/single": each task alone, with the same trunk and budget

Without a file it runs `default.toml`, which lies beside this module and is the example to copy. Every variant is
trained once for each seed; validation data choose the epoch, and test data are scored once a run. Each run that ends is
kept at once, so that a bench which was cut short goes on where it was. `results.json` has every figure and what it came
from.
"""

from mtlkit.bench.bench import run_bench
from mtlkit.bench.result import Result, Run

__all__ = ["Result", "Run", "run_bench"]
