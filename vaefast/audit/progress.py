"""Progress bars of an audit's stages, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

__all__ = ["Stages", "Timing"]

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Timing:
    """One stage: ``work`` units of ``unit`` in ``seconds``."""

    stage: str
    inputs: int
    work: int
    unit: str
    seconds: float

    @property
    def per_second(self) -> float:
        return self.work / max(self.seconds, 1e-9)


class Stages:
    """Shows a bar per stage on ``console`` (a line when it is no terminal) and keeps the times."""

    def __init__(self, console: Console | None = None, timings: Sequence[Timing] = ()) -> None:
        self.console = console or Console(quiet=True)
        self.timings = list(timings)
        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[rate]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(
        self, name: str, inputs: int, unit: str = "inputs", work_per_input: int = 1
    ) -> Iterator[Advance]:
        """A stage over ``inputs`` rows; the body calls what it is given with the rows done."""
        task = self._progress.add_task(name, total=inputs, rate="")
        start = time.perf_counter()

        def advance(rows: int) -> None:
            self._progress.advance(task, rows)

        yield advance
        seconds = time.perf_counter() - start
        timing = Timing(name, inputs, inputs * work_per_input, unit, seconds)
        self.timings.append(timing)
        rate = f"{human(timing.per_second)} {unit}/s"
        self._progress.update(task, completed=inputs, rate=rate)
        if not self.console.is_terminal:
            self.console.print(f"{name:<34} {seconds:7.1f} s   {rate}", highlight=False)


def human(value: float) -> str:
    """Three digits with a thousands letter: 1234567 → '1.23 M'."""
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= limit:
            return f"{value / (1e3 if limit == 1e4 else limit):.3g}{letter}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
