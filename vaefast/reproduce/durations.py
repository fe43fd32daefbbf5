"""Seconds of a call, and hours as they are said."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

__all__ = ["said_hours", "seconds_of"]


def seconds_of(run: Callable[[], object]) -> float:
    """Of the second of two calls: the first also compiles, packs and allocates."""
    with torch.random.fork_rng(devices=[]):
        run()
        start = time.perf_counter()
        run()
    return time.perf_counter() - start


def said_hours(seconds: float) -> str:
    """``40 s``, ``16 min``, ``5.2 h`` or ``3.1 days``."""
    for limit, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= limit:
            return f"{seconds / limit:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
