"""Several worker processes on one machine, and new ones in place of those that die."""

from __future__ import annotations

import json
import selectors
import subprocess
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vaefast.jobs.process import start
from vaefast.jobs.worker import Done

__all__ = ["Pool"]

STARTS = 3  # workers in a row that die before they are ready
GRACE = 10.0  # s for a worker to leave that has nothing left to do


class Pool:
    """Gives every worker one shard at a time.

    Args:
        folder: of the run.
        workers: how many processes.
        environment: of theirs.
        attempts: workers that may die on one shard before it is given up.
        ttl: s, of their leases.
        task: what they do with a shard: "work", or "again" for its failed rows.
    """

    def __init__(
        self,
        folder: Path,
        workers: int,
        environment: Mapping[str, str],
        attempts: int,
        ttl: float,
        task: str = "work",
    ) -> None:
        self._folder, self._count, self._environment = folder, workers, environment
        self._attempts, self._ttl, self._task = attempts, ttl, task
        self._selector = selectors.DefaultSelector()
        self._members: list[_Member] = []
        self._deaths: Counter[int] = Counter()
        self._stillborn = 0
        self.given_up: dict[int, str] = {}

    def work(self, shards: Iterable[int], done: Callable[[Done], None]) -> list[int]:
        """Compute shards; those that others hold come back.

        Raises:
            OSError: one cannot be written.
            ValueError: workers are not what the run needs.
            RuntimeError: no worker stays alive.
        """
        self._todo, self._held = deque(shards), list[int]()
        self._done = done
        for _ in range(min(self._count, len(self._todo)) - len(self._members)):
            self._hire()
        for member in self._members:
            self._give(member)
        while self._todo or any(member.shard is not None for member in self._members):
            for key, _ in self._selector.select():
                self._hear(key.data)
        return self._held

    def close(self, *, at_once: bool = False) -> None:
        """End the workers; what they have not written is dropped."""
        for member in self._members:
            member.end(at_once)
        self._members.clear()
        self._selector.close()

    def _hire(self) -> None:
        member = _Member(start(self._folder, self._environment, self._ttl, self._task))
        self._members.append(member)
        self._selector.register(member.pipe, selectors.EVENT_READ, member)

    def _give(self, member: _Member) -> None:
        if member.ready and member.shard is None and self._todo:
            member.send(self._todo.popleft())

    def _hear(self, member: _Member) -> None:
        line = member.pipe.readline()
        if not line:
            self._bury(member)
            return
        said = json.loads(line)
        if "refused" in said:
            raise OSError(said["refused"]) if said["full"] else ValueError(said["refused"])
        member.ready, member.shard = True, None
        self._stillborn = 0
        if "error" in said:
            self._fail(said)
        elif "state" in said:
            self._end(Done(**said))
        self._give(member)

    def _end(self, found: Done) -> None:
        if found.state == "held":
            self._held.append(found.shard)
        else:
            self._done(found)

    def _fail(self, said: dict[str, Any]) -> None:
        if said["full"]:
            raise OSError(said["error"])
        self._again(said["shard"], said["error"])

    def _bury(self, member: _Member) -> None:
        """A worker that died; another takes its place."""
        self._selector.unregister(member.pipe)
        self._members.remove(member)
        status = member.end(True)
        if member.shard is not None:
            self._again(member.shard, f"its worker ended ({_ending(status)})")
        if not member.ready:
            self._stillborn += 1
            if self._stillborn >= STARTS:
                raise RuntimeError(
                    f"{STARTS} workers in a row ended before they were ready ({_ending(status)}); "
                    "look at what they wrote above"
                )
        if self._todo:
            self._hire()

    def _again(self, shard: int, why: str) -> None:
        self._deaths[shard] += 1
        if self._deaths[shard] < self._attempts:
            self._todo.appendleft(shard)
        else:
            self.given_up[shard] = f"{why}, {self._attempts} times"


class _Member:
    """A worker's process, and the shard that it has."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.pipe = process, process.stdout
        self._orders = process.stdin
        self.ready = False
        self.shard: int | None = None

    def send(self, shard: int) -> None:
        self.shard = shard
        self._write(f"{shard}\n")

    def _write(self, text: str) -> None:
        with suppress(BrokenPipeError):  # it died: its pipe says so
            self._orders.write(text.encode())

    def end(self, at_once: bool) -> int:
        """Its status, once it has ended."""
        if at_once:
            self.process.kill()
        else:
            self._write("end\n")
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._orders.close()
        self.pipe.close()
        return self.process.wait()


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
