"""How far a run is, seen from another shell: from its folder alone, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vaefast.jobs.progress import WINDOW, Snapshot, bar_of, update

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["from_shards", "watch"]


def from_shards(
    rows: int,
    entries: Mapping[int, Mapping[str, Any]],
    written: Mapping[int, float],
    now: float | None = None,
) -> Snapshot:
    """How far a run is, from its folder alone: what another shell sees.

    Args:
        rows: of the run.
        entries: ``start``, ``stop``, ``failed`` and ``seconds`` of each shard.
        written: when the file of each finished shard was written, s since 1970.
        now: s since 1970.
    """
    now = time.time() if now is None else now
    there = [number for number in written if number in entries]
    sizes = {number: entries[number]["stop"] - entries[number]["start"] for number in there}
    seconds: dict[str, float] = {}
    for number in there:
        for stage, value in entries[number].get("seconds", {}).items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    failed = sum(entries[number]["failed"] for number in there)
    rate = _rate(sizes, written, now)
    return Snapshot(rows, sum(sizes.values()), failed, len(there), seconds, rate)


def _rate(sizes: Mapping[int, int], written: Mapping[int, float], now: float) -> float | None:
    """Rows a second of the last minute, or between the last shards where they are further apart.

    None where nothing was finished for ten times as long as a shard took: nobody works.
    """
    ordered = sorted((written[number], size) for number, size in sizes.items())
    if len(ordered) < 2:
        return None
    recent = [pair for pair in ordered if pair[0] >= now - WINDOW]
    recent = ordered[-max(2, len(recent)) :]
    spread = recent[-1][0] - recent[0][0]
    quiet = now - recent[-1][0]
    if spread <= 0 or quiet > 10 * max(spread / (len(recent) - 1), 6.0):
        return None
    return sum(size for _, size in recent[1:]) / spread


def watch(
    look: Callable[[], Snapshot],
    console: Console,
    *,
    every: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Show a run, again and again until it is complete, from what ``look`` reads.

    A terminal shows a bar; elsewhere there is a line whenever something changed.
    """
    now = look()
    with _shown(console, now) as show:
        while now.done < now.rows:
            sleep(every)
            now = look()
            show(now)
    return now


@contextmanager
def _shown(console: Console, first: Snapshot) -> Iterator[Callable[[Snapshot], None]]:
    if console.is_terminal:
        bar = bar_of(console, first)
        with bar:
            yield lambda now: update(bar, now)
        return
    last = [first.words()]
    console.print(last[0], soft_wrap=True, markup=False, highlight=False)

    def show(now: Snapshot) -> None:
        if now.words() != last[0]:
            last[0] = now.words()
            console.print(last[0], soft_wrap=True, markup=False, highlight=False)

    yield show
