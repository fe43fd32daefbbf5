"""``python -m vaefast.bench [--device cuda | --dry-run] [--out FILE] [--seconds S] [JOB ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vaefast.bench.gpu.warm import warm
from vaefast.bench.place import Place
from vaefast.bench.table import run_cli


def main() -> int:
    """1 where a case failed; what fails to warm up is told only."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dry-run", action="store_true", help="the GPU's, tiny, on the CPU")
    parser.add_argument("--base", metavar="COMMIT", help="compare ours with those of a commit")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--warm", action="store_true", help="only compile what would be timed")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="that compile")
    given = parser.parse_args()
    place = Place("cpu", tiny=True) if given.dry_run else Place(given.device)
    try:
        if given.warm:
            warm(given.jobs, place, processes=given.processes, seconds=given.seconds)
            return 0
        options = {"out": given.out, "seconds": given.seconds, "rounds": given.rounds}
        return int(run_cli(given.jobs, place=place, base=given.base, **options) > 0)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
