"""Compile every variant of every kernel, in parallel, and say what came of it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import NamedTuple, TypeVar

from vaefast.kernels import aot
from vaefast.kernels.binary import Binary, examine

__all__ = ["Job", "compiles_with_ones", "jobs", "survey"]

T = TypeVar("T")


class Job(NamedTuple):
    """One binary to build."""

    module: str
    label: str
    target: str


def jobs(module: str, targets: Iterable[str] = aot.TARGETS) -> list[Job]:
    """Every variant of a module for these targets."""
    found = aot.variants_of(module).values()
    return [Job(module, v.label, t) for v in found for t in targets if t in v.targets]


def survey(wanted: Iterable[Job]) -> dict[Job, Binary]:
    """Compile on every core; triton keeps the binaries, so that a second time costs little."""
    wanted = list(wanted)
    return dict(zip(wanted, _on_every_core(_compile, wanted)))


def compiles_with_ones(wanted: Iterable[Job]) -> None:
    """Compile forms whose integers are all 1; raises where one does not compile."""
    _on_every_core(_compile_with_ones, list(wanted))


def _on_every_core(compile_one: Callable[[Job], T], wanted: list[Job]) -> list[T]:
    try:
        return list(_pool().map(compile_one, wanted))
    except BrokenProcessPool:  # an assertion of the compiler ends its process
        _pool.cache_clear()
        names = "\n".join(" ".join(job) for job in wanted)
        raise RuntimeError(f"the compiler crashed on one of these:\n{names}") from None


@cache
def _pool() -> ProcessPoolExecutor:
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def _compile(job: Job) -> Binary:
    return _examined(aot.variants_of(job.module)[job.label], job)


def _compile_with_ones(job: Job) -> None:
    _examined(aot.ones(aot.variants_of(job.module)[job.label]), job)


def _examined(variant: aot.Variant, job: Job) -> Binary:
    try:
        return examine(aot.build(variant, job.target), job.target)
    except Exception as error:  # triton's own do not survive the way between processes
        raise RuntimeError(f"{' '.join(job)}: {type(error).__name__}: {error}") from None
