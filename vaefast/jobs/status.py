"""How far a run is, from its folder alone: what another shell sees."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaefast.jobs.leases import Holder, Leases
from vaefast.jobs.progress import Snapshot
from vaefast.jobs.shards import checksums
from vaefast.jobs.watching import from_shards

if TYPE_CHECKING:
    from vaefast.jobs.run import Run

__all__ = ["Status", "snapshot", "status"]

DRIVER = "driver"


@dataclass(frozen=True)
class Status:
    """A run at one moment.

    Attributes:
        now: rows, failures, rate, time by stage.
        shards: of the run.
        driver: who hands out shards, None where nobody does.
        held: who works on which shard.
        failed: shards with failed rows, by number: how many, and how often they were tried.
        fingerprint: of the run.
        guarantee: what its values promise, "" where nothing.
        reproducible: "bits", "blocks" or "round-off".
    """

    now: Snapshot
    shards: int
    driver: Holder | None
    held: dict[int, Holder]
    failed: dict[int, tuple[int, int]]
    fingerprint: str
    guarantee: str
    reproducible: str

    @property
    def complete(self) -> bool:
        return self.now.shards == self.shards

    def __str__(self) -> str:
        lines = [self.now.words(), f"{self.now.shards} of {self.shards} shards"]
        if self.driver is not None:
            lines.append(f"driver   {self.driver}")
        for shard, holder in sorted(self.held.items()):
            lines.append(f"shard {shard:08d}   {holder}")
        if self.failed:
            rows = sum(count for count, _ in self.failed.values())
            lines.append(
                f"{rows} failed rows in {len(self.failed)} shards; vaefast jobs resume "
                "--retry-failed tries them again"
            )
        if self.guarantee:
            lines.append(f"guarantee   {self.guarantee}")
        return "\n".join(lines)


def status(run: Run) -> Status:
    """Of a run, without reading its shards."""
    entries = _entries(run)
    leases = Leases(run.places.leases)
    names = leases.names()
    holders = {name: leases.holder(name) for name in names}
    alive = {n: h for n, h in holders.items() if h is not None and leases.alive(n, h)}
    driver = alive.pop(DRIVER, None)
    there = _written(run)
    failed = {
        number: (entry["failed"], entry.get("attempts", 1))
        for number, entry in entries.items()
        if entry["failed"] and number in there
    }
    manifest = run.manifest
    own = manifest.fingerprint, manifest.guarantee, manifest.reproducible
    held = {int(name): holder for name, holder in alive.items() if name.isdigit()}
    return Status(snapshot(run), manifest.shards, driver, held, failed, *own)


def snapshot(run: Run, *, at_end: bool = False) -> Snapshot:
    """Rows, rate and failures of a run, now or when its last shard was written."""
    written = _written(run)
    now = max(written.values(), default=0.0) if at_end else time.time()
    return from_shards(run.manifest.rows, _entries(run), written, now)


def _entries(run: Run) -> dict[int, dict[str, Any]]:
    """What was last written of each shard."""
    found = checksums(run.places)
    return {n: max(e, key=lambda one: one.get("attempts", 1)) for n, e in found.items()}


def _written(run: Run) -> dict[int, float]:
    """When each shard's file was, s since 1970."""
    found = {}
    for path in run.places.shards.glob("*.parquet"):
        try:
            found[int(path.stem)] = path.stat().st_mtime
        except (FileNotFoundError, ValueError):  # it was just replaced, or is not ours
            continue
    return found
