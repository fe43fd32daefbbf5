"""The table: every declared benchmark, printed as it grows and appended to a CSV file."""

from __future__ import annotations

import csv
import importlib
import math
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import torch

from vaefast.bench.runner import Benchmark, Result, run
from vaefast.bench.summary import Verdict, verdicts
from vaefast.runtime import backends
from vaefast.runtime.environment import gpu, processor, versions

__all__ = ["append", "benchmarks", "line", "run_cli"]

BESIDES = ("hmc_defence",)  # whole jobs, not ops: modules of vaefast.bench


def benchmarks(ops: Iterable[str] = ()) -> Iterator[Benchmark]:
    """The declared benchmarks of the named ops and jobs, or of all."""
    known = (*backends.ops(), *BESIDES)
    for name in ops or known:
        if name not in known:
            raise ValueError(f"op must be one of {', '.join(known)}, got {name!r}")
        folder = "vaefast.bench" if name in BESIDES else "vaefast.bench.ops"
        yield from importlib.import_module(f"{folder}.{name}").benchmarks()


def run_cli(
    ops: list[str], *, out: Path | None = None, rounds: int = 15, say: Callable = print
) -> list[Result]:
    """Run benchmarks, print a table as it grows, and append the rows to a CSV file.

    Args:
        ops: names of ops, or ``hmc_defence``; empty for all.
        out: CSV file to append to; the header is written where the file is new.
        rounds: interleaved rounds; slow cases get fewer, at least 5.
        say: where the lines go.
    """
    say(f"{processor()}; GPU {gpu()}; torch {versions()['torch']}; at most {rounds} rounds")
    results: list[Result] = []
    summary: list[Verdict] = []
    for benchmark in benchmarks(ops):
        say(f"\n{benchmark.op}  {benchmark.case}")
        rows = run(benchmark, rounds)
        for row in rows:
            say(line(row))
        results += rows
        summary += verdicts(benchmark, rows)
        if out is not None:
            append(out, rows)
    say("\nAgainst the best peer, the machine's limit and the memory allowed")
    for verdict in summary:
        say(str(verdict))
    return results


def line(row: Result) -> str:
    limit = (
        "" if math.isnan(row.percent_of_ceiling) else f"{row.percent_of_ceiling:5.0f} % of limit"
    )
    return (
        f"  {row.provider:28} {row.median_us:10.1f} us  [{row.low_us:.1f}, {row.high_us:.1f}]"
        f"  {row.gb_per_s:7.1f} GB/s {row.gflop_per_s:8.1f} GFLOP/s"
        f"  {row.times_ours:6.2f} x ours  {limit}"
    )


def append(path: Path, rows: list[Result]) -> None:
    """Write rows with the machine, versions and commit to a CSV file, old or new."""
    where = {
        "device": gpu() if rows[0].case.endswith("cuda") else processor(),
        "threads": torch.get_num_threads(),
        **versions(),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(rows[0]), *where])
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), **where})


@cache
def _commit() -> str:
    """``VAEFAST_COMMIT`` names that of a copy that is no checkout."""
    if named := os.environ.get("VAEFAST_COMMIT"):
        return named
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
