"""``python -m vaefast.bench.gpu [--dry-run] [--out FILE] [--seconds S] [JOB ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vaefast.bench.gpu.job import run_jobs
from vaefast.bench.gpu.place import Place


def main() -> int:
    """1 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.gpu", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S")
    parser.add_argument("--rounds", type=int, default=25, metavar="N")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    given = parser.parse_args()
    place = Place("cpu", tiny=True) if given.dry_run else Place()
    options = {"out": given.out, "seconds": given.seconds, "rounds": given.rounds}
    try:
        return int(run_jobs(given.jobs, place, **options) > 0)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
