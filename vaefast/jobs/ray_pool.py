"""Actors of one run on Ray: who has which shard, and what becomes of those of a lost one."""

from __future__ import annotations

import math
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vaefast.jobs.worker import Done, Worker

if TYPE_CHECKING:
    from vaefast.jobs.run import Run

__all__ = ["Pool", "ShardActor", "Share", "shortage", "sizes_of_nodes"]

TICK = 1.0  # s after which the pool looks around when nothing happens
HELD = 2.0  # s after which a shard that another worker holds is tried again
PATIENCE = 30.0  # s without a worker after which a line says why
STARTS = 3  # workers in a row that may end before their first shard


class Share(NamedTuple):
    """What one worker asks Ray for."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU and {self.gpus:g} GPU"

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many workers a node with these resources has room for."""
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        counts = [int(resources.get(k, 0.0) // v) for k, v in asked.items() if v > 0]
        return min(counts) if counts else 1


def sizes_of_nodes(ray: Any) -> list[Mapping[str, float]]:
    """All resources, free or not, of the nodes that are there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def shortage(share: Share, nodes: list[Mapping[str, float]]) -> str:
    """What a worker asks for that no node has, and what to pass; "" where one has room."""
    if any(share.fits(node) for node in nodes):
        return ""
    cpus, gpus = (max((n.get(name, 0.0) for n in nodes), default=0.0) for name in ("CPU", "GPU"))
    ways = []
    if share.cpus > cpus:
        ways.append(f"--cpus-per-worker {math.floor(cpus)}" if cpus >= 1 else "nodes with CPUs")
    if share.gpus > gpus:
        ways.append(f"--gpus-per-worker {math.floor(gpus)}" if gpus >= 1 else "nodes with GPUs")
    return (
        f"each asks for {share} on one node, the largest there is has {cpus:g} CPU and {gpus:g} "
        f"GPU; use {' and '.join(ways) or 'smaller shares'}, or --wait-for-nodes "
        "SECONDS where the cluster grows"
    )


class ShardActor:
    """A worker of a run as Ray holds it: one model, frozen and lowered once.

    Args:
        folder: of the run, which every node sees under this name.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._inside = ExitStack()

    def open(self) -> str:
        """Load the model and check it, the data, the versions and the processor; the host's name.

        Raises:
            ValueError, OSError: this node cannot work on the run; one line.
        """
        self._worker = self._inside.enter_context(Worker(Path(self._folder)))
        return socket.gethostname()

    def work(self, number: int) -> Done:
        """Compute and write a shard."""
        return self._worker.work(number)


@dataclass
class _Actor:
    """An actor, the answer of its ``open`` while that is out, and its calls in their order."""

    handle: Any
    opening: Any
    host: str = ""
    calls: dict[Any, int] = field(default_factory=dict)


@dataclass
class Pool:
    """Hands shards to actors until all are written.

    Actors are asked for as long as there are shards for them, and let go when there are none. A
    worker that is lost gives its shards back; one that is not of the run's versions keeps its
    place, so that no other is put there.

    Args:
        ray: the module.
        actor: the class of actors, with their options.
        run: that is worked on.
        workers: actors, at most.
        share: what each asks for.
        done: told of every shard.
        tell: told, in a line, of what went wrong.
        in_flight: calls of an actor at a time.
        wait_for_nodes: s that the pool waits for a node on which a worker fits.
    """

    ray: Any
    actor: Any
    run: Run
    workers: int
    share: Share
    done: Callable[[Done], None]
    tell: Callable[[str], None]
    in_flight: int = 2
    wait_for_nodes: float = 0.0
    actors: list[_Actor] = field(default_factory=list)
    refused: list[tuple[_Actor, str]] = field(default_factory=list)
    queue: deque[int] = field(default_factory=deque)
    held: dict[int, float] = field(default_factory=dict)  # when to try again, by shard
    failures: Counter[int] = field(default_factory=Counter)
    given_up: dict[int, str] = field(default_factory=dict)  # why, by shard
    unlucky: int = 0  # workers in a row that ended before they had opened
    last_at_work: float = field(default_factory=time.monotonic)
    said: float = -math.inf

    def work(self, missing: list[int]) -> None:
        """All these shards."""
        self.queue.extend(missing)
        try:
            while self.left():
                self.take_up_held()
                self.grow_and_shrink()
                self.hand_out()
                self.look()
                self.complain()
        finally:
            for actor in (*self.actors, *(one for one, _ in self.refused)):
                self.ray.kill(actor.handle)
        if self.given_up:
            number, why = next(iter(self.given_up.items()))
            raise RuntimeError(
                f"{len(self.given_up)} of {self.run.manifest.shards} shards were given up, the "
                f"first {number}: {why}; the others are done, and resume tries it again"
            )

    def left(self) -> int:
        """Shards that are not finished."""
        return len(self.queue) + len(self.held) + sum(len(a.calls) for a in self.actors)

    def take_up_held(self) -> None:
        for number in [n for n, when in self.held.items() if when <= time.monotonic()]:
            del self.held[number]
            self.queue.append(number)

    def grow_and_shrink(self) -> None:
        """As many actors as there are shards, up to the most."""
        wanted = min(self.workers - len(self.refused), self.left())
        while len(self.actors) < max(wanted, 1):
            handle = self.actor.remote(str(self.run.folder.absolute()))
            self.actors.append(_Actor(handle, handle.open.remote()))
        for actor in [a for a in self.actors if not a.calls][: len(self.actors) - max(wanted, 1)]:
            self.ray.kill(actor.handle)
            self.actors.remove(actor)

    def hand_out(self) -> None:
        """Shards to the actors that have fewest; towards the end none waits behind another."""
        ready = [a for a in self.actors if a.opening is None]
        while self.queue and ready:
            actor = min(ready, key=lambda a: len(a.calls))
            ahead = self.in_flight if len(self.queue) > len(self.actors) else 1
            if len(actor.calls) >= ahead:
                return
            number = self.queue.popleft()
            actor.calls[actor.handle.work.remote(number)] = number

    def look(self) -> None:
        """Wait for an answer, and take those that are there."""
        of = {ref: a for a in self.actors for ref in (*a.calls, a.opening) if ref is not None}
        if not of:
            time.sleep(min(TICK, HELD))
            return
        answers, _ = self.ray.wait(list(of), num_returns=1, timeout=TICK, fetch_local=False)
        for ref in answers:
            self.settle(of[ref], ref)

    def settle(self, actor: _Actor, ref: Any) -> None:
        """One answer of an actor."""
        errors = self.ray.exceptions
        try:
            found = self.ray.get(ref)
        except errors.RayTaskError as error:
            self.failed(actor, ref, getattr(error, "cause", error))
        except errors.RayError as error:  # also of one that may live: it is ended
            self.lost(actor, error)
        else:
            self.last_at_work, self.unlucky = time.monotonic(), 0
            if ref is actor.opening:
                actor.opening, actor.host = None, found
            else:
                self.finished(actor.calls.pop(ref), found)

    def finished(self, number: int, found: Done) -> None:
        """A shard that is there, or that another worker is at."""
        if found.state == "held":
            self.held[number] = time.monotonic() + HELD
        else:
            self.done(found)

    def failed(self, actor: _Actor, ref: Any, error: BaseException) -> None:
        """What a worker raised: before its first shard it is refused, then it is the shard's."""
        reason = " ".join(str(error).split()) or type(error).__name__
        if ref is not actor.opening:
            number = actor.calls.pop(ref)
            if isinstance(error, OSError):  # nobody can write, or that node cannot
                raise error
            self.again(number, reason)
            return
        if not isinstance(error, (ValueError, TypeError, OSError)):
            raise error
        if not any(reason == known for _, known in self.refused):
            self.tell(f"a worker is refused: {reason}")
        self.actors.remove(actor)
        self.refused.append((actor, reason))

    def lost(self, actor: _Actor, error: BaseException) -> None:
        """A worker's shards go back; the one it was at counts against that shard."""
        self.ray.kill(actor.handle)
        self.actors.remove(actor)
        reason = " ".join(str(error).split())[:160]
        if not actor.host:
            self.unlucky += 1
            if self.unlucky >= max(STARTS, self.workers):
                raise RuntimeError(f"{self.unlucky} workers ended while they began: {reason}")
            return
        self.tell(f"a worker on {actor.host} was lost, its shards go to others: {reason}")
        numbers = list(actor.calls.values())
        self.queue.extendleft(reversed(numbers[1:]))
        for number in numbers[:1]:
            self.again(number, "its worker was lost")

    def again(self, number: int, why: str) -> None:
        """A shard that failed once more goes first, or is given up."""
        attempts = self.run.manifest.plan.attempts
        self.failures[number] += 1
        if self.failures[number] < attempts:
            self.queue.appendleft(number)
        else:
            self.given_up[number] = f"{why}, {attempts} times"

    def complain(self) -> None:
        """Say why nobody works, and give up where that will not change."""
        now = time.monotonic()
        if any(a.opening is None for a in self.actors):
            self.last_at_work = now
            return
        alone = now - self.last_at_work
        if alone < PATIENCE:
            return
        if self.refused:
            raise ValueError(self.refused[0][1])
        none_fits = shortage(self.share, sizes_of_nodes(self.ray))
        if none_fits and alone > self.wait_for_nodes:
            raise ValueError(f"no worker fits on Ray's nodes: {none_fits}")
        if now - self.said >= 2 * PATIENCE:
            self.said = now
            self.tell(f"no worker for {alone:.0f} s: {none_fits or self.free()}")

    def free(self) -> str:
        """What is not in use; workers that begin have their part already."""
        free, all_ = self.ray.available_resources(), self.ray.cluster_resources()
        cpus, gpus = (f"{free.get(n, 0):g} of {all_.get(n, 0):g} {n}" for n in ("CPU", "GPU"))
        return (
            f"{len(self.actors)} begin (imports, the model, kernels) or wait for room; each asks "
            f"for {self.share}, Ray has {cpus} and {gpus} free; if others use them, end those or "
            "pass smaller --cpus-per-worker and --gpus-per-worker"
        )
