"""Compiles what the benchmarks run, in parallel processes that share the compilers' caches.

One process compiles on one core, and a kernel takes up to ten seconds: cold, most of a short run's
time would go there. Nothing is timed, so the processes may share the GPU.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from vaefast.bench.gpu import pairs
from vaefast.bench.jobs import JOBS, cases, chosen
from vaefast.bench.place import Place

__all__ = ["Task", "tasks", "warm", "work"]

Task = tuple[str, int, bool]  # job, number of its case, whether the compiled peers instead of ours

SLOWEST = ("net_chain", "net_trajectory")  # to compile; begun first
ASKED = JOBS[:5]  # jobs whose peers are compiled too
PEERS = "torch.compile"  # what the names of compiled peers begin with


def warm(jobs: list[str], place: Place, *, processes: int, seconds: float) -> None:
    """Call ours of every case once, then the compiled peers, until all is done or the time is up.

    What fails says so, and fails again where it is timed; a process that dies takes its case alone.

    Args:
        jobs: names of :data:`vaefast.bench.jobs.JOBS`; empty for all.
        processes: how many; each has a CUDA context of its own.
        seconds: after these, what is still at work is ended.

    Raises:
        ValueError: an unknown job, or no GPU.
    """
    names = chosen(jobs, place)
    until = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")  # CUDA survives no fork
    queue = context.Queue()
    for task in [*tasks(names, place), *[None] * processes]:
        queue.put(task)
    workers = [
        context.Process(target=_worker, args=(queue, asdict(place)), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(None if until == math.inf else max(0.0, until - time.monotonic()))
    for worker in workers:
        worker.kill()
    queue.cancel_join_thread()  # nobody may be left to read it


def tasks(names: list[str], place: Place) -> list[Task]:
    """Ours of every case, those first that compile longest; then peers, as they are asked for."""
    count = {name: len(cases(name, place)) for name in names}
    first = sorted(names, key=lambda name: name not in SLOWEST)
    ours = [(name, case, False) for name in first for case in range(count[name])]
    asked = [name for name in names if name in ASKED]
    return ours + [(name, case, True) for name in asked for case in range(count[name])]


def _say(text: str) -> None:
    """A line in one write, which no other process's lines can come into."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def work(task: Task, place: Place, say: Callable = _say) -> None:
    """One task, and how long it took or why it failed."""
    name, number, peers = task
    start = time.monotonic()
    title, build = cases(name, place)[number]
    what = f"{name}  {title}{'  compiled peers' if peers else ''}"
    try:
        benchmark = build()
        if not peers:
            pairs.prepare(benchmark)
        for provider in benchmark.providers:
            if peers and provider.startswith(PEERS):
                pairs.prepare(benchmark, provider)
        say(f"  {time.monotonic() - start:5.1f} s  {what}")
    except Exception as error:  # the next task may work
        say(f"  not warmed  {what}: {pairs.first_line(error)}")


def _worker(queue: multiprocessing.Queue, place: dict) -> None:
    """Tasks until a None."""
    sys.modules["jax"] = None  # type: ignore[assignment] # its peers start slowly and share no cache
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # the other processes have the other cores
    for task in iter(queue.get, None):
        work(task, Place(**place))
        torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
