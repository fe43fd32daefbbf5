"""A run: begin or open it, work on it, look at it, and put its table together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaefast import checks
from vaefast.jobs import local, ray
from vaefast.jobs.create import begin
from vaefast.jobs.durable import PART
from vaefast.jobs.leases import TTL, Leases
from vaefast.jobs.manifest import Manifest, Places
from vaefast.jobs.plan import RunPlan
from vaefast.jobs.ray import RayOptions
from vaefast.jobs.shards import checksums, damage
from vaefast.jobs.status import Status, status
from vaefast.jobs.table import merge_shards
from vaefast.jobs.verify import Verdict, verify
from vaefast.jobs.worker import Done

__all__ = ["Run", "create", "open_run", "run"]

ENGINES = ("local", "ray")


class Run:
    """A folder of shards, some of them finished; made by :func:`create` or :func:`open`.

    Args:
        folder: of the run.
        source: of its rows, where it was made from an object.
    """

    def __init__(self, folder: Path, source: Any = None) -> None:
        self.places = Places(Path(folder))
        self.manifest = Manifest.read(self.places)
        self.source = source

    @property
    def folder(self) -> Path:
        return self.places.folder

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there."""
        there = {path.stem for path in self.places.shards.glob("*.parquet")}
        return [n for n in range(self.manifest.shards) if f"{n:08d}" not in there]

    def check(self) -> list[str]:
        """Put damaged shards aside, so that they are made anew; a line for each."""
        lines = []
        for path, what in self.damaged():
            path.rename(path.with_suffix(".damaged"))
            lines.append(f"{path.name}: {what}; it is made anew")
        return lines

    def damaged(self) -> list[tuple[Path, str]]:
        """Shards whose bytes are not those that were written, and what is wrong."""
        entries = checksums(self.places)
        found = []
        for path in sorted(self.places.shards.glob("*.parquet")):
            if what := damage(path, entries.get(int(path.stem), [])):
                found.append((path, what))
        return found

    def work(
        self,
        engine: str = "local",
        *,
        workers: int | None = None,
        retry_failed: bool = False,
        done: Callable[[Done], None] | None = None,
        tell: Callable[[str], None] | None = None,
        options: RayOptions | None = None,
        ttl: float = TTL,
    ) -> None:
        """Compute all shards that are missing.

        Args:
            engine: "local", or "ray" (:class:`vaefast.jobs.RayOptions`).
            workers: processes; None for this one with all its threads, or, where a library's
                products are part of the numbers, for one on each processor; of Ray for as many as
                fit.
            retry_failed: whether failed rows are tried again, as often as the plan allows.
            done: told of every shard.
            tell: of Ray, told in a line of workers that are lost or refused; None to warn.
            options: of Ray.
            ttl: s without a sign of life after which a worker is taken for dead.

        Raises:
            RuntimeError: another driver is at work, or shards were given up.
            OSError: a shard cannot be written, with what to do.
        """
        checks.option(engine, "engine", ENGINES)
        if options is not None and engine != "ray":
            raise ValueError(f'options are of engine "ray", got engine="{engine}"')
        done = done or (lambda one: None)
        if engine == "ray":
            ray.work(self, workers=workers, done=done, tell=tell or _warn, options=options)
            if not retry_failed:
                return
        local.work(self, workers=workers, done=done, retry_failed=retry_failed, ttl=ttl)

    def take(
        self,
        share: int,
        shares: int,
        *,
        done: Callable[[Done], None] | None = None,
        ttl: float = TTL,
    ) -> None:
        """Work beside others: on every ``shares``-th missing shard, then on what is left.

        Args:
            share: 0 to shares − 1.
            shares: of how many.
            done: told of every shard.
            ttl: s, of leases.
        """
        checks.count(shares, "shares")
        if not 0 <= share < shares:
            raise ValueError(f"share must lie in 0 to {shares - 1}, got {share}")
        local.take(self, share, shares, done or (lambda one: None), ttl)

    @property
    def reopens(self) -> bool:
        """Whether another process can open the data."""
        return bool(self.manifest.plan.data.get("kind") != "object")

    def status(self) -> Status:
        """How far the run is, from its folder alone."""
        return status(self)

    def verify(self, share: float = 0.01, seed: int | None = None) -> Verdict:
        """Check all files, and compute a random share of the shards again and compare bits."""
        return verify(self, share, seed)

    def retriable(self) -> list[int]:
        """Shards with failed rows that may be tried once more."""
        most = self.manifest.plan.attempts
        return sorted(n for n, (_, tried) in self.status().failed.items() if tried < most)

    def tidy(self) -> None:
        """Take away what killed workers of this machine left: leases, and files half written."""
        leases = Leases(self.places.leases)
        for name in leases.names():
            holder = leases.holder(name)
            if holder is not None and not leases.alive(name, holder):
                (self.places.leases / f"{name}.json").unlink(missing_ok=True)
        for path in self.places.shards.glob(f".*{PART}"):
            if leases.holder(path.name[1:9]) is None:
                path.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """Of all shards, in order.

        Raises:
            ValueError: some are missing or damaged.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{len(missing)} of {self.manifest.shards} shards of {self.folder} are missing; "
                f"vaefast jobs resume {self.folder} makes them"
            )
        damaged = self.damaged()
        if damaged:
            path, what = damaged[0]
            raise ValueError(
                f"{path} is damaged: {what}; vaefast jobs resume {self.folder} makes it anew"
            )
        return [self.places.shard(n) for n in range(self.manifest.shards)]

    def merge(self, out: Path) -> Path:
        """All rows in one Parquet file, in the order of their indices."""
        merge_shards(self.paths(), out, self.metadata(), rows=self.manifest.rows)
        return Path(out)

    def metadata(self) -> dict[str, Any]:
        """What the merged table says of itself: the same for any way it was computed."""
        manifest = self.manifest
        return {
            "fingerprint": manifest.fingerprint,
            "guarantee": manifest.guarantee,
            "reproducible": manifest.reproducible,
            "alpha_of_one": manifest.alpha,
            "entries": dict(manifest.entries),
        }


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=4)


def create(plan: RunPlan, folder: str | Path) -> Run:
    """Begin a run in a new folder, or go on with the same one.

    Raises:
        ValueError: another run is there, and what differs; or the plan does not work on its data.
        FileExistsError: the folder holds something else.
        OSError: it cannot be written.
    """
    folder = Path(folder).expanduser()
    return Run(folder, begin(plan, folder))


def open_run(folder: str | Path, source: Any = None) -> Run:
    """A run that was begun."""
    return Run(Path(folder).expanduser(), source)


def run(plan: RunPlan, folder: str | Path, out: str | Path, **how: Any) -> Path:
    """Begin a run, do all its work and put its table together: :func:`create`, work, merge."""
    found = create(plan, folder)
    found.work(**how)
    return found.merge(Path(out))
