"""The engine of one machine: this process, or several, under one driver's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vaefast.jobs.fingerprint import levels, torch_level
from vaefast.jobs.leases import TTL, Leases
from vaefast.jobs.pool import Pool
from vaefast.jobs.worker import Done, Worker
from vaefast.runtime import threads

if TYPE_CHECKING:
    from vaefast.jobs.run import Run

__all__ = ["driving", "take", "work"]

DRIVER = "driver"
TORCH_LEVELS = ("DEFAULT", "AVX2")  # that every processor above them can be pinned to
PAUSE = 0.2  # s between two looks at shards that others hold

Tell = Callable[[Done], None]


@contextmanager
def driving(run: Run, ttl: float = TTL) -> Iterator[None]:
    """The only driver of a run inside.

    Raises:
        RuntimeError: another process is; who it is, until when, and what to do.
    """
    leases = Leases(run.places.leases, ttl)
    if not leases.claim(DRIVER):
        holder = leases.holder(DRIVER)
        left = max(0.0, (holder.expires if holder else 0.0) - time.time())
        raise RuntimeError(
            f"{run.folder} has a driver, {holder}; wait for it, end it, or, if it is dead, come "
            f"back when its lock expires in {left:.0f} s (workers beside it: vaefast jobs work)"
        )
    try:
        yield
    finally:
        leases.close()


def work(
    run: Run,
    *,
    workers: int | None,
    done: Tell,
    retry_failed: bool = False,
    ttl: float = TTL,
) -> None:
    """Compute the missing shards of a run.

    Args:
        run: the run.
        workers: processes; None for this one, where its kernels are the run's, or, where numbers
            come from libraries, which have one thread here, for one on each processor.
        done: told of every shard.
        retry_failed: whether failed rows are tried again, as often as the plan allows.
        ttl: s, of leases.

    Raises:
        RuntimeError: another driver is at work, or shards were given up.
        OSError: a shard cannot be written.
    """
    with driving(run, ttl):
        run.tidy()
        if missing := run.missing():
            _all(run, missing, workers, done, ttl, "work")
        if retry_failed and (failed := run.retriable()):
            _all(run, failed, workers, done, ttl, "again")


def _all(
    run: Run, shards: list[int], workers: int | None, done: Tell, ttl: float, task: str
) -> None:
    entries = run.manifest.entries
    pinned = pinning(entries)
    if workers is None and entries["libraries"] and run.reopens:
        workers = min(threads.limit(), len(shards))
        workers = None if workers == 1 else workers
    if workers is None and not pinned:
        with Worker(run.folder, source=run.source, ttl=ttl) as worker:
            _in_turn(shards, worker.again if task == "again" else worker.work, done)
    else:
        _by_processes(run, shards, workers or 1, pinned, done, ttl, task)


def take(run: Run, share: int, shares: int, done: Tell, ttl: float = TTL) -> None:
    """Compute a share of the missing shards, then those of others that nobody works on.

    Every ``shares``-th one from ``share`` on comes first. It takes no driver's lock.
    """
    missing = run.missing()
    own = [n for n in missing if n % shares == share]
    others = [n for n in missing if n % shares != share]
    if missing:
        with Worker(run.folder, source=run.source, ttl=ttl) as worker:
            for number in own + others:
                done(worker.work(number))


def _in_turn(shards: list[int], work: Callable[[int], Done], done: Tell) -> None:
    """One after the other; those that others hold when they let them go."""
    while shards:
        held = []
        for number in shards:
            found = work(number)
            if found.state == "held":
                held.append(number)
            else:
                done(found)
        shards = held
        if shards:
            time.sleep(PAUSE)


def _by_processes(
    run: Run,
    shards: list[int],
    workers: int,
    pinned: dict[str, str],
    done: Tell,
    ttl: float,
    task: str,
) -> None:
    each = str(max(1, threads.limit() // workers))
    environment = pinned | {"OMP_NUM_THREADS": each, "MKL_NUM_THREADS": each}
    pool = Pool(run.folder, workers, environment, run.manifest.plan.attempts, ttl, task)
    at_once = True
    try:
        while shards:
            shards = pool.work(shards, done)
            if shards:
                time.sleep(PAUSE)
        at_once = False
    finally:
        pool.close(at_once=at_once)
    if pool.given_up:
        number, why = next(iter(pool.given_up.items()))
        raise RuntimeError(
            f"{len(pool.given_up)} of {run.manifest.shards} shards were given up, the first "
            f"{number}: {why}; the others are done, and resume tries it again"
        )


def pinning(entries: Any) -> dict[str, str]:
    """What a worker's environment needs for the run's kernels, where this process has others."""
    found = {}
    own, wanted = levels(), entries.get("isa")
    if own and wanted not in (None, "none", own[0]) and wanted in own[1:]:
        found["VAEFAST_ISA"] = str(wanted)
    level = entries.get("torch_isa")
    if level in TORCH_LEVELS and level != torch_level():
        found["ATEN_CPU_CAPABILITY"] = str(level).lower()
    return found
