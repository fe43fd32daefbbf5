"""A job of n inputs on many workers, simulated: shards, stragglers, node loss, metadata.

A worker asks the driver for a shard, takes its lease, reads the rows, computes, and writes the
shard durably; these are its stages, each an event on a heap. The driver, the metadata of the file
system and the reading of data are servers that all workers share and that serve in order of
arrival. A node's failures are exponential; it takes the unfinished shards of its workers with it,
which are handed out again when the loss is noticed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Costs", "Job", "Outcome", "best_size", "simulate", "waste"]

STAGES = ("driver", "lease", "read", "compute", "write")


@dataclass(frozen=True)
class Costs:
    """What things take; all in seconds but where said.

    Attributes:
        row: of one input on one worker.
        dispatch: of the driver, a shard; one shard after the other.
        lease: of the metadata server, a shard.
        write: likewise, a shard's file: created, synced, renamed.
        wait: that a worker waits besides for its lease and its write, a shard; not shared.
        bytes_in: read for one input.
        storage: bytes per second that all workers read together; infinite where each has its own.
        start: from a worker's process to its first shard.
        spread: standard deviation of the log of a shard's time.
        slow_share, slow_factor: this share of the workers takes so many times longer.
        node_life: mean between a node's failures; infinite for none.
        notice: from a failure to the shards' return to the queue.
        replace: from a failure until the node's workers start again.
    """

    row: float
    dispatch: float = 0.0
    lease: float = 0.0
    write: float = 0.0
    wait: float = 0.0
    bytes_in: float = 0.0
    storage: float = math.inf
    start: float = 0.0
    spread: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    node_life: float = math.inf
    notice: float = 0.0
    replace: float = 0.0

    @property
    def per_shard(self) -> float:
        """Seconds of a worker without a queue, for any number of rows."""
        return self.dispatch + self.lease + self.write + self.wait


@dataclass(frozen=True)
class Job:
    """``rows`` inputs in shards of ``size``, on ``workers`` of which ``per_node`` share a node."""

    rows: int
    size: int
    workers: int = 64
    per_node: int = 8

    @property
    def shards(self) -> int:
        return -(-self.rows // self.size)


@dataclass
class Outcome:
    """What became of a job.

    Attributes:
        seconds: until the last shard was written.
        written: how many times each shard was written; 1 each, or the simulation is wrong.
        attempts: how many times each was handed out.
        lost: seconds of workers whose work a failure took.
        failures: of nodes.
        busy: seconds of service by server.
        tail: seconds from the last shard handed out to the end.
    """

    seconds: float
    written: list[int]
    attempts: list[int]
    lost: float
    failures: int
    busy: dict[str, float]
    tail: float

    def load(self, server: str) -> float:
        """Share of the time in which a server was busy."""
        return self.busy[server] / self.seconds if self.seconds else 0.0

    def efficiency(self, job: Job, costs: Costs) -> float:
        """Time of the rows alone, on all workers at full speed, over the time that it took."""
        return job.rows * costs.row / job.workers / self.seconds


@dataclass
class _Worker:
    node: int
    factor: float
    life: int = 0  # events of an earlier life are void
    shard: int | None = None
    since: float = 0.0


@dataclass
class _Server:
    """Serves in order of arrival, one at a time."""

    free: float = 0.0
    busy: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a request that comes now is done."""
        self.free = max(now, self.free) + seconds
        self.busy += seconds
        return self.free


