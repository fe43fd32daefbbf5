"""``python -m vaefast.bench.gpu [--dry-run] [--warm] [--out FILE] [--seconds S] [JOB ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vaefast.bench.gpu.job import run_jobs
from vaefast.bench.gpu.place import Place
from vaefast.bench.gpu.warm import warm


def main() -> int:
    """1 where a case failed; what fails to warm up is told only."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.gpu", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S")
    parser.add_argument("--rounds", type=int, default=25, metavar="N")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--warm", action="store_true", help="only compile what would be timed")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="that compile")
    given = parser.parse_args()
    place = Place("cpu", tiny=True) if given.dry_run else Place()
    options = {"out": given.out, "seconds": given.seconds, "rounds": given.rounds}
    try:
        if given.warm:
            warm(given.jobs, place, processes=given.processes, seconds=given.seconds)
            return 0
        return int(run_jobs(given.jobs, place, **options) > 0)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
