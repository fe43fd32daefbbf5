"""Whether a run's files are what was written, and its numbers what comes out once more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaefast.jobs.shards import Shard, read_shard
from vaefast.jobs.worker import Worker

if TYPE_CHECKING:
    from vaefast.jobs.run import Run

__all__ = ["Verdict", "verify"]

SHOWN = 5  # rows in a line
ROUND_OFF = 1e-4  # relative, of numbers that repeat to round-off only


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Attributes:
        damaged: lines about shards whose bytes are not those that were written.
        different: lines about shards that came out otherwise.
        missing: shards that are not there.
        shards: that were computed again.
        rows: in them.
    """

    damaged: tuple[str, ...]
    different: tuple[str, ...]
    missing: int
    shards: int
    rows: int

    @property
    def ok(self) -> bool:
        return not (self.damaged or self.different)

    def __str__(self) -> str:
        lines = [*self.damaged, *self.different]
        what = "all the same" if not self.different else f"{len(self.different)} shards differ"
        lines.append(f"{self.rows} rows in {self.shards} shards computed again: {what}")
        if self.missing:
            lines.append(f"{self.missing} shards are missing; vaefast jobs resume makes them")
        return "\n".join(lines)


def verify(
    run: Run,
    share: float = 0.01,
    seed: int | None = None,
    done: Callable[[int], None] | None = None,
) -> Verdict:
    """Check all files, and compute a random share of the shards again and compare bits.

    Args:
        run: the run.
        share: of the shards, in (0, 1]; at least one.
        seed: of the choice; None for another one every time.
        done: told of every shard that was compared.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share:g}")
    damaged = dict(run.damaged())
    lines = tuple(f"{path.name}: {what}" for path, what in damaged.items())
    missing = set(run.missing())
    bad = missing | {int(path.stem) for path in damaged}
    sound = [n for n in range(run.manifest.shards) if n not in bad]
    chosen = sorted(random.Random(seed).sample(sound, math.ceil(share * len(sound))))
    different, rows = [], 0
    if chosen:
        with Worker(run.folder, source=run.source) as worker:
            for number in chosen:
                theirs = read_shard(run.places.shard(number), run.manifest)
                ours = worker.compute(number)
                rows += len(ours.failed)
                if line := _difference(theirs, ours, run.manifest.reproducible):
                    different.append(line)
                if done is not None:
                    done(number)
    return Verdict(lines, tuple(different), len(missing), len(chosen), rows)


def _difference(theirs: Shard, ours: Shard, reproducible: str) -> str:
    """What of a shard differs, "" where nothing."""
    name = f"{theirs.number:08d}.parquet"
    if theirs.inputs != ours.inputs:
        return f"{name}: the inputs are not those that were read; the data have changed"
    if theirs.content == ours.content:
        return ""
    found = []
    for column, array in theirs.values.items():
        if len(rows := _unlike(array, ours.values[column], reproducible)):
            found.append(f"{column} in {len(rows)} rows, first {rows[0]}")
    if not np.array_equal(theirs.failed, ours.failed):
        found.append("failed")
    if not found and reproducible == "round-off":
        return ""
    return f"{name}: {'; '.join(found) or 'its reasons'} came out otherwise"


def _unlike(theirs: np.ndarray, ours: np.ndarray, reproducible: str) -> np.ndarray:
    """Rows that differ, by their places in the shard."""
    a, b = theirs.reshape(len(theirs), -1), ours.reshape(len(ours), -1)
    if a.dtype.kind == "f":
        same = np.isnan(a) & np.isnan(b)
        if reproducible == "round-off":
            same |= np.isclose(a, b, rtol=ROUND_OFF, atol=0.0)
        same |= a == b
    else:
        same = a == b
    return np.flatnonzero(~same.all(1))
