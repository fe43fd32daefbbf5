"""What a run comes to: ours against the best peer of every case, beside what was asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vaefast.bench.runner import Benchmark, Result

__all__ = ["Verdict", "verdicts"]

AT_MOST = ("MiB", "s")


@dataclass(frozen=True)
class Verdict:
    """Ours against one limit of one case.

    Args:
        op, case: as in the table.
        against: the best peer, the ceiling, or what memory is counted beyond.
        reached: the peer's time over ours, the percentage of the ceiling, MiB, or seconds.
        unit: "x", "%", "MiB" or "s".
        asked: at least this; of memory and time, at most.
    """

    op: str
    case: str
    against: str
    reached: float
    unit: str
    asked: float

    @property
    def met(self) -> bool:
        return self.reached <= self.asked if self.unit in AT_MOST else self.reached >= self.asked

    def __str__(self) -> str:
        digits = 2 if self.unit in ("x", "s") else 0
        bound = "at most" if self.unit in AT_MOST else "at least"
        return (
            f"  {'met   ' if self.met else 'MISSED'}  {self.op}  {self.case}:  "
            f"{self.reached:.{digits}f} {self.unit} {self.against}"
            f" ({bound} {self.asked:.{digits}f})"
        )


def verdicts(benchmark: Benchmark, rows: list[Result]) -> Iterator[Verdict]:
    """The best peer of each target that the benchmark states, then the ceiling, then memory."""
    name = benchmark.op, benchmark.case
    ours, *others = rows
    by_target: dict[float, list[Result]] = {}
    for row in others:
        if row.provider != benchmark.ceiling and not row.provider.startswith("vaefast"):
            target = benchmark.at_least_of.get(row.provider, benchmark.at_least)
            by_target.setdefault(target, []).append(row)
    for target, peers in by_target.items():
        best = min(peers, key=lambda row: row.median_us)
        yield Verdict(*name, best.provider, best.times_ours, "x", target)
    if not math.isnan(benchmark.percent_at_least):
        reached = ours.percent_of_ceiling
        ceiling = benchmark.ceiling or f"the {benchmark.limit} ceiling"
        yield Verdict(*name, f"of {ceiling}", reached, "%", benchmark.percent_at_least)
    if not math.isnan(benchmark.seconds_at_most):
        seconds = ours.median_us / 1e6
        yield Verdict(*name, "for the whole job", seconds, "s", benchmark.seconds_at_most)
    if benchmark.memory is not None:
        used = benchmark.memory()
        yield Verdict(*name, "beyond the inputs", used, "MiB", benchmark.mib_at_most)
