"""A Ray without processes: actors that do what a test says, lost when it says so."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vaefast.jobs.worker import Done


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__("a traceback\nof many lines")
        self.cause = cause


class RayActorError(RayError):
    pass


@dataclass(eq=False)
class Ref:
    actor: Any
    number: int | None  # None: of open
    outcome: Any = None  # an exception, or what get returns


@dataclass(eq=False)
class Handle:
    """One actor; its calls are answered in order."""

    ray: Any
    name: int
    calls: list[Ref] = field(default_factory=list)
    alive: bool = True

    def __post_init__(self):
        self.open = SimpleNamespace(remote=lambda: self.call(None))
        self.work = SimpleNamespace(remote=self.call)

    def call(self, number):
        ref = Ref(self, number)
        self.calls.append(ref)
        self.ray.most_in_flight = max(self.ray.most_in_flight, len(self.calls))
        return ref


class FakeRay:
    """What the pool uses of the module, and of the class of actors (``remote``).

    Args:
        seed: of the order of answers.
        work: of a shard: gives a state, or raises what a worker would; RayActorError is a loss.
        start: the same of ``open``, by the actor's number.
        room: actors that are there at once; the others wait.
        sizes: resources of the nodes.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, work, *, seed=0, start=lambda name: "host", room=100, sizes=({"CPU": 4.0},)):
        self.random, self._work, self._start = random.Random(seed), work, start
        self.room, self.sizes = room, sizes
        self.handles, self.most_in_flight, self.most_alive, self.tails = [], 0, 0, []

    def remote(self, folder):
        handle = Handle(self, len(self.handles))
        self.handles.append(handle)
        self.most_alive = max(self.most_alive, len(self.alive()))
        return handle

    def alive(self):
        return [handle for handle in self.handles if handle.alive]

    def wait(self, refs, *, num_returns, timeout, fetch_local):
        assert num_returns == 1
        there = self.alive()[: self.room]
        heads = [h.calls[0] for h in there if h.calls]
        dead = [ref for ref in refs if ref.outcome is not None]
        known = dead or [ref for ref in heads if ref in refs]
        if not known:
            return [], refs
        ref = self.random.choice(known)
        if ref.outcome is None:
            self.answer(ref)
        return [ref], [other for other in refs if other is not ref]

    def answer(self, ref):
        actor = ref.actor
        try:
            found = self._start(actor.name) if ref.number is None else self._work(ref.number)
            ref.outcome = found if ref.number is None else Done(ref.number, found)
        except RayActorError as error:
            self.lose(actor, error)
            return
        except Exception as error:
            ref.outcome = RayTaskError(error)
        actor.calls.remove(ref)

    def lose(self, actor, error):
        actor.alive = False
        for ref in actor.calls:
            ref.outcome = error

    def get(self, ref):
        if isinstance(ref.outcome, Exception):
            raise ref.outcome
        return ref.outcome

    def kill(self, handle):
        handle.alive = False

    def nodes(self):
        return [{"Alive": True, "Resources": dict(size)} for size in self.sizes]

    def available_resources(self):
        return {"CPU": 0.0}

    def cluster_resources(self):
        return {"CPU": 4.0}
