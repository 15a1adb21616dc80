"""All speed benchmarks: `python -m benchmarks`, from the root; benchmarks/README.md says what they compare.

python -m benchmarks --only heads --threads 1 --quick      # a short trial of one family
python -m benchmarks --readme                              # put the newest report's short table into README.md
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.speed import report
from benchmarks.speed.measure import Row, Setting
from benchmarks.speed.section import FAMILIES, section

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES], default=[*FAMILIES], metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[*report.THREADS])
    parser.add_argument("--quick", action="store_true", help="short turns and few rounds, for a trial")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "reports")
    parser.add_argument("--readme", action="store_true", help="measure nothing; write README.md's table")
    given = parser.parse_args()
    if given.readme:
        readme = ROOT / "README.md"
        readme.write_text(report.with_short_table(readme.read_text(), report.newest(given.out)))
        return
    code, started, rows = report.code(), time.perf_counter(), list[Row]()
    for threads in given.threads:
        rows += section(given.only, Setting("cpu", threads, given.quick))
    if torch.cuda.is_available():
        rows += section(given.only, Setting("cuda", 1, given.quick))
    found = report.report(rows, code, given.quick, time.perf_counter() - started)
    paths = report.write(found, given.out)
    sys.stdout.write("".join(f"{path}\n" for path in paths))


if __name__ == "__main__":
    main()
