"""The table: every case of the jobs asked for, printed as it grows and appended to a CSV file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaefast.bench.jobs import cases, chosen
from vaefast.bench.place import Place
from vaefast.bench.rows import append, line
from vaefast.bench.runner import run
from vaefast.bench.summary import Verdict, verdicts
from vaefast.runtime.environment import gpu, processor, versions

__all__ = ["run_cli"]


def run_cli(
    jobs: list[str],
    *,
    place: Place | None = None,
    base: str | None = None,
    out: Path | None = None,
    rounds: int | None = None,
    seconds: float = math.inf,
    say: Callable = print,
) -> int:
    """Run benchmarks, print a table as it grows, and append the rows to a CSV file.

    Args:
        jobs: names of :data:`vaefast.bench.jobs.JOBS`; empty for all that the place has.
        place: the device; default the CPU.
        base: a commit whose times of ours stand beside today's, instead of the peers'.
        out: CSV file to append to; the header is written where the file is new.
        rounds: interleaved rounds; slow cases get fewer. Default 15, on a GPU 25.
        seconds: on a GPU, after these, cases that have not begun count as failed.
        say: where the lines go.

    Returns:
        How many cases failed; on a CPU a failure is raised.
    """
    place = place or Place("cpu")
    names = chosen(jobs, place)
    if base is not None:
        from vaefast.bench.base import compare_with

        compare_with(base, names, place, rounds=rounds or 15, say=say)
        return 0
    if not place.on_cpu:
        from vaefast.bench.gpu import run_jobs

        options: dict[str, Any] = {"out": out, "seconds": seconds, "rounds": rounds or 25}
        return run_jobs(names, place, say=say, **options)
    _on_cpu(names, place, out, rounds or 15, say)
    return 0


def _on_cpu(names: list[str], place: Place, out: Path | None, rounds: int, say: Callable) -> None:
    say(f"{processor()}; GPU {gpu()}; torch {versions()['torch']}; at most {rounds} rounds")
    summary: list[Verdict] = []
    for _, build in (case for name in names for case in cases(name, place)):
        benchmark = build()
        say(f"\n{benchmark.op}  {benchmark.case}")
        rows = run(benchmark, rounds)
        for row in rows:
            say(line(row))
        summary += verdicts(benchmark, rows)
        if out is not None:
            append(out, rows)
    say("\nAgainst the best peer, the machine's limit and the memory allowed")
    for verdict in summary:
        say(str(verdict))
