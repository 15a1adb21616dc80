"""What it takes to begin: `python -m benchmarks.startup`, from the root, prints milliseconds as Markdown.

Each is the median of fresh processes that take turns; "import mtlkit" is what it adds to `import torch`, from the clock
within the process. Models are built in one process, the first of which pays for what is imported when it is needed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

ROUNDS = 5
_IMPORT = """
import time
import torch
begun = time.perf_counter()
import mtlkit
print((time.perf_counter() - begun) * 1e3)
"""
_BUILD = """
import time
import mtlkit
mtlkit.build_model()
for tasks in (10, 100, 1_000, 10_000):
    named = {f"t{i}": {"outputs": 3} for i in range(tasks)}
    begun = time.perf_counter()
    mtlkit.build_model({"input": [10], "encoder": {"type": "linear", "features": 20}, "tasks": named})
    print((time.perf_counter() - begun) * 1e3)
"""
_COMMANDS = {"mtlkit --help, ms": ["--help"], "mtlkit plugins, ms": ["plugins"]}


def figures() -> dict[str, float]:
    """Milliseconds by what they are of."""
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, arguments in _COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-m", "mtlkit", *arguments], check=True, capture_output=True)
            found.setdefault(name, []).append((time.perf_counter() - begun) * 1e3)
        found.setdefault("import mtlkit after torch, ms", []).extend(_printed(_IMPORT))
        for tasks, value in zip(("10", "100", "1,000", "10,000"), _printed(_BUILD), strict=True):
            found.setdefault(f"build_model of {tasks} tasks, ms", []).append(value)
    return {name: round(median(values), 1) for name, values in found.items()}


def _printed(program: str) -> list[float]:
    """The numbers that a program prints in a process of its own."""
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return [float(line) for line in run.stdout.split()]


def main() -> None:
    lines = ["| what | ms |", "|---|---:|"]
    lines += [f"| {name.removesuffix(', ms')} | {value:,.1f} |" for name, value in figures().items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
