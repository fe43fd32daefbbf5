"""A run's numbers in the text format that Prometheus reads, by its conventions for names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaefast.jobs.progress import Snapshot

__all__ = ["metrics", "write_metrics"]


def metrics(now: Snapshot, name: str, at: float) -> str:
    """The text of a metrics file.

    Counters end in _total; units are seconds and rows. What is not known is left out.

    Args:
        now: the run.
        name: the label ``run``.
        at: s since 1970.
    """
    run = f'run="{_escaped(name)}"'
    single: list[tuple[str, str, str, float | None]] = [
        ("rows", "gauge", "Rows of the run.", now.rows),
        ("rows_completed_total", "counter", "Finished rows, failed ones included.", now.done),
        ("rows_failed_total", "counter", "Finished rows without a result.", now.failed),
        ("shards_completed_total", "counter", "Finished shards.", now.shards),
        ("rows_per_second", "gauge", "Finished rows a second, of the last minute.", now.rate),
        ("remaining_seconds", "gauge", "Time until all rows are finished.", now.left),
        ("updated_timestamp_seconds", "gauge", "When this file was written.", at),
    ]
    lines = []
    for metric, kind, text, value in single:
        if value is not None:
            lines += _head(metric, kind, text)
            lines.append(f"vaefast_run_{metric}{{{run}}} {_number(value)}")
    if now.seconds:
        lines += _head("stage_seconds_total", "counter", "Time of processes in each stage.")
        for stage, value in sorted(now.seconds.items()):
            labels = f'{run},stage="{_escaped(stage)}"'
            lines.append(f"vaefast_run_stage_seconds_total{{{labels}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, now: Snapshot, name: str) -> None:
    """Replace a metrics file at once: who reads it sees the old one or the new one.

    It needs no sync: after a loss of power the next one comes.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(metrics(now, name, time.time()), encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _head(metric: str, kind: str, text: str) -> list[str]:
    return [f"# HELP vaefast_run_{metric} {text}", f"# TYPE vaefast_run_{metric} {kind}"]


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
