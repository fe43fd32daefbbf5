"""Compile every variant of every kernel, in parallel, and say what came of it.

``python -m vaefast.kernels.proof.survey`` compiles all and keeps the results for the tests
and the table.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any, NamedTuple

from vaefast.kernels.proof import aot, results
from vaefast.kernels.proof.binary import Binary, examine

__all__ = ["Job", "compiles_with_ones", "jobs", "main", "survey"]

SLOWEST = ("net_chain", "net_trajectory", "net_potential", "decode_distance")  # begun first
EVERY = 30.0  # s between two lines of a survey's progress

Outcome = tuple[Any, Any, float]  # job, result or exception, seconds


class Job(NamedTuple):
    """One binary to build."""

    module: str
    label: str
    target: str


def main() -> int:
    """Compile all binaries; 1 where one fails."""
    wanted = [job for name in _in_order() for job in jobs(name)]
    try:
        survey(wanted, say=lambda line: print(line, flush=True))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _in_order() -> list[str]:
    return sorted(aot.modules(), key=lambda name: name not in SLOWEST)


def jobs(module: str, targets: Iterable[str] = aot.TARGETS) -> list[Job]:
    """Every variant of a module for these targets."""
    found = aot.variants_of(module).values()
    return [Job(module, v.label, t) for v in found for t in targets if t in v.targets]


def survey(
    wanted: Iterable[Job], say: Callable[[str], None] = lambda line: None
) -> dict[Job, Binary]:
    """Compile on every core what no earlier run has; a form with two names once.

    Raises:
        RuntimeError: some do not compile; a line for each.
    """
    wanted = list(wanted)
    keys = {job: results.key(job.module, variant_of(job), job.target) for job in wanted}
    unique = {keys[job]: job for job in wanted}
    known = {key: results.kept(key) for key in unique}
    todo = [job for key, job in unique.items() if known[key] is None]
    say(f"{len(known)} binaries, {len(known) - len(todo)} of them kept from earlier runs")
    for job, binary in _succeeded(_told(_on_every_core(_compile, todo), len(todo), say)):
        known[keys[job]] = binary
        results.keep(keys[job], binary)
    return {job: known[keys[job]] for job in wanted}  # type: ignore[misc] # none is missing


def compiles_with_ones(wanted: Iterable[Job]) -> None:
    """Compile forms whose integers are all 1; raises where one does not compile."""
    list(_succeeded(_on_every_core(_compile_with_ones, list(wanted))))


def _told(outcomes: Iterator[Outcome], count: int, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Pass outcomes on, with a line of progress now and then, and the slowest at the end."""
    start = last = time.monotonic()
    taken: list[tuple[float, str]] = []
    for job, found, seconds in outcomes:
        taken.append((seconds, " ".join(job)))
        if isinstance(found, Exception):
            say(f"  FAILED  {found}")
        if (now := time.monotonic()) - last > EVERY:
            say(f"  {len(taken)} of {count} in {now - start:.0f} s")
            last = now
        yield job, found, seconds
    if taken:
        say(f"{count} compiled in {time.monotonic() - start:.0f} s; the slowest:")
    for seconds, name in sorted(taken, reverse=True)[:5]:
        say(f"  {seconds:5.1f} s  {name}")


def _succeeded(outcomes: Iterator[Outcome]) -> Iterator[tuple[Any, Any]]:
    """Jobs and their results.

    Raises:
        RuntimeError: at the end, where some failed.
    """
    failures = []
    for job, found, _ in outcomes:
        if isinstance(found, Exception):
            failures.append(str(found))
        else:
            yield job, found
    if failures:
        raise RuntimeError("\n".join(failures))


def _on_every_core(compile_one: Callable, wanted: list) -> Generator[Outcome, None, None]:
    """Outcomes as they come; an assertion of the compiler ends its process, and its job alone."""
    workers = _cores()
    waiting = list(reversed(wanted))
    while waiting:
        lost = yield from _in_pool(compile_one, waiting, workers)
        for job in lost:  # one of these ended a process: each in turn, alone
            if (yield from _in_pool(compile_one, [job], 1)):
                yield job, RuntimeError(f"{_name(job)}: the compiler crashed"), 0.0


def _in_pool(compile_one: Callable, waiting: list, workers: int) -> Generator[Outcome, None, list]:
    """Take jobs off the list's end until it is empty; returns those under way at a crash."""
    running: dict[Future, tuple[Any, float]] = {}
    lost: list = []
    while waiting or running:
        while waiting and len(running) < workers and not lost:
            try:
                future = _pool(workers).submit(compile_one, waiting[-1])
            except BrokenProcessPool:  # the jobs under way say so below
                break
            running[future] = waiting.pop(), time.monotonic()
        if not running:  # it broke with nothing under way
            _pool.cache_clear()
            continue
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, start = running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                lost.append(job)
                continue
            yield job, error or future.result(), time.monotonic() - start
        if lost and not running:
            _pool.cache_clear()
            break
    return lost


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _name(job: Any) -> str:
    return " ".join(job) if isinstance(job, Job) else str(job)


def variant_of(job: Job) -> aot.Variant:
    return aot.variants_of(job.module)[job.label]


def _compile(job: Job) -> Binary:
    return _examined(variant_of(job), job)


def _compile_with_ones(job: Job) -> None:
    _examined(aot.ones(variant_of(job)), job)


def _examined(variant: aot.Variant, job: Job) -> Binary:
    try:
        return examine(aot.build(variant, job.target), job.target)
    except Exception as error:  # triton's own do not survive the way between processes
        raise RuntimeError(f"{' '.join(job)}: {type(error).__name__}: {error}") from None


if __name__ == "__main__":
    from vaefast.kernels.proof import survey as module  # whose functions other processes can import

    sys.exit(module.main())
