"""The engine on Ray: shards as calls of actors that hold one model and write by themselves.

Ray places workers, says when one is lost, and carries the numbers of shards; nothing else. What is
finished is in the run's folder, which all nodes see: whatever ends, the next engine goes on there.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaefast import checks
from vaefast.jobs.local import TORCH_LEVELS, driving
from vaefast.jobs.ray_pool import Pool, ShardActor, Share, shortage, sizes_of_nodes
from vaefast.jobs.worker import Done

if TYPE_CHECKING:
    from vaefast.jobs.run import Run

__all__ = ["RayOptions", "work"]

STORE = 100 << 20  # bytes of Ray's object store on a machine that we start it on: only numbers pass


@dataclass(frozen=True)
class RayOptions:
    """How a run uses Ray.

    Attributes:
        address: of a cluster, "auto" for the one that this machine belongs to; None begins Ray on
            this machine for as long as the run works, unless this process has begun it already.
        cpus_per_worker: logical processors that a worker asks for, and threads that it takes.
        gpus_per_worker: likewise, also a part of one; default 1 for runs on "cuda", else 0.
        in_flight: shards that a worker may have been handed, the one it computes among them.
        wait_for_nodes: s that a cluster may take to bring a node that a worker fits on.
    """

    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    in_flight: int = 2
    wait_for_nodes: float = 0.0

    def __post_init__(self) -> None:
        checks.count(self.in_flight, "in_flight")
        for name in ("cpus_per_worker", "wait_for_nodes"):
            if not checks.number(getattr(self, name), name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name):g}")
        gpus = self.gpus_per_worker
        if gpus is not None and not (0 <= gpus < 1 or gpus == int(gpus)):
            raise ValueError(f"gpus_per_worker must be a part of one or whole, got {gpus:g}")

    def share(self, device: str) -> Share:
        """What each worker of a run on this device asks Ray for."""
        gpus = self.gpus_per_worker
        if device == "cpu" and gpus:
            raise ValueError(
                f"gpus_per_worker is {gpus:g} and the run computes on the CPU; begin one with "
                "--device cuda, or leave --gpus-per-worker out"
            )
        if device != "cpu" and gpus == 0:
            raise ValueError("gpus_per_worker is 0 and the run computes on a GPU; pass a part of 1")
        return Share(self.cpus_per_worker, gpus if gpus is not None else float(device != "cpu"))


def work(
    run: Run,
    *,
    workers: int | None,
    done: Callable[[Done], None],
    tell: Callable[[str], None],
    options: RayOptions | None = None,
) -> None:
    """Compute the missing shards of a run.

    Args:
        workers: actors, at most; None for as many as fit on the cluster now.
        done: told of every shard.
        tell: told, a line each, of workers that were lost or refused, and of those that Ray has no
            room for.
        options: of Ray.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        ValueError: no worker fits on the cluster, or none is of the run's versions; one line.
        RuntimeError: another driver is at work, or shards were given up.
        OSError: a worker could not write.
    """
    given = options or RayOptions()
    plan = run.manifest.plan
    if not run.reopens:
        raise ValueError(
            "data that are an object in this process cannot be read by workers of Ray; name a "
            'file, or pass engine="local"'
        )
    share = given.share(plan.device)
    with driving(run):
        missing = run.missing()
        if missing:
            _work_on(run, missing, workers, given, share, done, tell)


def _work_on(
    run: Run,
    missing: list[int],
    workers: int | None,
    given: RayOptions,
    share: Share,
    done: Callable[[Done], None],
    tell: Callable[[str], None],
) -> None:
    ray = _ray()
    with _connected(ray, given.address):
        count = _room(ray, share, workers, given.wait_for_nodes, tell)
        actor = _actor(ray, share, run.manifest.entries)
        pool = Pool(
            ray,
            actor,
            run,
            min(count, len(missing)),
            share,
            done,
            tell,
            in_flight=given.in_flight,
            wait_for_nodes=given.wait_for_nodes,
        )
        pool.work(missing)


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ImportError("engine \"ray\" needs Ray; pip install 'vaefast[ray]'") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Inside a Ray session: the process's own, a cluster's, or one that ends with the run.

    Ray puts a handler of its own in the place of the caller's for termination, which is given back.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.WARNING}
    if address is None:
        options |= {"address": "local", "object_store_memory": STORE, "include_dashboard": False}
    else:
        options["address"] = address
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except ConnectionError as error:
        reason = " ".join(str(error).split())[:160]
        raise ConnectionError(
            f"no Ray cluster answers at {address!r} ({reason}); ray start --head begins one, or "
            "leave --address out to use this machine alone"
        ) from None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)
        yield
    finally:
        ray.shutdown()


def _actor(ray: Any, share: Share, entries: Mapping[str, Any]) -> Any:
    """The class of a run's actors: never restarted by Ray, on as many nodes as there are.

    Their kernels are pinned to the run's instruction set, which has to be known before vaefast is
    imported.
    """
    threads = str(max(1, int(share.cpus)))
    variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **kernels(entries)}
    return ray.remote(ShardActor).options(
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        max_restarts=0,
        max_task_retries=0,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": variables},
    )


def kernels(entries: Mapping[str, Any]) -> dict[str, str]:
    """What a worker's environment needs for the run's kernels, on whatever processor it comes."""
    found = {}
    if (isa := entries.get("isa")) not in (None, "none"):
        found["VAEFAST_ISA"] = str(isa)
    if (level := entries.get("torch_isa")) in TORCH_LEVELS:
        found["ATEN_CPU_CAPABILITY"] = str(level).lower()
    return found


def _room(
    ray: Any, share: Share, workers: int | None, wait: float, tell: Callable[[str], None]
) -> int:
    """How many workers are asked for.

    Raises:
        ValueError: none fits on a node that is there, and none is waited for.
    """
    nodes = sizes_of_nodes(ray)
    fit = sum(share.fits(resources) for resources in nodes)
    if not fit and not wait:
        raise ValueError(f"no worker fits on Ray's nodes: {shortage(share, nodes)}")
    if workers is None:
        return max(1, fit)
    checks.count(workers, "workers")
    if fit < workers:
        tell(
            f"Ray has room for {fit} of {workers} workers now ({share} each); the others start "
            "when nodes come"
        )
    return workers
