"""Rows of results: as a line of the table, and appended to a CSV file."""

from __future__ import annotations

import csv
import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vaefast.bench.runner import Result
from vaefast.runtime.environment import gpu, processor, versions

__all__ = ["append", "line"]


def line(row: Result) -> str:
    limit = (
        "" if math.isnan(row.percent_of_ceiling) else f"{row.percent_of_ceiling:5.0f} % of limit"
    )
    return (
        f"  {row.provider:28} {row.median_us:10.1f} us  [{row.low_us:.1f}, {row.high_us:.1f}]"
        f"  {row.gb_per_s:7.1f} GB/s {row.gflop_per_s:8.1f} GFLOP/s"
        f"  {row.times_ours:6.2f} x ours  {limit}"
    )


def append(path: Path, rows: Sequence[Any]) -> None:
    """Write rows with the machine, versions and commit to a CSV file, old or new.

    Rows are dataclasses of one kind that have a ``case``.
    """
    where = {
        "device": gpu() if rows[0].case.endswith("cuda") else processor(),
        "threads": torch.get_num_threads(),
        **versions(),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(rows[0]), *where])
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), **where})


@cache
def _commit() -> str:
    """``VAEFAST_COMMIT`` names that of a copy that is no checkout."""
    if named := os.environ.get("VAEFAST_COMMIT"):
        return named
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