@dataclass
class _Simulation:
    job: Job
    costs: Costs
    random: random.Random
    events: list = field(default_factory=list)
    order: itertools.count = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        job = self.job
        self.queue = deque(range(job.shards))
        self.idle: deque[int] = deque()
        self.servers = {name: _Server() for name in ("driver", "metadata", "storage")}
        self.written, self.attempts = [0] * job.shards, [0] * job.shards
        self.left, self.lost, self.failures = job.shards, 0.0, 0
        self.last_start = 0.0
        slow = round(self.costs.slow_share * job.workers)
        factors = [self.costs.slow_factor] * slow + [1.0] * (job.workers - slow)
        self.random.shuffle(factors)
        self.workers = [_Worker(w // job.per_node, factors[w]) for w in range(job.workers)]

    def at(self, time: float, kind: str, who: int, life: int = 0) -> None:
        heapq.heappush(self.events, (time, next(self.order), kind, who, life))

    def run(self) -> Outcome:
        for number in range(self.job.workers):
            self.at(self.costs.start, "ask", number)
        for node in range(-(-self.job.workers // self.job.per_node)):
            self.fail_later(0.0, node)
        now = 0.0
        while self.left:
            now, _, kind, who, life = heapq.heappop(self.events)
            if kind in ("fail", "notice"):
                getattr(self, kind)(now, who)
            elif life == self.workers[who].life:
                self.step(now, kind, who)
        busy = {name: server.busy for name, server in self.servers.items()}
        tail = now - self.last_start
        return Outcome(now, self.written, self.attempts, self.lost, self.failures, busy, tail)

    def step(self, now: float, kind: str, who: int) -> None:
        """A worker leaves a stage for the next."""
        if kind == "write":
            self.finish(now, who)
        worker = self.workers[who]
        if worker.shard is None and not self.take(now, who):
            return
        stage = STAGES[(STAGES.index(kind) + 1) % len(STAGES)] if kind in STAGES[:-1] else "driver"
        self.at(self.end(now, stage, worker), stage, who, worker.life)

    def take(self, now: float, who: int) -> bool:
        """A shard for a worker, or a place among the idle."""
        if not self.queue:
            self.idle.append(who)
            return False
        worker = self.workers[who]
        worker.shard, worker.since = self.queue.popleft(), now
        self.attempts[worker.shard] += 1
        self.last_start = now
        return True

    def end(self, now: float, stage: str, worker: _Worker) -> float:
        """When a stage that begins now is over."""
        costs, rows = self.costs, self.rows_of(worker.shard)
        if stage == "driver":
            return self.servers["driver"].serve(now, costs.dispatch)
        if stage == "lease":
            return self.servers["metadata"].serve(now, costs.lease)
        if stage == "read":
            return self.servers["storage"].serve(now, rows * costs.bytes_in / costs.storage)
        if stage == "write":
            return self.servers["metadata"].serve(now, costs.write)
        spread = math.exp(self.random.gauss(0.0, costs.spread)) if costs.spread else 1.0
        return now + costs.wait + rows * costs.row * worker.factor * spread

    def rows_of(self, shard: int | None) -> int:
        start = (shard or 0) * self.job.size
        return min(self.job.size, self.job.rows - start)

    def finish(self, now: float, who: int) -> None:
        worker = self.workers[who]
        assert worker.shard is not None
        self.written[worker.shard] += 1
        worker.shard = None
        self.left -= 1

    def fail_later(self, now: float, node: int) -> None:
        if math.isfinite(self.costs.node_life):
            self.at(now + self.random.expovariate(1 / self.costs.node_life), "fail", node)

    def fail(self, now: float, node: int) -> None:
        """The node's shards wait to be noticed, its workers to be started again."""
        self.failures += 1
        for who, worker in enumerate(self.workers):
            if worker.node != node:
                continue
            worker.life += 1
            if worker.shard is not None:
                self.lost += now - worker.since
                self.at(now + self.costs.notice, "notice", worker.shard)
                worker.shard = None
            elif who in self.idle:
                self.idle.remove(who)
            self.at(now + self.costs.replace + self.costs.start, "ask", who, worker.life)
        self.fail_later(now + self.costs.replace + self.costs.start, node)

    def notice(self, now: float, shard: int) -> None:
        self.queue.appendleft(shard)
        if self.idle:
            who = self.idle.popleft()
            self.at(now, "ask", who, self.workers[who].life)


def simulate(job: Job, costs: Costs, seed: int = 0) -> Outcome:
    """One run of a job; the same seed gives the same run.

    A failure may strike a worker in any stage; a shard whose writing had not ended is not there.
    """
    return _Simulation(job, costs, random.Random(seed)).run()


def waste(job: Job, costs: Costs) -> float:
    """Share of the time that is not spent on rows, to first order.

        c/(s t) + λ(s t/2 + D) + (κ − ½) W s/n + A W/(n t)

    c seconds a shard, s rows of t seconds, λ failures a second and D seconds until a worker is
    back, κ times a shard's usual time of the slowest, W workers, n rows, A seconds to start.
    """
    c, t, s = costs.per_shard + job.size * costs.bytes_in / costs.storage, costs.row, job.size
    down = costs.replace + costs.start
    tail = (_slowest(job, costs) - 0.5) * job.workers * s / job.rows
    start = costs.start * job.workers / (job.rows * t)
    return c / (s * t) + (s * t / 2 + down) / costs.node_life + tail + start


def best_size(job: Job, costs: Costs) -> float:
    """The shard size at which :func:`waste` is smallest.

    s* = sqrt((c/t) / (λt/2 + (κ − ½) W/n)).
    """
    tail = (_slowest(job, costs) - 0.5) * job.workers / job.rows
    return math.sqrt(costs.per_shard / costs.row / (costs.row / 2 / costs.node_life + tail))


def _slowest(job: Job, costs: Costs) -> float:
    """κ: a slow worker's factor, times what the largest of W spreads is about."""
    spread = math.exp(costs.spread * math.sqrt(2 * math.log(max(job.workers, 2))))
    return spread * (costs.slow_factor if costs.slow_share else 1.0)
