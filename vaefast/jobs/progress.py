"""How far a run is: rows a second, what is left, failures, and where the time goes."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from vaefast.jobs.prometheus import write_metrics

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WINDOW", "Progress", "Snapshot", "bar_of", "duration", "update"]

WINDOW = 60.0  # s over which the rate is taken
EVERY = 10.0  # s between two lines where there is no terminal
METRICS_EVERY = 1.0  # s between two files for Prometheus
LIVE = 4  # times a second that a terminal is drawn


class Event(Protocol):
    """A shard that was finished, as a worker tells it."""

    @property
    def shard(self) -> int: ...

    @property
    def state(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def seconds(self) -> Mapping[str, float] | None: ...


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        rows: of the run.
        done: rows that are finished, the failed ones among them.
        failed: rows without a result.
        shards: that are finished.
        seconds: of processes by stage, over all finished shards.
        rate: finished rows a second of late, None while that is not known.
    """

    rows: int
    done: int = 0
    failed: int = 0
    shards: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    rate: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds until all is done at this rate; None where that is not known."""
        if self.done >= self.rows:
            return 0.0
        return (self.rows - self.done) / self.rate if self.rate else None

    @property
    def shares(self) -> dict[str, float]:
        """The part of the time that each stage takes, the largest first."""
        total = sum(self.seconds.values())
        ordered = sorted(self.seconds.items(), key=lambda item: -item[1])
        return {stage: seconds / total for stage, seconds in ordered} if total else {}

    def words(self) -> str:
        """One line."""
        percent = 100 * self.done / max(1, self.rows)
        parts = [f"{self.done} of {self.rows} rows ({percent:.1f} %)"]
        if self.rate is not None and self.done < self.rows:
            parts.append(f"{self.rate:.3g} rows/s")
        if self.left:
            parts.append(f"{duration(self.left)} left")
        parts.append(f"{self.failed} failed")
        parts += [f"{stage} {100 * share:.0f} %" for stage, share in self.shares.items()]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """``2 d 3 h``, ``5 min 4 s``: the two largest units."""
    left = round(seconds)
    parts: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (parts and len(parts) < 2):
            parts.append(f"{left // size} {name}")
            left %= size
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"


class Progress:
    """Told of every shard, it shows how far a run is; a context.

    Args:
        rows: of the run.
        before: what was done when this work began.
        console: where it is shown: a bar on a terminal, else a line every ten seconds; None: not.
        metrics: a file that Prometheus reads, replaced at once every second.
        lines: a file to which a line of JSON is added for every shard.
        name: of the run, a label of its metrics.
        clock: s, never backwards.
    """

    def __init__(
        self,
        rows: int,
        *,
        before: Snapshot | None = None,
        console: Console | None = None,
        metrics: Path | None = None,
        lines: Path | None = None,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = before or Snapshot(rows)
        self._console, self._metrics, self._lines = console, metrics, lines
        self._name, self._clock = name, clock
        self._recent: deque[tuple[float, int]] = deque([(clock(), self._now.done)])
        self._shown = self._measured = clock()
        self._bar: Any = None
        self._file: IO[str] | None = None

    @property
    def now(self) -> Snapshot:
        return self._now

    def __enter__(self) -> Progress:
        if self._lines is not None:
            self._file = self._lines.open("a", encoding="utf-8")
        if self._console is not None and self._console.is_terminal:
            self._bar = bar_of(self._console, self._now)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._console is not None:
            self._print()
        if self._metrics is not None:
            write_metrics(self._metrics, self._now, self._name)
        if self._file is not None:
            self._file.close()

    def __call__(self, event: Event) -> None:
        """A shard is finished; one that was there already, or that another holds, says nothing."""
        if event.state != "written":
            return
        self._add(event)
        if self._file is not None:
            json.dump(self._entry(event), self._file)
            self._file.write("\n")
            self._file.flush()
        now = self._clock()
        if self._metrics is not None and now - self._measured >= METRICS_EVERY:
            self._measured = now
            write_metrics(self._metrics, self._now, self._name)
        if self._bar is not None:
            update(self._bar, self._now)
        elif self._console is not None and now - self._shown >= EVERY:
            self._shown = now
            self._print()

    def _add(self, event: Event) -> None:
        was = self._now
        seconds = dict(was.seconds)
        for stage, value in (event.seconds or {}).items():
            seconds[stage] = seconds.get(stage, 0.0) + value
        now, done = self._clock(), was.done + event.rows
        self._recent.append((now, done))
        while len(self._recent) > 2 and self._recent[0][0] < now - WINDOW:
            self._recent.popleft()
        (first, earlier), rate = self._recent[0], None
        if now > first:
            rate = (done - earlier) / (now - first)
        failed, shards = was.failed + event.failed, was.shards + 1
        self._now = Snapshot(was.rows, done, failed, shards, seconds, rate)

    def _entry(self, event: Event) -> dict[str, Any]:
        now = self._now
        own: dict[str, Any] = {"shard": event.shard, "rows": event.rows, "failed": event.failed}
        own["seconds"] = {stage: round(v, 6) for stage, v in (event.seconds or {}).items()}
        rate = None if now.rate is None else round(now.rate, 3)
        run = {
            "done": now.done,
            "of": now.rows,
            "failed_in_all": now.failed,
            "rows_per_second": rate,
        }
        return {"time": round(time.time(), 3)} | own | run

    def _print(self) -> None:
        assert self._console is not None
        self._console.print(self._now.words(), soft_wrap=True, markup=False, highlight=False)


def bar_of(console: Console, now: Snapshot) -> Any:
    """A bar of rich's, not started, with the words of a snapshot."""
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(bar_width=28),
        TextColumn("{task.description}"),
        console=console,
        refresh_per_second=LIVE,
    )
    bar.add_task(now.words(), total=now.rows, completed=now.done)
    return bar


def update(bar: Any, now: Snapshot) -> None:
    """Show another snapshot on a bar."""
    bar.update(bar.task_ids[0], completed=now.done, description=now.words())
