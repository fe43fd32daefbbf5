"""All GPU benchmarks of a run: within a time, written row by row, failures told at the end."""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from vaefast.bench import jobs as listed
from vaefast.bench.gpu import pairs
from vaefast.bench.gpu.ceilings import ceilings
from vaefast.bench.ops import _jax as jx
from vaefast.bench.place import Place
from vaefast.bench.rows import append, line
from vaefast.bench.runner import Benchmark, Result
from vaefast.bench.summary import verdicts
from vaefast.runtime.environment import gpu, processor, versions

__all__ = ["run_jobs"]

ASKED_OF = "H200"  # whose name the times and factors asked for go with


def run_jobs(
    jobs: Iterable[str] = (),
    place: Place | None = None,
    *,
    out: Path | None = None,
    seconds: float = math.inf,
    rounds: int = 25,
    say: Callable = print,
) -> int:
    """Run benchmarks; how many cases failed.

    Args:
        jobs: names of :data:`vaefast.bench.jobs.JOBS`; empty for all.
        place: the device; default the GPU.
        out: CSV file to append to.
        seconds: after these, cases that have not begun are left out, and count as failed.
        rounds: most rounds of a pair.
        say: where the lines go.

    Raises:
        ValueError: an unknown job, or no GPU.
    """
    place = place or Place()
    names = listed.chosen(list(jobs), place)
    until = time.monotonic() + seconds
    machine = gpu() if place.device == "cuda" else "dry run, " + processor()
    say(f"{machine}; torch {versions()['torch']}, triton {versions()['triton']}")
    rates = {}
    for name, rate, row in ceilings(place):
        rates[name] = rate
        _write(row, out, say)
    run = _Run(place, rates, out, until, rounds, say)
    if reason := jx.missing(gpu=place.device == "cuda"):
        say(text := f"  left out  JAX everywhere: {reason}")
        run.summary.append(text)
    if ASKED_OF not in machine:
        run.device = f"  on {machine}"
    try:
        for position, name in enumerate(names):
            run.job(name, len(names) - position)
    finally:  # also when it is interrupted
        say(f"\nAgainst the best peer, the ceiling and the time, as asked of one {ASKED_OF}")
        for text in run.summary:
            say(text)
    return run.failures


class _Run:
    """What the cases of a run share, and what came of them."""

    def __init__(
        self,
        place: Place,
        rates: dict[str, float],
        out: Path | None,
        until: float,
        rounds: int,
        say: Callable,
    ) -> None:
        self.place, self.rates, self.out, self.until = place, rates, out, until
        self.rounds, self.say = rounds, say
        self.device = ""  # named beside verdicts where it is not the one they are asked of
        self.summary: list[str] = []
        self.failures = 0

    def job(self, name: str, left: int) -> None:
        """One op's cases, in its share of the time that is left."""
        share = time.monotonic() + (self.until - time.monotonic()) / left
        try:
            cases = listed.cases(name, self.place)
        except Exception as error:
            return self._fail(name, "", error)
        for position, (title, build) in enumerate(cases):
            if time.monotonic() > self.until:
                self.failures += 1
                self.summary.append(f"  FAILED  {name}  {title}:  the time is up")
                continue
            try:
                self._case(build, share, len(cases) - position)
            except Exception as error:  # the next case may work
                self._fail(name, title, error)
            self._clean()
        return None

    def _case(self, build: Callable[[], Benchmark], until: float, left: int) -> None:
        benchmark = build()
        self.say(f"\n{benchmark.op}  {benchmark.case}")
        rows: list[Result] = []
        options = {"until": until, "cases": left, "rounds": self.rounds, "say": self.say}
        for row in pairs.run(benchmark, self.place, self.rates, **options):
            rows.append(row)
            _write(row, self.out, self.say)
        if benchmark.remark is not None:
            self.say(text := f"  {benchmark.remark()}")
            self.summary.append(text)
        if not self.place.tiny:  # whose figures mean nothing
            self.summary += [f"{verdict}{self.device}" for verdict in verdicts(benchmark, rows)]

    def _fail(self, name: str, title: str, error: Exception) -> None:
        self.failures += 1
        self.say("".join(traceback.format_exception(error)))
        self.summary.append(f"  FAILED  {name}  {title}:  {pairs.first_line(error)}")

    def _clean(self) -> None:
        gc.collect()
        if self.place.device == "cuda":
            torch.cuda.empty_cache()


def _write(row: Result, out: Path | None, say: Callable) -> None:
    say(line(row))
    if out is not None:
        append(out, [row])
